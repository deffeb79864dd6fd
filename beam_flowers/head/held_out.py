"""Measures the best score of each held-out image, and if its label is right.

The model keeps them, so that `--target-precision` can choose a threshold without the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.head.softmax import Floats, Head, Indices, Sample

HeldOut = npt.NDArray[Any]
"""Structured array of `HELD_OUT`."""

HELD_OUT = np.dtype([("testing", "?"), ("score", "<f4"), ("correct", "?")])
"""Fields of one held-out image: in the testing split (else validation), score of the best label,
best label correct."""


Answer = tuple[float, bool]
"""Score of an image's best label, and if that label is right."""


def measure_held_out(head: Head, validation: Sample, testing: Sample) -> HeldOut:
    """Returns the held-out images, validation before testing, by ascending score: [n]."""
    return held_out_of(best_scores(head, validation), best_scores(head, testing))


def held_out_of(validation: Sequence[Answer], testing: Sequence[Answer]) -> HeldOut:
    """Returns the held-out images, validation before testing, by ascending score: [n]."""
    rows = [
        (is_testing, score, correct)
        for is_testing, answers in enumerate((validation, testing))
        for score, correct in sorted(answers)
    ]
    return np.array(rows, HELD_OUT)


def best_scores(head: Head, sample: Sample) -> list[Answer]:
    """Returns the best score of each row of a sample, and if it is of a right label."""
    answers: list[Answer] = []
    for vectors, class_ids in sample.chunks():
        answers += answers_of(head.scores(vectors), class_ids, sample)
    return answers


def answers_of(scores: Floats, class_ids: Indices, sample: Sample) -> list[Answer]:
    """Returns the same of rows by their scores, float32 [n, C], and class ids of a sample."""
    correct = sample.is_right(scores.argmax(axis=1), class_ids)
    return list(zip(scores.max(axis=1).tolist(), correct.tolist(), strict=True))
