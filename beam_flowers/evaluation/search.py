"""What is searched among all pictures of a store, whatever the model: doubts and neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.evaluation.document import neighbours_section, suspects_section
from beam_flowers.evaluation.measures import log_scores
from beam_flowers.evaluation.multi_label import (
    Decided,
    Decision,
    sigmoid_scores,
    suspected_decisions,
)
from beam_flowers.evaluation.pictures import Neighbour, nearest
from beam_flowers.evaluation.selection import labels_of, number_labels
from beam_flowers.evaluation.suspects import (
    FOLDS,
    Suspect,
    assign_folds,
    list_suspects,
    out_of_fold,
)
from beam_flowers.head.examples import Examples
from beam_flowers.head.lbfgs import train_lbfgs
from beam_flowers.head.softmax import Head, Indices, Sample
from beam_flowers.head.thresholds import DEFAULT

MOST_TRAINED = 100_000
"""Pictures that the head of a fold is trained on; of more, this part, drawn by content."""


def find_suspects(
    examples: Examples,
    folds: int = FOLDS,
    seed: int = 0,
    told: Callable[[int, int], None] | None = None,
) -> dict[str, Any] | None:
    """Labels in doubt among all labelled rows; None where that cannot be asked.

    `told` takes how many heads of how many are trained.
    """
    rows = [row for row, label in enumerate(examples.labels) if label is not None]
    rows.sort(key=lambda row: (examples.sha256[row], str(examples.labels[row])))
    sets = {row: labels_of(str(examples.labels[row]), examples.separator) for row in rows}
    contents = {(label, examples.sha256[row]) for row in rows for label in sets[row]}
    images = Counter(label for label, _ in contents)
    labels = tuple(sorted(label for label, count in images.items() if count > 1))
    if not folds or len(labels) < 2:
        return None
    rows = [row for row in rows if sets[row] <= {*labels}]
    many = examples.separator is not None
    class_ids, membership = number_labels([sets[row] for row in rows], labels, many)
    sample = Sample(examples.vectors, class_ids, np.array(rows, dtype=np.intp), membership)
    parts = assign_folds([examples.sha256[row] for row in rows], class_ids, folds, seed)
    uris = [examples.uris[row] for row in rows]
    found = _suspects(labels, uris, sample, parts, told)
    left_out = {label: count for label, count in sorted(images.items()) if count == 1}
    return suspects_section(found, len(rows), left_out, folds)


def _suspects(
    labels: tuple[str, ...],
    uris: list[str],
    sample: Sample,
    folds: Indices,
    told: Callable[[int, int], None] | None,
) -> list[Suspect] | list[Decision]:
    trained, heads = count(), len(np.unique(folds))

    def train(training: Sample) -> Head:
        if told:
            told(next(trained), heads)
        # The rows are in the order of their contents' hashes: every n-th is drawn by chance.
        step = -(-len(training) // MOST_TRAINED)
        rows = None if training.rows is None else training.rows[::step]
        part = replace(training, class_ids=training.class_ids[::step], rows=rows)
        return train_lbfgs(part, len(labels))

    if sample.membership is None:
        scores = out_of_fold(
            sample, folds, train, lambda head, part: np.exp(log_scores(head, part))
        )
        return list_suspects(labels, uris, scores, sample.class_ids)
    scores = out_of_fold(sample, folds, train, sigmoid_scores)
    truth = sample.membership[sample.class_ids] > 0
    return suspected_decisions(Decided(labels, uris, truth, scores, np.full(len(labels), DEFAULT)))


def neighbours(examples: Examples, uri: str) -> dict[str, Any]:
    """The pictures of the store nearest to one of them.

    Raises:
        InputError: if the store has no vector of it.
    """
    row_of = {known: row for row, known in enumerate(examples.uris)}
    address = next((u for u in (uri, files.absolute(uri)) if u in row_of), None)
    if address is None:
        raise InputError(
            f"the store has no vector of {uri!r}; name a picture as the store does, for example "
            f"{examples.uris[0]!r}"
        )
    row = row_of[address]
    rows, cosines = nearest(examples.vectors, row)
    found = [
        Neighbour(examples.uris[other], examples.labels[other], cosine)
        for other, cosine in zip(rows.tolist(), cosines.tolist(), strict=True)
    ]
    return neighbours_section(address, examples.labels[row], len(examples.uris) - 1, found)
