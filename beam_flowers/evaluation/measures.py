"""Numbers about a head on pictures whose label is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.metrics import wilson_interval
from beam_flowers.head.softmax import Doubles, Head, Indices, Sample, log_softmax

TOP_K = 5
"""The largest k whose top-k accuracy is measured."""


@dataclass(frozen=True)
class Scored:
    """Pictures with their label and what the head says of them.

    Attributes:
        labels: the C labels in class order.
        uris: [n].
        class_ids: intp [n], the class that each picture has.
        log_scores: float64 [n, C], natural logarithms of the scores.
    """

    labels: tuple[str, ...]
    uris: Sequence[str]
    class_ids: Indices
    log_scores: Doubles

    @property
    def predicted(self) -> Indices:
        """Intp [n], the class of the best score; the first one of equal scores."""
        return self.log_scores.argmax(axis=1)

    @property
    def confidence(self) -> Doubles:
        """Float64 [n], the best score, 0..1."""
        best: Doubles = np.exp(self.log_scores.max(axis=1))
        return best


class Share(NamedTuple):
    """A share of pictures.

    Attributes:
        value: 0..1.
        low: lower end of its 95 % interval, by Wilson's score.
        high: upper end.
        right: how many.
        pictures: of how many.
    """

    value: float
    low: float
    high: float
    right: int
    pictures: int


class ClassMetrics(NamedTuple):
    """How one label does; None where there is nothing to divide by.

    Attributes:
        label: verbatim.
        precision: share of the pictures given this label that have it.
        recall: share of the pictures that have this label that were given it.
        f1: harmonic mean of the two.
        support: pictures that have it.
        predicted: pictures that were given it.
    """

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


@one_blas_thread
def log_scores(head: Head, sample: Sample) -> Doubles:
    """Logarithms of the softmax scores, float64 [n, C], in chunks.

    Not `Head.scores`: a confident score in float32 is 0 or 1, and its logarithm infinite.
    """
    rows = [log_softmax(head.logits(v) / head.temperature) for v, _ in sample.chunks()]
    return np.concatenate(rows) if rows else np.empty((0, len(head.bias)))


def share(right: int, pictures: int) -> Share:
    """`right` of `pictures` (at least 1) with its interval."""
    return Share(right / pictures, *wilson_interval(right, pictures), right, pictures)


def top_k_accuracy(scored: Scored, most: int = TOP_K) -> list[Share]:
    """Shares of pictures whose label is among the k best, for k = 1 .. min(most, C)."""
    places = places_of(scored)
    most = min(most, len(scored.labels))
    return [share(int((places < k).sum()), len(places)) for k in range(1, most + 1)]


def places_of(scored: Scored) -> Indices:
    """Place of each picture's own label in its ranking, 0 = best; ties go by class, as in scores.

    Returns:
        intp [n].
    """
    own = np.take_along_axis(scored.log_scores, scored.class_ids[:, None], axis=1)
    earlier = np.arange(len(scored.labels)) < scored.class_ids[:, None]
    better = (scored.log_scores > own) | ((scored.log_scores == own) & earlier)
    places: Indices = better.sum(axis=1)
    return places


def cross_entropy(scored: Scored) -> float:
    """Mean over the pictures, in nats."""
    own = np.take_along_axis(scored.log_scores, scored.class_ids[:, None], axis=1)
    return -float(own.mean())


def confusion_matrix(scored: Scored) -> Indices:
    """Counts, intp [C, C]: row = the label a picture has, column = the label it was given."""
    classes = len(scored.labels)
    cells = scored.class_ids * classes + scored.predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class(matrix: Indices, labels: Sequence[str]) -> list[ClassMetrics]:
    """Precision, recall and F1 of each label from a confusion matrix [C, C]."""
    hits, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        ClassMetrics(
            label, ratio(hit, given), ratio(hit, has), ratio(2 * hit, has + given), has, given
        )
        for label, hit, has, given in zip(
            labels, hits.tolist(), support.tolist(), predicted.tolist(), strict=True
        )
    ]


def ratio(part: int, whole: int) -> float | None:
    """`part / whole`; None where there is no whole."""
    return part / whole if whole else None
