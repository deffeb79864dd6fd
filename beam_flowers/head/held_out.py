"""Measures the best score of each held-out image, and if its label is right.

The model keeps them, so that `--target-precision` can choose a threshold without the store.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.head.softmax import Head, Sample

HeldOut = npt.NDArray[Any]
"""Structured array of `HELD_OUT`."""

HELD_OUT = np.dtype([("testing", "?"), ("score", "<f4"), ("correct", "?")])
"""Fields of one held-out image: in the testing split (else validation), score of the best label,
best label correct."""


def measure_held_out(head: Head, validation: Sample, testing: Sample) -> HeldOut:
    """Returns the held-out images, validation before testing, by ascending score: [n]."""
    rows = [
        (is_testing, score, correct)
        for is_testing, sample in enumerate((validation, testing))
        for score, correct in sorted(_best_scores(head, sample))
    ]
    return np.array(rows, HELD_OUT)


def _best_scores(head: Head, sample: Sample) -> list[tuple[float, bool]]:
    answers: list[tuple[float, bool]] = []
    for vectors, class_ids in sample.chunks():
        scores = head.scores(vectors)
        best = scores.argmax(axis=1)
        correct = sample.is_right(best, class_ids)
        answers += zip(scores.max(axis=1).tolist(), correct.tolist(), strict=True)
    return answers
