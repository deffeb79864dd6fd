"""Which distortions help a head that is trained on a few images of each label.

python benchmarks/distortions.py IMAGES [--per-class 20] [--copies 3] [--seeds 3]

Draws so many images of each label, once for each seed, trains on them with and without distorted
copies and measures on all others. Prints mean and standard deviation over the seeds.
"""

import argparse
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import resolve
from beam_flowers.contrib.augment.distort import DEFAULT, Distortions, canvas_recipe, distort
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.metrics import evaluate
from beam_flowers.head.recipes import train_head
from beam_flowers.head.softmax import Sample
from beam_flowers.images.decode import decode, decode_whole

TRIED = {
    "flip": Distortions(True),
    "flip, crop 10, scale 10, brightness 10, rotation 10": Distortions(True, 10, 10, 10, 10),
    "default: flip, crop 30, scale 30, brightness 30": DEFAULT,
    "flip, crop 60, scale 40, brightness 30, rotation 20": Distortions(True, 60, 40, 30, 20),
    "make_image_classifier: flip, rotation 40, shifts 0.2, zoom 0.2": Distortions(
        True, 0, 0, 0, 40, 0.2, 0.2, 0, 0.2
    ),
}


class Collection:
    """The images of a folder of label folders, and their vectors."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(path for path in folder.glob("*/*") if path.suffix == ".jpg")
        self.names = sorted({path.parent.name for path in self.paths})
        self.labels = np.array([self.names.index(path.parent.name) for path in self.paths])
        self._engine, self._pool = load(resolve("efficientnet-lite0")), ThreadPoolExecutor()
        self.vectors = np.stack(list(self._pool.map(self._vector, self.paths)))

    def _vector(self, path: Path) -> np.ndarray:
        image = decode(path.read_bytes(), self._engine.recipe)
        return self._engine.embed(image.pixels[np.newaxis])[0]

    def copies(self, places: list[int], distortions: Distortions, count: int) -> dict:
        """float32 [count, D] for each of the images at `places`."""

        def one(place: int) -> np.ndarray:
            data, recipe = self.paths[place].read_bytes(), self._engine.recipe
            canvas = decode_whole(data, canvas_recipe(recipe, distortions))
            sha = hashlib.sha256(data).hexdigest()
            pixels = [distort(canvas, recipe, distortions, sha, k + 1) for k in range(count)]
            return self._engine.embed(np.stack(pixels))

        return dict(zip(places, self._pool.map(one, places), strict=True))

    def draw(self, per_class: int, seed: int) -> np.ndarray:
        """Places of so many images of each label."""
        generator = np.random.default_rng(seed)
        drawn = [
            generator.permutation(np.flatnonzero(self.labels == label))[:per_class]
            for label in range(len(self.names))
        ]
        return np.concatenate(drawn)

    def accuracy(self, drawn: np.ndarray, copies: dict | None) -> float:
        """Of a head trained on the drawn images and their copies, on all other images."""
        vectors, labels = self.vectors[drawn], self.labels[drawn]
        if copies:
            found = np.stack([copies[place] for place in drawn.tolist()])
            labels = np.concatenate([labels, np.repeat(labels, found.shape[1])])
            vectors = np.concatenate([vectors, found.reshape(-1, vectors.shape[1])])
        head = train_head(Sample(vectors, labels), len(self.names), LbfgsOptions())
        others = np.setdiff1d(np.arange(len(self.paths)), drawn)
        return evaluate(head, Sample(self.vectors[others], self.labels[others])).accuracy


def main() -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    collection = Collection(arguments.images)
    sets = [collection.draw(arguments.per_class, seed) for seed in range(arguments.seeds)]
    places = sorted(set(np.concatenate(sets).tolist()))
    print("| distortions | accuracy | deviation |\n|---|---|---|")
    for name, distortions in {"none": None, **TRIED}.items():
        copies = distortions and collection.copies(places, distortions, arguments.copies)
        found = [collection.accuracy(drawn, copies) for drawn in sets]
        print(f"| {name} | {np.mean(found):.2%} | {np.std(found, ddof=1):.2%} |", flush=True)


if __name__ == "__main__":
    main()
