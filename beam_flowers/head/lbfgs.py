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

# Gain of an iteration that single precision can no longer resolve, where l2 is `_L2` or more.
_SMALLEST_GAIN = 1e-9

_L2 = 0.05
_L2_BY_CLASSES = 0.25


def default_l2(classes: int, *, multi_label: bool = False) -> float:
    """Returns the l2 for a number of classes: min(0.05, 0.25 / classes).

    The cross entropy of a softmax moves each of C rows of weights by 1/C of the images, so that one
    l2 for any C underfits many classes: `benchmarks/learning.py classes` measures that. With
    several labels an image each label has a sigmoid of its own, and the l2 is 0.05.
    """
    return _L2 if multi_label else min(_L2, _L2_BY_CLASSES / classes)


@dataclass(frozen=True)
class LbfgsOptions:
    """Settings of the L-BFGS recipe.

    It minimises mean cross entropy + l1 * sum|W| + l2 / 2 * sum W^2; the bias has no penalty.
    The penalties act on the weights over centred vectors of a common deviation of 1 (see
    `Scaling`), so that one value suits every backbone. Of five classes the default l2 was the best
    of a grid from 0 to 10 for 75 to 1,200 training images; 0.01 to 0.3 differ little.

    Attributes:
        l1: penalty >= 0; it makes weights exactly 0.
        l2: penalty >= 0; None for `default_l2`.
        max_iterations: > 0, the latest iteration to stop at.
        tolerance: > 0, the largest gradient component that counts as the optimum; below an l2 of
            0.05 as much smaller as l2 is, since the optimum is that much flatter.
        class_weights: `balanced` weighs all classes equally, None all images.
    """

    l1: float = 0.0
    l2: float | None = None
    max_iterations: int = 500
    tolerance: float = 1e-5
    class_weights: str | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    def for_classes(self, classes: int, *, multi_label: bool = False) -> LbfgsOptions:
        """Returns the options with a number for l2."""
        chosen = default_l2(classes, multi_label=multi_label) if self.l2 is None else self.l2
        return replace(self, l2=chosen)


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
    options = options.for_classes(classes, multi_label=training.membership is not None)
    l2 = float(options.l2 or 0)
    # The distance to the optimum is at most the gradient's length / l2.
    flatness = min(1.0, l2 / _L2) or 1.0
    targets = targets_for(training, classes, class_weights=options.class_weights)
    scaling = common_scaling(training)
    shape = (training.vectors.shape[1], classes)
    evaluations: list[Evaluation] = []

    def objective(point: Doubles) -> tuple[float, Doubles]:
        weights, bias = _unpack(point, shape)
        singles = weights.astype(np.float32), bias.astype(np.float32)
        evaluations[:] = [evaluate_softmax(training, scaling, *singles, targets)]
        return _penalised(evaluations[0], weights, options.l1, l2)

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
            "gtol": options.tolerance * flatness,
            "ftol": _SMALLEST_GAIN * flatness,
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


def _penalised(at: Evaluation, weights: Doubles, l1: float, l2: float) -> tuple[float, Doubles]:
    """Returns objective and gradient with both penalties, laid out as `_unpack` reads them."""
    loss = at.cross_entropy + l2 / 2 * float(np.square(weights).sum())
    gradient = (at.weights_gradient + l2 * weights).ravel()
    if not l1:
        return loss, np.concatenate([gradient, at.bias_gradient])
    loss += l1 * float(np.abs(weights).sum())
    parts = gradient + l1, l1 - gradient
    return loss, np.concatenate([*parts, at.bias_gradient])
