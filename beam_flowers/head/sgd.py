"""Trains heads by gradient descent on small batches, for the batch recipes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from beam_flowers.errors import TrainingError
from beam_flowers.head.metrics import evaluate
from beam_flowers.head.objective import Targets
from beam_flowers.head.softmax import Floats, Head, Indices, Sample, TrainingStep

Batch = tuple[Floats, Indices]
"""Vectors, float32 [B, D], which may be changed, and class ids, intp [B]."""


class DescentOptions(Protocol):
    """Settings of the descent, which all batch recipes have.

    Attributes:
        learning_rate: > 0.
        momentum: 0..1; 0 is plain gradient descent.
        dropout: share of the last layer's inputs set to 0 in training; the others are scaled up.
        l1: weight of a proximal step (soft threshold) after each gradient step, which can make
            weights exactly 0.
        l2_gradient: factor of the weights that are added to the gradient.
    """

    @property
    def learning_rate(self) -> float: ...
    @property
    def momentum(self) -> float: ...
    @property
    def dropout(self) -> float: ...
    @property
    def l1(self) -> float: ...
    @property
    def l2_gradient(self) -> float: ...


@dataclass
class Watch:
    """Reports on the training and keeps the best head.

    Attributes:
        is_due: tells if a step, counted from 0, ends with a report.
        measure: makes a report from the step, the head and the batch just trained on.
        report: takes the reports.
        validation: rows whose cross entropy decides which head is the best.
        patience: number of reports without a better head that end the training; None for no end.
        best: head with the lowest cross entropy so far, if `patience` is set.
    """

    is_due: Callable[[int], bool]
    measure: Callable[[int, Head, Batch], TrainingStep]
    report: Callable[[TrainingStep], None] | None
    validation: Sample | None
    patience: int | None

    best: Head | None = None
    _lowest: float = np.inf
    _without: int = 0

    def __post_init__(self) -> None:
        if self.patience and not self.validation:
            raise TrainingError(
                f"early stopping (after {self.patience} reports) watches the validation images,"
                " and there are none; raise the validation percentage or leave it out"
            )

    def observe(self, step: int, head: Head, batch: Batch) -> bool:
        """Reports on the head after a step; returns True if the training should end here."""
        if not self.is_due(step):
            return False
        if self.report:
            self.report(self.measure(step, head, batch))
        if not self.patience or not self.validation:
            return False
        loss = evaluate(head, self.validation).cross_entropy
        self._without += 1
        if loss < self._lowest:
            self.best, self._lowest, self._without = _copy(head), loss, 0
        return self._without >= self.patience


def descend(
    head: Head,
    batches: Iterable[Batch],
    options: DescentOptions,
    targets: Targets,
    watch: Watch,
    random: np.random.Generator,
) -> Head:
    """Trains until the batches or the watch's patience end.

    Args:
        head: head to begin from; it is not changed.
        batches: rows to train on.
        options: the recipe's settings.
        targets: scores to aim at.
        watch: reports and keeps the best head.
        random: source of the dropout.

    Returns:
        The last head, or with early stopping the best one.
    """
    head = _copy(head)
    velocity = {name: np.zeros_like(array) for name, array in head.parameters.items()}
    for step, batch in enumerate(batches):
        gradients = _gradients(head, batch, options, targets, random)
        _update(head, gradients, velocity, options)
        if watch.observe(step, head, batch):
            break
    return watch.best or head


def new_head(
    first: Callable[[tuple[int, int], np.random.Generator], Floats],
    features: int,
    targets: Targets,
    hidden: int | None,
    random: np.random.Generator,
) -> Head:
    """Makes a head to begin from: `first` draws the last layer, Glorot's rule the hidden one."""
    weights = first((hidden or features, targets.classes), random)
    head = Head(weights, np.zeros(targets.classes, np.float32))
    head = replace(head, multi_label=targets.membership is not None)
    if hidden is None:
        return head
    inside = glorot_uniform((features, hidden), random)
    return replace(head, hidden_weights=inside, hidden_bias=np.zeros(hidden, np.float32))


def glorot_uniform(shape: tuple[int, int], random: np.random.Generator) -> Floats:
    """Draws uniformly within sqrt(6 / (inputs + outputs)), Keras' default for dense layers."""
    reach = np.float32(np.sqrt(6 / sum(shape)))
    return (2 * random.random(shape, dtype=np.float32) - 1) * reach


def _copy(head: Head) -> Head:
    arrays = {name: array.copy() for name, array in head.parameters.items()}
    return Head(**arrays, temperature=head.temperature, multi_label=head.multi_label)


def _gradients(
    head: Head,
    batch: Batch,
    options: DescentOptions,
    targets: Targets,
    random: np.random.Generator,
) -> dict[str, Floats]:
    """Returns the gradients of the mean cross entropy by the head's parameters."""
    vectors, class_ids = batch
    inputs = vectors
    if head.hidden_weights is not None and head.hidden_bias is not None:
        inputs = np.maximum(vectors @ head.hidden_weights + head.hidden_bias, 0)
    inputs = _dropped(inputs, options.dropout, random)
    errors, _ = targets.errors(inputs @ head.weights + head.bias, class_ids)
    errors /= np.float32(len(class_ids))
    gradients = {"weights": inputs.T @ errors, "bias": errors.sum(axis=0)}
    if head.hidden_weights is not None:
        # The gradient is 0 where the ReLU or the dropout gave 0.
        behind = (errors @ head.weights.T) * (inputs > 0) / np.float32(1 - options.dropout)
        gradients |= {"hidden_weights": vectors.T @ behind, "hidden_bias": behind.sum(axis=0)}
    return gradients


def _update(
    head: Head,
    gradients: dict[str, Floats],
    velocity: dict[str, Floats],
    options: DescentOptions,
) -> None:
    """Makes one step of gradient descent with momentum, in place; biases have no penalties."""
    rate = np.float32(options.learning_rate)
    for name, array in head.parameters.items():
        is_weights = array.ndim == 2
        speed = velocity[name]
        speed *= np.float32(options.momentum)
        speed -= rate * gradients[name]
        if is_weights and options.l2_gradient:
            speed -= rate * np.float32(options.l2_gradient) * array
        array += speed
        if is_weights and options.l1:
            shrunk = np.maximum(np.abs(array) - rate * np.float32(options.l1), 0)
            np.copysign(shrunk, array, out=array)


def _dropped(inputs: Floats, dropout: float, random: np.random.Generator) -> Floats:
    """Sets a share of the inputs to 0 and scales the others up: scoring needs no correction."""
    if not dropout:
        return inputs
    kept = random.random(inputs.shape, dtype=np.float32) >= dropout
    return inputs * kept / np.float32(1 - dropout)
