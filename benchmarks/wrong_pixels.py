"""Accuracy and effective rank of Lite0's vectors by right and wrong recipes.

python benchmarks/wrong_pixels.py IMAGES [--keep vectors.npz]

IMAGES is a tree of labelled folders. For each recipe: accuracy of a linear classifier on all
images, over five folds; effective rank and spread, as `embed` computes them for its warning, of a
hundred images drawn by content, of a hundred of each label, and of bursts: a hundred cuts of one
photograph. With --keep the vectors are written to a file, and taken from it if it is there.
"""

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from beam_flowers.backbones import engine
from beam_flowers.backbones.resolve import resolve
from beam_flowers.images.decode import decode
from beam_flowers.workflows.wrong_pixels import DRAWN, Direction, directions, is_wrong

RECIPES = {
    "right": {},
    "-1..1": {"pixel_range": (-1.0, 1.0)},
    "0..1": {"pixel_range": (0.0, 1.0)},
    "0..255": {"pixel_range": (0.0, 255.0)},
    "-0.5..0.5": {"pixel_range": (-0.5, 0.5)},
    "torch": {
        "pixel_range": (0.0, 1.0),
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
    "caffe": {
        "pixel_range": (0.0, 255.0),
        "mean": (103.939, 116.779, 123.68),
        "channels": "bgr",
    },
    "bgr": {"channels": "bgr"},
    "inverted": None,
    "-128..127": {"pixel_range": (-128.0, 127.0)},
    "0..1/255": {"pixel_range": (0.0, 1 / 255)},
}
BURSTS = 3
PENALTIES = (0.1, 1.0, 10.0, 100.0)


def burst(path: Path, random: np.random.Generator) -> np.ndarray:
    """Cuts a photograph a hundred times, as a hand-held camera would: uint8 [100, 224, 224, 3]."""
    image = Image.open(path).convert("RGB")
    side, cuts = min(image.size), []
    for _ in range(DRAWN):
        size = side * random.uniform(0.85, 1.0)
        left, top = random.uniform(0, image.width - size), random.uniform(0, image.height - size)
        cut = image.resize((224, 224), Image.BILINEAR, (left, top, left + size, top + size))
        noise = random.normal(0, 4, (224, 224, 3))
        cuts.append((np.asarray(cut, float) * random.uniform(0.9, 1.1) + noise).clip(0, 255))
    return np.stack(cuts).astype(np.uint8)


def vectors_by_recipe(paths: list[Path]) -> dict[str, np.ndarray]:
    """Computes the vectors of all images and bursts by each recipe."""
    lite = resolve("efficientnet-lite0")
    recipe, random = lite.row.recipe(224, 224), np.random.default_rng(0)
    pixels = np.stack([decode(path.read_bytes(), recipe).pixels for path in paths])
    chosen = [paths[round(share * len(paths))] for share in (0.002, 0.467, 0.867)]
    bursts = [burst(path, random) for path in chosen]
    found = {}
    for name, changes in RECIPES.items():
        given = [255 - some for some in (pixels, *bursts)] if changes is None else [pixels, *bursts]
        network = engine.load(replace(lite, row=replace(lite.row, **(changes or {}))))
        found[name], *others = map(network.embed, given)
        found |= {f"{name}|burst{number}": other for number, other in enumerate(others)}
    return found


def accuracy(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Returns the best accuracy over penalties of ridge regression on the labels, five folds."""
    wide = vectors.astype(np.float64)
    scaled = (wide - wide.mean(0)) / (wide.std(0) + 1e-6 * np.abs(wide).max())
    kernel = scaled @ scaled.T / scaled.shape[1]
    targets = 2.0 * (labels[:, None] == np.unique(labels)) - 1
    right, folds = [], np.random.default_rng(0).permutation(len(labels)) % 5
    for penalty in PENALTIES:
        guessed = np.empty(len(labels), labels.dtype)
        for fold in range(5):
            train, test = folds != fold, folds == fold
            mean = targets[train].mean(0)
            inner = kernel[np.ix_(train, train)] + penalty * np.eye(train.sum())
            weights = np.linalg.solve(inner, targets[train] - mean)
            scores = kernel[np.ix_(test, train)] @ weights + mean
            guessed[test] = np.unique(labels)[scores.argmax(1)]
        right.append(float((guessed == labels).mean()))
    return max(right)


def shown(found: Direction) -> str:
    """Formats rank and spread, with a mark if `embed` would warn."""
    return f"{found.rank:5.1f}/{found.spread:.3f}{'!' if is_wrong(found) else ' '}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    paths = sorted(options.images.glob("*/*.jpg"))
    labels = np.array([path.parent.name for path in paths])
    if options.keep and options.keep.exists():
        found = dict(np.load(options.keep))
    else:
        found = vectors_by_recipe(paths)
        if options.keep:
            np.savez(options.keep, **{name.replace("/", "%"): one for name, one in found.items()})
    digests = np.array([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths])
    order = np.argsort(digests)
    print("recipe      acc %  rank/spread | of each label | of bursts; ! where `embed` would warn")
    for name in RECIPES:
        vectors = found.get(name.replace("/", "%"))
        if vectors is None:
            continue
        drawn = shown(directions(vectors[order[:DRAWN]]))
        ones = [order[labels[order] == label][:DRAWN] for label in np.unique(labels)]
        of_labels = " ".join(shown(directions(vectors[one])) for one in ones)
        bursts = (found[f"{name}|burst{n}".replace("/", "%")] for n in range(BURSTS))
        of_bursts = " ".join(shown(directions(one)) for one in bursts)
        exact = 100 * accuracy(vectors, labels)
        print(f"{name:<11} {exact:5.1f}  {drawn} | {of_labels} | {of_bursts}", flush=True)


if __name__ == "__main__":
    main()
