"""From which score on a label of a multi-label head holds."""

from __future__ import annotations

import numpy as np

from beam_flowers.head.softmax import Doubles, Floats, Head, Sample

DEFAULT = 0.5
"""Threshold of a label that no validation picture has."""


def fit_thresholds(head: Head, validation: Sample) -> tuple[float, ...]:
    """For each label the threshold of the highest F1 on the validation rows, 0..1.

    It lies half-way between two scores that occur; of equal ones it is that nearest to 0.5.

    Args:
        head: a multi-label head with C labels.
        validation: rows with `membership`.
    """
    classes = len(head.bias)
    if validation.membership is None or not len(validation):
        return (DEFAULT,) * classes
    scores = np.concatenate([head.scores(vectors) for vectors, _ in validation.chunks()])
    holds = validation.membership[validation.class_ids] > 0
    return tuple(_best(scores[:, label], holds[:, label]) for label in range(classes))


def _best(scores: Floats, holds: np.ndarray) -> float:
    if not holds.any():
        return DEFAULT
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order].astype(np.float64)
    right = np.cumsum(holds[order])
    f1: Doubles = 2 * right / (np.arange(1, len(right) + 1) + right[-1])
    between = (ranked + np.append(ranked[1:], 0)) / 2
    # Equal scores cannot be told apart: only their last place is a threshold.
    f1[:-1][ranked[:-1] == ranked[1:]] = -1
    best = np.flatnonzero(f1 == f1.max())
    return float(between[best[np.abs(between[best] - DEFAULT).argmin()]])
