"""Measure heads for the docs: `python benchmarks/learning.py WHAT STORE`.

STORE is a folder of labelled images, which is embedded first, or a store of them. Figures in the
docs are of the 1,500 photographs of flowers in five classes. Needs the extra [test].
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import InputError
from beam_flowers.evaluation.search import find_suspects
from beam_flowers.head.examples import prepare
from beam_flowers.head.groups import fold_codes
from beam_flowers.head.held_out import best_scores
from beam_flowers.head.lbfgs import LbfgsOptions, default_l2, train_lbfgs
from beam_flowers.head.metrics import evaluate, wilson_interval
from beam_flowers.head.softmax import Sample
from beam_flowers.head.split import SplitOptions
from beam_flowers.head.store_examples import read_examples
from beam_flowers.head.training import train
from beam_flowers.scoring.decision import threshold_for_precision
from beam_flowers.workflows.embed import embed_images
from beam_flowers.workflows.fine_tune import fine_tune as tune

SEEDS = 3

SPREAD = np.float32(2.6)
"""Deviation of the clusters from centres that deviate by 1; it makes some 10 % errors."""


def classes(store: str) -> None:
    """Accuracy by l2 where there are 500 and 1,000 classes of made-up clusters."""
    del store
    print("| classes | l2 | accuracy |\n|---|---|---|")
    for count in (500, 1000):
        random = np.random.default_rng(count)
        centres = random.standard_normal((count, 256), np.float32)
        ids = np.arange(10 * count) % count
        vectors = centres[ids] + SPREAD * random.standard_normal((len(ids), 256), np.float32)
        test = np.arange(len(ids)) >= 6 * count
        training = ~test
        default = default_l2(count)
        for l2 in (0.05, 4 * default, default, default / 4, default / 16):
            head = train_lbfgs(Sample(vectors[training], ids[training]), count, LbfgsOptions(l2=l2))
            found = evaluate(head, Sample(vectors[test], ids[test]))
            note = " (default)" if l2 == default else ""
            print(f"| {count} | {l2:g}{note} | {found.accuracy:.2%} |", flush=True)


KINDS: dict[str, dict[str, Any]] = {
    "as before: l2 0.05, validation rows held back": {"options": LbfgsOptions(l2=0.05), "folds": 0},
    "default": {},
    "--drop-suspects": {"drop_suspects": 0.3},
}


def folds(store: str, wrong: float = 0.0) -> None:
    """Accuracy and cross entropy of `train()` in 5 outer folds for three seeds, paired.

    A share `wrong` of the labels trained on is replaced by another label; those measured are right.
    """
    examples = read_examples(store).examples
    prepared = prepare(examples, SplitOptions())
    given = np.array(examples.labels, object)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in KINDS}
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        outer = np.full(len(given), -1)
        outer[prepared.rows] = fold_codes(prepared.groups, prepared.class_ids, 5, seed=seed)
        labels = given.copy()
        for row in np.flatnonzero(random.random(len(given)) < wrong):
            labels[row] = random.choice([name for name in prepared.labels if name != given[row]])
        for fold in range(5):
            rows = outer[prepared.rows] == fold
            test = prepared.where(examples.vectors, rows)
            inner = replace(examples, labels=np.where(outer == fold, None, labels).tolist())
            for name, settings in KINDS.items():
                began = time.process_time()
                head = train(inner, seed=seed, **settings).head
                seconds = time.process_time() - began
                at = evaluate(head, test)
                found[name].append((at.accuracy, at.cross_entropy, seconds))
    first = np.array(next(iter(found.values())))
    print(f"{wrong:.0%} of the labels wrong; differences to the first row, ± standard error\n")
    print("| recipe | accuracy | difference | cross entropy | ratio | CPU s |\n|" + "---|" * 6)
    for name, values in found.items():
        numbers = np.array(values)
        gap = 100 * (numbers - first)[:, 0]
        accuracy, loss, seconds = numbers.mean(axis=0)
        print(
            f"| {name} | {accuracy:.2%} | {gap.mean():+.2f} ± {gap.std() / len(gap) ** 0.5:.2f} |"
            f" {loss:.4f} | {loss / first[:, 1].mean():.3f} | {seconds:.1f} |"
        )


def noise(store: str) -> None:
    """The same with a fifth of the labels wrong."""
    folds(store, 0.2)


def suspects(store: str) -> None:
    """Wrong labels found among a fifth of wrong ones, by `evaluate`'s search."""
    examples = read_examples(store).examples
    names = sorted({str(label) for label in examples.labels})
    print("| seed | found | of them wrong |\n|---|---|---|")
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        labels = list(examples.labels)
        wrong = set(np.flatnonzero(random.random(len(labels)) < 0.2).tolist())
        for row in wrong:
            labels[row] = random.choice([name for name in names if name != labels[row]])
        section = find_suspects(replace(examples, labels=labels)) or {}
        places = {uri: row for row, uri in enumerate(examples.uris)}
        found = {places[row["uri"]] for row in section["rows"]}
        hits = len(found & wrong)
        print(f"| {seed} | {hits / len(wrong):.0%} | {hits / len(found):.0%} |", flush=True)


def precision(store: str) -> None:
    """Precision on a fifth that a model never saw, by `--target-precision`, for ten seeds."""
    examples = read_examples(store).examples
    prepared = prepare(examples, SplitOptions())
    targets = (0.95, 0.97, 0.99)
    found: dict[float, list[tuple[int, int, int]]] = {target: [] for target in targets}
    for seed in range(10):
        outer = np.full(len(examples.uris), -1)
        outer[prepared.rows] = fold_codes(prepared.groups, prepared.class_ids, 5, seed=seed)
        test = prepared.where(examples.vectors, outer[prepared.rows] == 0)
        labels = np.where(outer == 0, None, np.array(examples.labels, object))
        inner = replace(examples, labels=labels.tolist())
        result = train(inner, seed=seed)
        held_out = result.held_out[~result.held_out["testing"]]
        answers = best_scores(result.head, test)
        for target in targets:
            try:
                least = threshold_for_precision(held_out["score"], held_out["correct"], target)
            except InputError as error:
                note(f"seed {seed}, {target}: {error}")
                found[target].append((0, 0, len(answers)))
                continue
            given = [right for score, right in answers if np.float32(score) >= np.float32(least)]
            found[target].append((sum(given), len(given), len(answers)))
    print("| target | pooled | seeds wholly below | unknown |\n|---|---|---|---|")
    for target, rows in found.items():
        right, given, count = np.sum(rows, axis=0)
        below = sum(wilson_interval(r, g)[1] < target for r, g, _ in rows if g)
        print(f"| {target} | {right / given:.2%} | {below} of 10 | {1 - given / count:.1%} |")


def fine_tune(images: str) -> None:
    """Test accuracy on each third, trained on the others: the head alone and the tuned network."""
    print("| third | head | fine-tuned |\n|---|---|---|", flush=True)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        found_at = {sha256(path.read_bytes()): path for path in Path(images).glob("*/*.jpg")}
        paths = [found_at[digest] for digest in sorted(found_at)]
        for third in range(3):
            store, rows = f"{folder}/store-{third}", ["uri,label,split"]
            for place, path in enumerate(paths):
                # Of the rest every eighth validates.
                split = "testing" if place % 3 == third else "training"
                split = "validation" if split == "training" and place // 3 % 8 == 0 else split
                rows.append(f"{path},{path.parent.name},{split}")
            manifest = Path(folder, f"{third}.csv")
            manifest.write_text("\n".join(rows))
            backbone = resolve("efficientnet-lite0")
            embed_images([str(manifest)], store, backbone)
            tuned = tune(
                store, backbone, [str(manifest)], f"{folder}/tuned-{third}", say=note, warn=note
            )
            before = train(read_examples(store).examples).metrics["testing"].accuracy
            found.append((before, tuned.after["testing"].share))
            print(f"| {third + 1} | {before:.2%} | {found[-1][1]:.2%} |", flush=True)
    print("| mean | {:.2%} | {:.2%} |".format(*np.mean(found, axis=0)))


def note(line: str) -> None:
    """Prints a line beside the table."""
    print(line, file=sys.stderr, flush=True)


def sha256(data: bytes) -> str:
    """Hex digest of some bytes."""
    return hashlib.sha256(data).hexdigest()


MEASURES: dict[str, Callable[[str], None]] = {
    "classes": classes,
    "fine-tune": fine_tune,
    "folds": folds,
    "noise": noise,
    "precision": precision,
    "suspects": suspects,
}


def main() -> int:
    """Prints the table of one measure as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=sorted(MEASURES))
    parser.add_argument("store")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store
        # Fine-tuning wants the images themselves.
        if arguments.what != "fine-tune" and not Path(store, "__commits").is_dir():
            embed_images([store], f"{folder}/store", resolve("efficientnet-lite0"))
            store = f"{folder}/store"
        MEASURES[arguments.what](store)
    return 0


if __name__ == "__main__":
    sys.exit(main())
