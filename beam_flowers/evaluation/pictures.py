"""The pictures worth looking at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beam_flowers.evaluation.measures import Scored
from beam_flowers.head.softmax import CHUNK_ROWS, Doubles, Floats, Indices
from beam_flowers.store.vectors import Vectors

LOWEST_MARGINS = 20
NEIGHBOURS = 10


class Mistake(NamedTuple):
    """A picture whose best label is not the one it has.

    Attributes:
        uri: of the picture.
        label: the one it has.
        label_score: what the head gives that one.
        predicted: the best label.
        predicted_score: its score.
    """

    uri: str
    label: str
    label_score: float
    predicted: str
    predicted_score: float


class Margin(NamedTuple):
    """A picture with its two best labels.

    Attributes:
        uri: of the picture.
        label: the one it has.
        first: the best label.
        first_score: its score.
        second: the next one.
        second_score: its score.
        margin: difference of the two scores.
    """

    uri: str
    label: str
    first: str
    first_score: float
    second: str
    second_score: float
    margin: float


class Neighbour(NamedTuple):
    """A picture near another one.

    Attributes:
        uri: of the picture.
        label: the one it has, or None.
        similarity: cosine of the angle between the two vectors, -1..1.
    """

    uri: str
    label: str | None
    similarity: float


def misclassified(scored: Scored) -> list[Mistake]:
    """All mistakes, the most confident first; equal ones by uri."""
    predicted = scored.predicted
    mistakes = []
    for row in np.flatnonzero(predicted != scored.class_ids).tolist():
        own, best = int(scored.class_ids[row]), int(predicted[row])
        own_score, best_score = np.exp(scored.log_scores[row, [own, best]]).tolist()
        label, other = scored.labels[own], scored.labels[best]
        mistakes.append(Mistake(scored.uris[row], label, own_score, other, best_score))
    return sorted(mistakes, key=lambda m: (-m.predicted_score, m.uri))


def lowest_margins(scored: Scored, count: int = LOWEST_MARGINS) -> list[Margin]:
    """The pictures that the head is least sure about, right or wrong, the narrowest first."""
    best = np.argsort(-scored.log_scores, axis=1, kind="stable")[:, :2]
    scores = np.exp(np.take_along_axis(scored.log_scores, best, axis=1))
    margins = scores[:, 0] - scores[:, 1]
    narrowest = sorted(range(len(margins)), key=lambda row: (margins[row], scored.uris[row]))
    return [
        Margin(
            scored.uris[row],
            scored.labels[scored.class_ids[row]],
            scored.labels[best[row, 0]],
            float(scores[row, 0]),
            scored.labels[best[row, 1]],
            float(scores[row, 1]),
            float(margins[row]),
        )
        for row in narrowest[:count]
    ]


def nearest(vectors: Vectors, row: int, count: int = NEIGHBOURS) -> tuple[Indices, Doubles]:
    """The rows whose vectors point most nearly as that of `row`, itself left out.

    Args:
        vectors: float32 [N, D], read in chunks.
        row: whose neighbours.
        count: how many at most.

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
    unit: Doubles = doubles / np.where(lengths > 0, lengths, 1)
    return unit
