"""What a head says of the pictures it was not trained on: the ground for choosing a threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.head.softmax import Head, Sample

HeldOut = npt.NDArray[Any]
"""Structured array of `HELD_OUT`."""

HELD_OUT = np.dtype([("testing", "?"), ("score", "<f4"), ("correct", "?")])
"""One held-out picture: whether it is a testing one (else a validation one), the score of its best
label, whether that label is right."""


def measure_held_out(head: Head, validation: Sample, testing: Sample) -> HeldOut:
    """The held-out pictures, validation before testing, lowest score first: `HELD_OUT` [n]."""
    rows = [
        (is_testing, score, correct)
        for is_testing, sample in enumerate((validation, testing))
        for score, correct in sorted(_answers(head, sample))
    ]
    return np.array(rows, HELD_OUT)


def _answers(head: Head, sample: Sample) -> list[tuple[float, bool]]:
    answers: list[tuple[float, bool]] = []
    for vectors, class_ids in sample.chunks():
        scores = head.scores(vectors)
        best = scores.argmax(axis=1)
        right = best == class_ids
        if sample.membership is not None:
            right = sample.membership[class_ids, best] > 0
        answers += zip(scores.max(axis=1).tolist(), right.tolist(), strict=True)
    return answers
