"""Measures a head on rows whose label is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from beam_flowers.errors import TrainingError
from beam_flowers.head.softmax import (
    Doubles,
    Floats,
    Head,
    Indices,
    Sample,
    TrainingStep,
    log_softmax,
)


@dataclass(frozen=True)
class Metrics:
    """Accuracy and cross entropy on a set of rows.

    Attributes:
        count: number of rows.
        accuracy: share of rows whose best label is right, 0..1; with several labels an image,
            whose best label is one of them.
        accuracy_low: lower end of the accuracy's 95 % interval.
        accuracy_high: upper end.
        cross_entropy: mean over the rows, in nats.
    """

    count: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    cross_entropy: float


def evaluate(head: Head, sample: Sample) -> Metrics:
    """Measures a head on every row of the sample once.

    Raises:
        TrainingError: if the sample is empty.
    """
    if not len(sample):
        raise TrainingError("there are no rows to measure the head on")
    right, loss = 0, 0.0
    for vectors, class_ids in sample.chunks():
        logits = head.logits(vectors) / head.temperature
        right += sample.hits(logits, class_ids)
        loss += float(cross_entropies(logits, class_ids, sample.membership).sum())
    return metrics_of(right, loss, len(sample))


def metrics_of(right: int, loss: float, count: int) -> Metrics:
    """Makes measures of `count` rows by how many are right and their sum of cross entropies."""
    low, high = wilson_interval(right, count)
    return Metrics(count, right / count, low, high, loss / count)


def cross_entropies(
    logits: Doubles, class_ids: Indices, membership: Floats | None = None
) -> Doubles:
    """Returns the cross entropy of each row, in nats, from float64 [n, C] logits: float64 [n].

    With `membership` (see `Sample`) it is the sum over the sigmoids of all labels.
    """
    if membership is None:
        scores = np.take_along_axis(log_softmax(logits), class_ids[:, None], axis=1)
        return -scores[:, 0]
    losses: Doubles = np.logaddexp(0, logits) - membership[class_ids] * logits
    return losses.sum(axis=1)


def wilson_interval(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Returns the interval of a share by Wilson's score (1927); the default `z` is for 95 %."""
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    reach /= 1 + z * z / count
    return max(0.0, middle - reach), min(1.0, middle + reach)


def make_step(
    step: int, accuracy: float, cross_entropy: float, head: Head, validation: Sample | None
) -> TrainingStep:
    """Makes a line of the training log; measures the head on the validation rows, if any."""
    if not validation:
        return TrainingStep(step, accuracy, None, cross_entropy)
    held_back = evaluate(head, validation)
    return TrainingStep(step, accuracy, held_back.accuracy, cross_entropy, held_back.cross_entropy)
