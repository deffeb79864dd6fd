"""Measures a head on images whose label is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.metrics import wilson_interval
from beam_flowers.head.softmax import Doubles, Head, Indices, Sample, log_softmax

TOP_K = 5
"""Largest k whose top-k accuracy is measured."""
LOWEST_MARGINS = 20
BINS = 10


@dataclass(frozen=True)
class Scored:
    """Images with their label and the scores of a head.

    Attributes:
        labels: the C labels in class order.
        uris: [n].
        class_ids: intp [n], the class of each image's given label.
        log_scores: float64 [n, C], natural logarithms of the scores.
    """

    labels: tuple[str, ...]
    uris: Sequence[str]
    class_ids: Indices
    log_scores: Doubles

    @property
    def predicted(self) -> Indices:
        """The class of the best score, intp [n]; the first one of equal scores."""
        return self.log_scores.argmax(axis=1)

    @property
    def confidence(self) -> Doubles:
        """The best score, float64 [n], 0..1."""
        return np.exp(self.log_scores.max(axis=1))


class Share(NamedTuple):
    """A share of images.

    Attributes:
        value: 0..1.
        low: lower end of its 95 % interval, by Wilson's score.
        high: upper end.
        right: number of images that count.
        images: number of all images.
    """

    value: float
    low: float
    high: float
    right: int
    images: int


class ClassMetrics(NamedTuple):
    """Measures of one label; None where the divisor is 0.

    Attributes:
        label: verbatim.
        precision: share of the images given this label that have it.
        recall: share of the images that have this label that were given it.
        f1: harmonic mean of the two.
        support: number of images that have it.
        predicted: number of images that were given it.
    """

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


class Mistake(NamedTuple):
    """An image whose best label is not its own.

    Attributes:
        uri: of the image.
        label: its given label.
        label_score: score of its given label.
        predicted: the best label.
        predicted_score: score of the best label.
    """

    uri: str
    label: str
    label_score: float
    predicted: str
    predicted_score: float


class Margin(NamedTuple):
    """An image with its two best labels.

    Attributes:
        uri: of the image.
        label: its given label.
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


class Bin(NamedTuple):
    """Images whose best score is in (low, high]; the first bin includes 0.

    Attributes:
        low: excluded, except for 0.
        high: included.
        images: number of images.
        confidence: mean of their best scores; None without images.
        accuracy: share of them that are right; None without images.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@one_blas_thread
def log_scores(head: Head, sample: Sample) -> Doubles:
    """Computes logarithms of the softmax scores, float64 [n, C], in chunks.

    `Head.scores` does not serve: a confident score in float32 is 0 or 1, its logarithm infinite.
    """
    rows = [log_softmax(head.logits(v) / head.temperature) for v, _ in sample.chunks()]
    return np.concatenate(rows) if rows else np.empty((0, len(head.bias)))


def share(right: int, images: int) -> Share:
    """Returns `right` of `images` (at least 1) with its interval."""
    return Share(right / images, *wilson_interval(right, images), right, images)


def ratio(part: int, whole: int) -> float | None:
    """Returns `part / whole`; None if `whole` is 0."""
    return part / whole if whole else None


def top_k_accuracy(scored: Scored, most: int = TOP_K) -> list[Share]:
    """Returns the shares of images whose label is among the k best, k = 1 .. min(most, C).

    Equal scores rank by class, as in the score table.
    """
    own = np.take_along_axis(scored.log_scores, scored.class_ids[:, None], axis=1)
    earlier = np.arange(len(scored.labels)) < scored.class_ids[:, None]
    better = (scored.log_scores > own) | ((scored.log_scores == own) & earlier)
    ranks = better.sum(axis=1)
    most = min(most, len(scored.labels))
    return [share(int((ranks < k).sum()), len(ranks)) for k in range(1, most + 1)]


def cross_entropy(scored: Scored) -> float:
    """Returns the mean over the images, in nats."""
    own = np.take_along_axis(scored.log_scores, scored.class_ids[:, None], axis=1)
    return -float(own.mean())


def confusion_matrix(scored: Scored) -> Indices:
    """Counts images, intp [C, C]: row = their given label, column = the predicted one."""
    classes = len(scored.labels)
    cells = scored.class_ids * classes + scored.predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class(matrix: Indices, labels: Sequence[str]) -> list[ClassMetrics]:
    """Returns precision, recall and F1 of each label from a confusion matrix [C, C]."""
    hits, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    return [
        ClassMetrics(
            label, ratio(hit, given), ratio(hit, has), ratio(2 * hit, has + given), has, given
        )
        for label, hit, has, given in zip(
            labels, hits.tolist(), support.tolist(), predicted.tolist(), strict=True
        )
    ]


def misclassified(scored: Scored) -> list[Mistake]:
    """Lists all mistakes, the most confident first; equal ones by uri."""
    predicted = scored.predicted
    mistakes = []
    for row in np.flatnonzero(predicted != scored.class_ids).tolist():
        own, best = int(scored.class_ids[row]), int(predicted[row])
        own_score, best_score = np.exp(scored.log_scores[row, [own, best]]).tolist()
        label, other = scored.labels[own], scored.labels[best]
        mistakes.append(Mistake(scored.uris[row], label, own_score, other, best_score))
    return sorted(mistakes, key=lambda m: (-m.predicted_score, m.uri))


def lowest_margins(scored: Scored, count: int = LOWEST_MARGINS) -> list[Margin]:
    """Lists the images whose two best scores are closest, right or wrong, the closest first."""
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


def reliability(confidence: Doubles, correct: npt.NDArray[np.bool_], bins: int = BINS) -> list[Bin]:
    """Compares scores with shares of right answers, in bins of equal width.

    Guo et al. 2017 (arXiv:1706.04599) define the table.

    Args:
        confidence: [n], the best scores, 0..1.
        correct: [n], True where the best label is right.
        bins: number of bins.
    """
    bin_ids = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    counts = np.bincount(bin_ids, minlength=bins)
    sums = np.bincount(bin_ids, weights=confidence, minlength=bins)
    rights = np.bincount(bin_ids, weights=correct.astype(np.float64), minlength=bins)
    return [
        Bin(
            i / bins,
            (i + 1) / bins,
            count,
            float(sums[i] / count) if count else None,
            float(rights[i] / count) if count else None,
        )
        for i, count in enumerate(counts.tolist())
    ]


def calibration(confidence: Doubles, correct: npt.NDArray[np.bool_], unit: str) -> dict[str, Any]:
    """Returns the calibration section of the report: the error and the table of `reliability`."""
    table = reliability(confidence, correct)
    return {
        "unit": unit,
        "expected_calibration_error": expected_calibration_error(table),
        "bins": [row._asdict() for row in table],
    }


def expected_calibration_error(table: list[Bin]) -> float:
    """Returns the mean of |accuracy - confidence| over the images, bin by bin; 0 is perfect.

    Raises:
        ZeroDivisionError: if there are no images.
    """
    gaps = (
        b.images * abs(b.accuracy - b.confidence)
        for b in table
        if b.accuracy is not None and b.confidence is not None
    )
    return sum(gaps) / sum(b.images for b in table)
