"""Measures a head on images with any number of labels: each label is decided by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.evaluation.measures import LOWEST_MARGINS, TOP_K, Share, calibration, ratio, share
from beam_flowers.evaluation.suspects import suspected_labels
from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.softmax import Doubles, Head, Sample, sigmoid

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Decided:
    """Images with their labels and a head's decision on each label.

    Attributes:
        labels: the C labels in class order.
        uris: [n].
        truth: bool [n, C], True for the labels that an image has.
        scores: float64 [n, C], 0..1, each by itself.
        thresholds: float64 [C], the lowest score at which a label is given.
    """

    labels: tuple[str, ...]
    uris: Sequence[str]
    truth: Bools
    scores: Doubles
    thresholds: Doubles

    @property
    def given(self) -> Bools:
        """The labels given, bool [n, C]."""
        return self.scores >= self.thresholds

    @property
    def wrong(self) -> Bools:
        """The wrong decisions, bool [n, C]."""
        return self.given != self.truth


class LabelMetrics(NamedTuple):
    """Measures of one label, as in `ClassMetrics`.

    Attributes:
        threshold: the lowest score at which it is given.
    """

    label: str
    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


class LabelCounts(NamedTuple):
    """One label's confusion matrix, in images.

    Attributes:
        label: verbatim.
        right: number of images that have it and were given it.
        missed: number of images that have it and were not given it.
        wrong: number of images that were given it and do not have it.
        rest: number of all others.
    """

    label: str
    right: int
    missed: int
    wrong: int
    rest: int


class Decision(NamedTuple):
    """The decision on one label of one image.

    Attributes:
        uri: of the image.
        labels: all labels of the image.
        label: the label decided on.
        holds: True if the image has that label.
        score: of that label.
        threshold: the lowest score at which it is given.
    """

    uri: str
    labels: list[str]
    label: str
    holds: bool
    score: float
    threshold: float


@one_blas_thread
def sigmoid_scores(head: Head, sample: Sample) -> Doubles:
    """Computes the scores of a multi-label head, float64 [n, C], in chunks."""
    rows = [sigmoid(head.logits(v) / head.temperature) for v, _ in sample.chunks()]
    return np.concatenate(rows) if rows else np.empty((0, len(head.bias)))


def build_sections(decided: Decided, cross_entropy: float) -> dict[str, dict[str, Any]]:
    """Returns the report's sections, with the names of `document.build_sections`."""
    counts = count_labels(decided)
    top_k = top_k_hits(decided)
    exact = share(int((~decided.wrong).all(axis=1).sum()), len(decided.uris))
    return {
        "accuracy": {"meaning": "the best label is one of the image's", **top_k[0]._asdict()},
        "exact": {"meaning": "all labels are right", **exact._asdict()},
        "top_k": {"shares": [{"k": k, **s._asdict()} for k, s in enumerate(top_k, 1)]},
        "cross_entropy": {"value": cross_entropy, "unit": "nats, sum over the labels"},
        "labels": {"rows": [row._asdict() for row in per_label(counts, decided.thresholds)]},
        "confusion": {"rows": [row._asdict() for row in counts]},
        "calibration": calibration(
            decided.scores.ravel(), decided.truth.ravel(), "pairs of an image and a label"
        ),
        "misclassified": {"rows": [row._asdict() for row in wrong_decisions(decided)]},
        "lowest_margins": {"rows": [row._asdict() for row in closest_decisions(decided)]},
    }


def top_k_hits(decided: Decided, most: int = TOP_K) -> list[Share]:
    """Returns the shares of images that have one of their k best labels, k = 1 .. min(most, C)."""
    order = np.argsort(-decided.scores, axis=1, kind="stable")[:, :most]
    hits = np.take_along_axis(decided.truth, order, axis=1)
    rights = np.logical_or.accumulate(hits, axis=1).sum(axis=0)
    return [share(right, len(hits)) for right in rights.tolist()]


def count_labels(decided: Decided) -> list[LabelCounts]:
    """Counts right and wrong decisions of each label."""
    truth, given = decided.truth, decided.given
    cells = (truth & given, truth & ~given, ~truth & given, ~truth & ~given)
    columns = [cell.sum(axis=0).tolist() for cell in cells]
    return [LabelCounts(*row) for row in zip(decided.labels, *columns, strict=True)]


def per_label(counts: Sequence[LabelCounts], thresholds: Doubles) -> list[LabelMetrics]:
    """Returns precision, recall and F1 of each label at its threshold, float64 [C]."""
    return [
        LabelMetrics(
            c.label,
            threshold,
            ratio(c.right, c.right + c.wrong),
            ratio(c.right, c.right + c.missed),
            ratio(2 * c.right, 2 * c.right + c.wrong + c.missed),
            c.right + c.missed,
            c.right + c.wrong,
        )
        for c, threshold in zip(counts, thresholds.tolist(), strict=True)
    ]


def wrong_decisions(decided: Decided) -> list[Decision]:
    """Lists the wrong decisions, those farthest from the threshold first."""
    return _decisions(decided, decided.wrong)[::-1]


def closest_decisions(decided: Decided, count: int = LOWEST_MARGINS) -> list[Decision]:
    """Lists the decisions, right or wrong, whose scores are nearest to the threshold."""
    distance = np.abs(decided.scores - decided.thresholds)
    # A store has images x labels decisions: only those that can be listed are made and sorted.
    limit = np.partition(distance.ravel(), min(count, distance.size) - 1)[:count][-1]
    return _decisions(decided, distance <= limit)[:count]


def suspected_decisions(decided: Decided) -> list[Decision]:
    """Lists the labels, present or missing, that scores out of fold put in doubt.

    Each label is judged against the rest, except for labels of no image or of every image.
    """
    doubtful = np.zeros(decided.truth.shape, dtype=np.bool_)
    for label in np.flatnonzero(decided.truth.any(axis=0) & ~decided.truth.all(axis=0)).tolist():
        scores, holds = decided.scores[:, label], decided.truth[:, label].astype(np.intp)
        doubtful[:, label] = (
            suspected_labels(np.stack([1 - scores, scores], axis=1), holds) != holds
        )
    return _decisions(decided, doubtful)[::-1]


def _decisions(decided: Decided, chosen: Bools) -> list[Decision]:
    """Lists the decisions chosen by bool [n, C]; nearest to the threshold first."""
    decisions = [
        Decision(
            decided.uris[row],
            [name for name, has in zip(decided.labels, decided.truth[row], strict=True) if has],
            decided.labels[label],
            bool(decided.truth[row, label]),
            float(decided.scores[row, label]),
            float(decided.thresholds[label]),
        )
        for row, label in zip(*(axis.tolist() for axis in chosen.nonzero()), strict=True)
    ]
    return sorted(decisions, key=lambda d: (abs(d.score - d.threshold), d.uri, d.label))
