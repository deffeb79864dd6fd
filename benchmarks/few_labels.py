"""Measures what labels are worth that `review STORE` asks for, beside random ones.

    python benchmarks/few_labels.py STORE

STORE has a label for each image, as `embed FLOWERS --store STORE` makes it. Eight times 500 images
are drawn by chance, of which some are labelled; the accuracy is on all others.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from beam_flowers.head.lbfgs import train_lbfgs
from beam_flowers.head.softmax import Indices, Sample
from beam_flowers.review.choose import choose_images
from beam_flowers.store.features import Features, read_features

TRIES, POOL, ROUND = 8, 500, 25


def accuracy(features: Features, rows: Indices, test: Indices) -> float:
    """Returns the share of `test` rows that a head gets right which is trained on `rows`."""
    names = sorted({str(features.labels[row]) for row in rows})
    class_ids = np.array([names.index(str(features.labels[row])) for row in rows], np.intp)
    head = train_lbfgs(Sample(features.vectors, class_ids, rows), len(names))
    best = head.logits(features.vectors[test]).argmax(axis=1)
    return float(
        np.mean([names[b] == features.labels[row] for b, row in zip(best, test, strict=True)])
    )


def chosen(features: Features, pool: Indices, most: int) -> list[Indices]:
    """Returns the rows that have a label after each round of `review`, up to `most`."""
    names = ("uris", "sha256", "labels", "splits")
    texts = {name: [getattr(features, name)[row] for row in pool] for name in names}
    asked = replace(features, vectors=features.vectors[pool], **texts)
    unlabelled = replace(asked, labels=[None] * len(pool))
    row_of, decisions, found = dict(zip(asked.sha256, pool.tolist(), strict=True)), {}, []
    while len(decisions) < most:
        for candidate in choose_images(unlabelled, decisions, ROUND).candidates:
            decisions[candidate.sha256] = str(features.labels[row_of[candidate.sha256]])
        found.append(np.array([row_of[content] for content in decisions], np.intp))
    return found


def main() -> None:
    """Prints a table of accuracies by number of labels."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store")
    _, features = read_features(parser.parse_args().store)
    results: dict[int, list[tuple[float, float]]] = {}
    for seed in range(TRIES):
        order = np.random.default_rng(seed).permutation(len(features.uris))
        pool, test = order[:POOL], order[POOL:]
        for rows in chosen(features, pool, 4 * ROUND):
            both = (accuracy(features, each, test) for each in (rows, pool[: len(rows)]))
            results.setdefault(len(rows), []).append(tuple(both))
    print("| labels | chosen | from, to | random | from, to |\n|---|---|---|---|---|")
    for count, pairs in results.items():
        columns = (np.array(pairs).T * 100).round(1)
        cells = (f"{c.mean():.1f} % | {c.min():.1f}, {c.max():.1f}" for c in columns)
        print(f"| {count} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
