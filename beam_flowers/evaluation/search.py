"""Searches all images of a store, whatever the model: doubtful labels and neighbours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.evaluation.measures import log_scores
from beam_flowers.evaluation.multi_label import (
    Decided,
    Decision,
    sigmoid_scores,
    suspected_decisions,
)
from beam_flowers.evaluation.selection import labels_of, number_labels
from beam_flowers.evaluation.suspects import (
    FOLDS,
    Suspect,
    list_suspects,
    out_of_fold,
)
from beam_flowers.head.examples import Examples
from beam_flowers.head.groups import fold_codes, image_groups
from beam_flowers.head.lbfgs import train_lbfgs
from beam_flowers.head.softmax import CHUNK_ROWS, Doubles, Floats, Head, Indices, Sample
from beam_flowers.head.suspects import STRONGER, suspecting
from beam_flowers.head.thresholds import DEFAULT
from beam_flowers.store.vectors import Vectors

MOST_TRAINED = 100_000
"""Images that the head of a fold is trained on; of more, this part, drawn by content."""

NEIGHBOURS = 10

OnHead = Callable[[int, int], None]
"""Callback for the number of trained heads and the number of all."""


class Neighbour(NamedTuple):
    """An image near another one.

    Attributes:
        uri: of the image.
        label: its label, or None.
        similarity: cosine of the angle between the two vectors, -1..1.
    """

    uri: str
    label: str | None
    similarity: float


def find_suspects(
    examples: Examples, folds: int = FOLDS, seed: int = 0, on_head: OnHead | None = None
) -> dict[str, Any] | None:
    """Returns the report's section of doubtful labels among all labelled rows.

    None if `folds` is 0 or fewer than two labels have two images of different content.
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
    class_ids, membership = number_labels(
        [sets[row] for row in rows], labels, multi_label=examples.separator is not None
    )
    sample = Sample(examples.vectors, class_ids, np.array(rows, dtype=np.intp), membership)
    uris, sha256 = ([values[row] for row in rows] for values in (examples.uris, examples.sha256))
    groups = image_groups(uris, sha256)
    fold_ids = fold_codes(groups, class_ids, min(folds, len(set(groups))), seed=seed)
    suspects = _suspects(labels, uris, sample, fold_ids, on_head)
    return {
        "measured_on": f"{len(rows)} images, all labelled ones of the store, each scored by a "
        f"head trained without it ({folds} folds, lbfgs with "
        + ("default settings)" if membership is not None else f"{STRONGER} times the default l2)"),
        "images": len(rows),
        "folds": folds,
        # Cross-validation cannot judge a label with one image: its fold's head never saw it.
        "left_out": {label: count for label, count in sorted(images.items()) if count == 1},
        "rows": [suspect._asdict() for suspect in suspects],
    }


def _suspects(
    labels: tuple[str, ...],
    uris: list[str],
    sample: Sample,
    fold_ids: Indices,
    on_head: OnHead | None,
) -> Sequence[Suspect | Decision]:
    trained, heads = count(), len(np.unique(fold_ids))

    def train(training: Sample) -> Head:
        if on_head:
            on_head(next(trained), heads)
        # The rows are in the order of their contents' hashes: every n-th is drawn by chance.
        step = -(-len(training) // MOST_TRAINED)
        rows = None if training.rows is None else training.rows[::step]
        part = replace(training, class_ids=training.class_ids[::step], rows=rows)
        options = suspecting(len(labels)) if sample.membership is None else None
        return train_lbfgs(part, len(labels), options)

    if sample.membership is None:
        scores = out_of_fold(
            sample, fold_ids, train, lambda head, part: np.exp(log_scores(head, part))
        )
        return list_suspects(labels, uris, scores, sample.class_ids)
    scores = out_of_fold(sample, fold_ids, train, sigmoid_scores)
    truth = sample.membership[sample.class_ids] > 0
    return suspected_decisions(Decided(labels, uris, truth, scores, np.full(len(labels), DEFAULT)))


def neighbours(examples: Examples, uri: str) -> dict[str, Any]:
    """Returns the report's section of the images nearest to one image of the store.

    Raises:
        InputError: if the store has no embedding of it.
    """
    row_of = {known: row for row, known in enumerate(examples.uris)}
    address = next((u for u in (uri, files.absolute(uri)) if u in row_of), None)
    if address is None:
        raise InputError(
            f"the store has no vector of {uri!r}; name an image as the store does, for example "
            f"{examples.uris[0]!r}"
        )
    row = row_of[address]
    rows, cosines = nearest(examples.vectors, row)
    return {
        "measured_on": f"{len(examples.uris) - 1} images, all others of the store, labelled or not",
        "uri": address,
        "label": examples.labels[row],
        "rows": [
            Neighbour(examples.uris[other], examples.labels[other], cosine)._asdict()
            for other, cosine in zip(rows.tolist(), cosines.tolist(), strict=True)
        ],
    }


def nearest(vectors: Vectors, row: int, count: int = NEIGHBOURS) -> tuple[Indices, Doubles]:
    """Returns the other rows whose vectors have the smallest angle to that of `row`.

    Args:
        vectors: float32 [N, D], read in chunks.
        row: the row to start from.
        count: most rows to return.

    Returns:
        intp [k] rows, the nearest first, and float64 [k] cosines; 0 for vectors of zeros.
    """
    query = _unit(vectors[row : row + 1])[0]
    starts = range(0, len(vectors), CHUNK_ROWS)
    cosines = np.concatenate([_unit(vectors[s : s + CHUNK_ROWS]) @ query for s in starts])
    cosines[row] = -np.inf
    rows = np.argsort(-cosines, kind="stable")[: min(count, len(vectors) - 1)]
    return rows, cosines[rows]


def _unit(vectors: Floats) -> Doubles:
    doubles = vectors.astype(np.float64)
    lengths = np.linalg.norm(doubles, axis=1, keepdims=True)
    return doubles / np.where(lengths > 0, lengths, 1)
