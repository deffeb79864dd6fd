"""Calibrates scores by one temperature for all logits, fitted on validation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.metrics import cross_entropies
from beam_flowers.head.softmax import Doubles, Head, Indices, Sample

BOUNDS = (0.2, 5.0)
"""Lowest and highest temperature. Validation rows that ask for more are too few or too easy: with
no mistake among them, any sharper score would look better."""

FEWEST_ROWS = 20
"""Validation rows below which the temperature stays 1."""


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature and its effect on the validation rows.

    Attributes:
        temperature: divisor of the logits.
        count: number of validation rows.
        cross_entropy_before: mean at temperature 1, in nats.
        cross_entropy_after: mean at this temperature, in nats; lower or equal.
    """

    temperature: float
    count: int
    cross_entropy_before: float
    cross_entropy_after: float


@one_blas_thread
def fit_temperature(head: Head, validation: Sample) -> Calibration | None:
    """Fits the temperature of a head on rows that it was not trained on: see `temperature_of`."""
    if len(validation) < FEWEST_ROWS:
        return None
    logits: Doubles = np.concatenate([head.logits(vectors) for vectors, _ in validation.chunks()])
    return temperature_of(logits, validation.class_ids)


def temperature_of(logits: Doubles, class_ids: Indices) -> Calibration | None:
    """Minimises the rows' cross entropy over the temperature (Guo et al., 2017).

    Neither the order of the labels nor the accuracy changes.

    Args:
        logits: float64 [n, C], of rows that the head giving them was not trained on.
        class_ids: intp [n].

    Returns:
        None with fewer than `FEWEST_ROWS` rows.
    """
    if len(class_ids) < FEWEST_ROWS:
        return None

    def loss(logarithm: float) -> float:
        return float(cross_entropies(logits / math.exp(logarithm), class_ids).mean())

    low, high = map(math.log, BOUNDS)
    fitted = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    # The search ends near the minimum only, where temperature 1 may be as good.
    logarithm = min((0.0, float(fitted.x)), key=loss)
    return Calibration(math.exp(logarithm), len(class_ids), loss(0.0), loss(logarithm))


def bound_warnings(calibration: Calibration) -> list[str]:
    """Returns a warning if the temperature is at one of its bounds."""
    bound = min(BOUNDS, key=lambda bound: abs(bound - calibration.temperature))
    if not math.isclose(calibration.temperature, bound, rel_tol=0.01):
        return []
    sign, cure = ("sharper", "lower") if bound == BOUNDS[0] else ("flatter", "higher")
    return [
        f"the temperature is at its bound {bound:g}: the {calibration.count} images it was fitted"
        f" on ask for {sign} scores still; try a {cure} --l2, or check these images"
    ]
