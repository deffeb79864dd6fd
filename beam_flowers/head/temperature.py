"""Scores that mean what they say: one temperature for all logits, fitted on validation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.metrics import cross_entropies
from beam_flowers.head.softmax import Doubles, Head, Sample

BOUNDS = (0.2, 5.0)
"""Between which the temperature is sought. Where the validation rows ask for more, they are too
few or too easy to tell: with no mistake among them any sharper score would look better."""

FEWEST_ROWS = 20
"""Validation rows under which the temperature stays 1."""


@dataclass(frozen=True)
class Calibration:
    """What the temperature did to the validation rows.

    Attributes:
        temperature: the logits are divided by it.
        count: validation rows that it was fitted on.
        cross_entropy_before: of their scores at temperature 1, in nats.
        cross_entropy_after: likewise at this temperature; lower or equal.
    """

    temperature: float
    count: int
    cross_entropy_before: float
    cross_entropy_after: float


@one_blas_thread
def fit_temperature(head: Head, validation: Sample) -> Calibration | None:
    """Minimises the validation rows' cross entropy over the temperature (Guo et al., 2017).

    The order of the labels stays as it is, and so does the accuracy.

    Returns:
        None with fewer than `FEWEST_ROWS` rows.
    """
    if len(validation) < FEWEST_ROWS:
        return None
    chunks = [head.logits(vectors) for vectors, _ in validation.chunks()]
    logits: Doubles = np.concatenate(chunks)

    def loss(logarithm: float) -> float:
        scaled = logits / math.exp(logarithm)
        return float(cross_entropies(scaled, validation.class_ids).mean())

    low, high = map(math.log, BOUNDS)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    logarithm = min((0.0, float(found.x)), key=loss)
    return Calibration(math.exp(logarithm), len(validation), loss(0.0), loss(logarithm))
