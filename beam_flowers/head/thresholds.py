"""Fits the score from which each label of a multi-label head is predicted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from beam_flowers.head.softmax import Doubles, Floats, Head, Sample

DEFAULT = 0.5
"""Threshold of a label that no validation image has."""


def fit_thresholds(head: Head, validation: Sample) -> tuple[float, ...]:
    """Returns for each label the threshold, 0..1, with the highest F1 on the validation rows.

    A threshold is half-way between two scores that occur. Of equally good ones the one nearest to
    0.5 is taken.

    Args:
        head: a multi-label head with C labels.
        validation: rows with `membership`.
    """
    classes = len(head.bias)
    if validation.membership is None or not len(validation):
        return (DEFAULT,) * classes
    scores = np.concatenate([head.scores(vectors) for vectors, _ in validation.chunks()])
    return thresholds_of(scores, validation.membership[validation.class_ids] > 0)


def thresholds_of(scores: Floats, given: npt.NDArray[np.bool_]) -> tuple[float, ...]:
    """Returns the thresholds of `fit_thresholds` for scores, float32 [n, C], and labels, bool."""
    return tuple(_best(scores[:, label], given[:, label]) for label in range(scores.shape[1]))


def _best(scores: Floats, given: npt.NDArray[np.bool_]) -> float:
    if not given.any():
        return DEFAULT
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    right = np.cumsum(given[order])
    f1: Doubles = 2 * right / (np.arange(1, len(right) + 1) + right[-1])
    between = (ranked + np.append(ranked[1:], 0)) / 2
    # No threshold separates equal scores: only the last of them counts.
    f1[:-1][ranked[:-1] == ranked[1:]] = -1
    best = np.flatnonzero(f1 == f1.max())
    return float(between[best[np.abs(between[best] - DEFAULT).argmin()]])
