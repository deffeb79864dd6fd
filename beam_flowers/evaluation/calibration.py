"""Whether scores can be taken as probabilities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.head.softmax import Doubles

BINS = 10


class Bin(NamedTuple):
    """Pictures whose best score lies in (low, high].

    Attributes:
        low: not included, save 0.
        high: included.
        pictures: how many.
        confidence: mean of their best scores; None where there are none.
        accuracy: share of them that are right.
    """

    low: float
    high: float
    pictures: int
    confidence: float | None
    accuracy: float | None


def reliability(confidence: Doubles, correct: npt.NDArray[np.bool_], bins: int = BINS) -> list[Bin]:
    """The reliability table: bins of equal width, as in Guo et al. 2017 (arXiv:1706.04599).

    Args:
        confidence: [n], the best scores, 0..1.
        correct: [n], whether the label is right.
        bins: how many.
    """
    places = np.clip(np.ceil(confidence * bins).astype(np.intp) - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    sums = np.bincount(places, weights=confidence, minlength=bins)
    rights = np.bincount(places, weights=correct.astype(np.float64), minlength=bins)
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


def expected_calibration_error(table: list[Bin]) -> float:
    """Mean of |accuracy - confidence| over the pictures, bin by bin; 0 is perfect.

    Raises:
        ZeroDivisionError: if there are no pictures.
    """
    gaps = (
        b.pictures * abs(b.accuracy - b.confidence)
        for b in table
        if b.accuracy is not None and b.confidence is not None
    )
    return sum(gaps) / sum(b.pictures for b in table)
