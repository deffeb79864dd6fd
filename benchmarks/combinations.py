"""Backbones alone, side by side, with distorted copies: `benchmarks/combinations.py STORE`.

STORE holds images embedded with several backbones and, where wanted, with `--augment`. Every row
is 5-fold cross-validation of the default recipe with its default settings, in the same folds for
all, repeated with other folds. Writes its table to
COMBINATIONS.md beside this file.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from beam_flowers import files
from beam_flowers.contrib.augment.training import with_copies
from beam_flowers.errors import StoreError
from beam_flowers.head.examples import Examples
from beam_flowers.head.split import SPLITS, SplitOptions
from beam_flowers.head.store_examples import JOIN, read_examples
from beam_flowers.head.sweep import cross_validate
from beam_flowers.store.features import open_store

FOLDS = 5
TARGET = Path(__file__).with_name("COMBINATIONS.md")

HEAD = """# Several backbones as one feature

`python benchmarks/combinations.py STORE` wrote this: {images} images, {folds}-fold
cross-validation of `train`'s default recipe, the same folds for every row of a column. Points are
those above {first} in the same folds. On the 1,500 flowers they flatter: the
recipe's default l2 and the crops of the networks were found on them (`head/lbfgs.py`,
`backbones/catalogue.py`), and whoever takes the best row chooses on them once more.

| features | {seeds} | mean | points |
|---|{lines}---|---|
"""


def feature_sets(root: str) -> Iterator[tuple[str, Examples]]:
    """Names and rows: every backbone and every union, then the same with distorted copies."""
    names = sorted(key.partition("=")[2] for key in open_store(root).sections)
    unions = [u for size in range(1, len(names) + 1) for u in combinations(names, size)]
    for union in unions:
        title = " + ".join(name.rpartition("-")[0] for name in union)
        stored = read_examples(root, JOIN.join(union))
        yield title, stored.examples
        try:
            yield f"{title}, with copies", with_copies(root, stored).examples
        except StoreError:
            continue


def accuracies(examples: Examples, seeds: int) -> list[float]:
    """Share of all images that are labelled right when held out, for each seed of the folds."""
    found = []
    for seed in range(seeds):
        result = cross_validate(
            examples, None, SplitOptions(), folds=FOLDS, seed=seed, splits=SPLITS
        )
        right = sum(round(fold.accuracy * fold.count) for fold in result.folds)
        found.append(right / result.count)
    return found


def main() -> int:
    """Prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows: list[str] = []
    first: tuple[str, list[float]] | None = None
    for title, examples in feature_sets(files.absolute(arguments.store)):
        found = accuracies(examples, arguments.seeds)
        first = first or (title, found)
        points = np.mean(found) - np.mean(first[1])
        cells = [f"{value:.2%}" for value in (*found, float(np.mean(found)))]
        rows.append(f"| {title} | {' | '.join(cells)} | {100 * points:+.2f} |")
        print(rows[-1], flush=True)
    head = HEAD.format(
        images=len(examples.uris),
        folds=FOLDS,
        first=first[0] if first else "",
        seeds=" | ".join(f"folds {seed}" for seed in range(arguments.seeds)),
        lines="---|" * arguments.seeds,
    )
    TARGET.write_text(head + "".join(f"{row}\n" for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
