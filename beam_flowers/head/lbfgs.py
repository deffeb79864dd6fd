"""Trains heads by the default recipe: softmax regression to its optimum by full-batch L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
from scipy.optimize import Bounds, minimize

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.metrics import make_step
from beam_flowers.head.objective import (
    Evaluation,
    Scaling,
    common_scaling,
    evaluate_softmax,
    targets_for,
)
from beam_flowers.head.settings import check_settings
from beam_flowers.head.softmax import Doubles, Head, Sample, TrainingStep

# Relative gain of an iteration that single precision can no longer resolve.
_SMALLEST_GAIN = 1e-9


@dataclass(frozen=True)
class LbfgsOptions:
    """Settings of the L-BFGS recipe.

    It minimises mean cross entropy + l1 * sum|W| + l2 / 2 * sum W^2; the bias has no penalty.
    The penalties act on the weights over centred vectors of a common deviation of 1 (see
    `Scaling`), so that one value suits every backbone. The default l2 was the best of a grid
    from 0 to 10 for 75 to 1,200 training images; 0.01 to 0.3 differ little.

    Attributes:
        l1: penalty >= 0; it makes weights exactly 0.
        l2: penalty >= 0.
        max_iterations: > 0, the latest iteration to stop at.
        tolerance: > 0, the largest gradient component that counts as the optimum.
        class_weights: `balanced` weighs all classes equally, None all images.
    """

    l1: float = 0.0
    l2: float = 0.05
    max_iterations: int = 500
    tolerance: float = 1e-5
    class_weights: str | None = None

    def __post_init__(self) -> None:
        check_settings(self)


@one_blas_thread
def train_lbfgs(
    training: Sample,
    classes: int,
    options: LbfgsOptions | None = None,
    *,
    validation: Sample | None = None,
    report: Callable[[TrainingStep], None] | None = None,
    start: Head | None = None,
) -> Head:
    """Trains a head. The same rows in the same order give the same bytes on one machine.

    Args:
        training: rows to fit, at least one.
        classes: number of classes C.
        options: penalties and limits.
        validation: rows whose accuracy is reported.
        report: called after each iteration; its cross entropy counts with the class weights.
        start: head without a hidden layer to begin from; the optimum is the same.
    """
    options = options or LbfgsOptions()
    targets = targets_for(training, classes, class_weights=options.class_weights)
    scaling = common_scaling(training)
    shape = (training.vectors.shape[1], classes)
    evaluations: list[Evaluation] = []

    def objective(point: Doubles) -> tuple[float, Doubles]:
        weights, bias = _unpack(point, shape)
        singles = weights.astype(np.float32), bias.astype(np.float32)
        evaluations[:] = [evaluate_softmax(training, scaling, *singles, targets)]
        return _penalised(evaluations[0], weights, options)

    steps = count(1)

    def after_iteration(xk: Doubles) -> None:
        # The line search accepted the point that it evaluated last.
        at = evaluations[0]
        head = scaling.fold(*_unpack(xk, shape))
        if report:
            report(make_step(next(steps), at.accuracy, at.cross_entropy, head, validation))

    result = minimize(
        objective,
        _starting_point(start, scaling, shape, split=bool(options.l1)),
        jac=True,
        method="L-BFGS-B",
        bounds=_bounds(shape) if options.l1 else None,
        callback=after_iteration if report else None,
        options={
            "maxiter": options.max_iterations,
            "maxfun": 4 * options.max_iterations,
            "gtol": options.tolerance,
            "ftol": _SMALLEST_GAIN,
        },
    )
    head = scaling.fold(*_unpack(result.x, shape))
    return replace(head, multi_label=training.membership is not None)


def _starting_point(
    start: Head | None, scaling: Scaling, shape: tuple[int, int], *, split: bool
) -> Doubles:
    """Returns the first point of the search, laid out as `_unpack` reads it."""
    weights, bias = scaling.unfold(start) if start else (np.zeros(shape), np.zeros(shape[1]))
    parts = (np.maximum(weights, 0), np.maximum(-weights, 0)) if split else (weights,)
    return np.concatenate([*(part.ravel() for part in parts), bias])


def _unpack(point: Doubles, shape: tuple[int, int]) -> tuple[Doubles, Doubles]:
    """Returns the weights, float64 [D, C], and bias, float64 [C], at a point of the search.

    With L1 the point holds the weights as a difference of two parts >= 0. The penalty is linear
    in these, which makes the optimum exact: one of the two is 0 there.
    """
    size = shape[0] * shape[1]
    *parts, bias = np.split(point, range(size, len(point), size))
    weights = parts[0] - parts[1] if len(parts) == 2 else parts[0]
    return weights.reshape(shape), bias


def _bounds(shape: tuple[int, int]) -> Bounds:
    lower = np.zeros(2 * shape[0] * shape[1] + shape[1])
    lower[-shape[1] :] = -np.inf
    return Bounds(lower, np.inf)


def _penalised(at: Evaluation, weights: Doubles, options: LbfgsOptions) -> tuple[float, Doubles]:
    """Returns objective and gradient with both penalties, laid out as `_unpack` reads them."""
    loss = at.cross_entropy + options.l2 / 2 * float(np.square(weights).sum())
    gradient = (at.weights_gradient + options.l2 * weights).ravel()
    if not options.l1:
        return loss, np.concatenate([gradient, at.bias_gradient])
    loss += options.l1 * float(np.abs(weights).sum())
    parts = gradient + options.l1, options.l1 - gradient
    return loss, np.concatenate([*parts, at.bias_gradient])
