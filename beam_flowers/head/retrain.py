"""The classic recipe: small class-balanced batches and plain gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from beam_flowers.errors import TrainingError
from beam_flowers.head.metrics import evaluate
from beam_flowers.head.objective import softmax_errors
from beam_flowers.head.softmax import Floats, Head, Indices, Sample, Step
from beam_flowers.head.threads import one_blas_thread

_INITIAL_DEVIATION = 0.001  # add_final_retrain_ops of retrain.py
_COUNTS = ("how_many_training_steps", "train_batch_size", "eval_step_interval")


@dataclass(frozen=True)
class RetrainOptions:
    """Settings of retrain.py under their old names, with its defaults, and regularisation.

    The vectors are taken as they are; the penalties act on the plain weights.

    Attributes:
        how_many_training_steps: batches, not epochs.
        train_batch_size: images a step; the paper had 10.
        learning_rate: of plain gradient descent.
        eval_step_interval: report every so many steps, and at the last.
        validation_batch_size: images drawn for each report, -1 for all.
        l1: >= 0; a proximal step (soft threshold) after each gradient step, so that weights
            can become exactly 0.
        l2: >= 0; adds l2 * W to the gradient.
        dropout: share of the vector's numbers set to 0 in training, the rest scaled up, 0..1.
    """

    how_many_training_steps: int = 4000
    train_batch_size: int = 100
    learning_rate: float = 0.01
    eval_step_interval: int = 10
    validation_batch_size: int = 100
    l1: float = 0.0
    l2: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in _COUNTS:
            _require(self, name, getattr(self, name) >= 1, ">= 1")
        for name in ("l1", "l2"):
            _require(self, name, 0 <= getattr(self, name) < np.inf, ">= 0 and finite")
        _require(self, "learning_rate", 0 < self.learning_rate < np.inf, "> 0 and finite")
        _require(self, "dropout", 0 <= self.dropout < 1, ">= 0 and < 1")
        size = self.validation_batch_size
        _require(self, "validation_batch_size", size >= 1 or size == -1, ">= 1, or -1 for all")


def _require(options: RetrainOptions, name: str, holds: bool, rule: str) -> None:
    if not holds:
        raise TrainingError(f"{name} must be {rule}, got {getattr(options, name)!r}")


def balanced_batches(
    sample: Sample, size: int, random: np.random.Generator
) -> Iterator[tuple[Floats, Indices]]:
    """Endless draws with replacement: a class uniformly, then a row of that class uniformly.

    Yields:
        Vectors float32 [size, D], the caller's own, and class ids intp [size].
    """
    by_class = np.argsort(sample.class_ids, kind="stable")
    _, starts, counts = np.unique(sample.class_ids[by_class], return_index=True, return_counts=True)
    while True:
        classes = random.integers(len(counts), size=size)
        places = by_class[starts[classes] + random.integers(counts[classes])]
        yield sample.take(places), sample.class_ids[places]


@one_blas_thread
def train_retrain(
    training: Sample,
    classes: int,
    options: RetrainOptions | None = None,
    *,
    seed: int = 0,
    validation: Sample | None = None,
    report: Callable[[Step], None] | None = None,
) -> Head:
    """Trains a head as retrain.py did (tensorflow/hub, examples/image_retraining).

    Reported are the accuracy and cross entropy of the batch just trained on, and the accuracy
    of a balanced draw from the validation rows.

    Args:
        training: rows to draw from; classes without a row are never drawn.
        classes: number of classes C.
        options: the recipe's settings.
        seed: of the weights and of all draws.
        validation: rows to report on.
        report: called every `eval_step_interval` steps and at the last one.
    """
    options = options or RetrainOptions()
    start, draws, drops, checks = np.random.default_rng(seed).spawn(4)
    weights = truncated_normal((training.vectors.shape[1], classes), start)
    head = Head(weights, np.zeros(classes, dtype=np.float32))
    batches = balanced_batches(training, options.train_batch_size, draws)
    validate = _validation_accuracy(validation, options.validation_batch_size, checks)
    last = options.how_many_training_steps - 1
    for step, (vectors, class_ids) in zip(range(last + 1), batches, strict=False):
        _descend(head, _dropped(vectors, options.dropout, drops), class_ids, options)
        if report and (step == last or step % options.eval_step_interval == 0):
            on_batch = evaluate(head, Sample(vectors, class_ids))
            report(Step(step, on_batch.accuracy, validate(head), on_batch.cross_entropy))
    return head


def _descend(head: Head, vectors: Floats, class_ids: Indices, options: RetrainOptions) -> None:
    """One step of gradient descent, in place."""
    rate = np.float32(options.learning_rate)
    errors, _ = softmax_errors(vectors @ head.weights + head.bias, class_ids)
    errors *= rate / np.float32(len(class_ids))
    gradient = vectors.T @ errors
    if options.l2:
        gradient += rate * np.float32(options.l2) * head.weights
    head.weights[...] -= gradient
    head.bias[...] -= errors.sum(axis=0)
    if options.l1:
        shrunk = np.abs(head.weights) - rate * np.float32(options.l1)
        head.weights[...] = np.copysign(np.maximum(shrunk, 0), head.weights)


def _dropped(vectors: Floats, dropout: float, random: np.random.Generator) -> Floats:
    """Inverted dropout: kept numbers are scaled up, so that scoring needs no correction."""
    if not dropout:
        return vectors
    kept = random.random(vectors.shape, dtype=np.float32) >= dropout
    return vectors * kept / np.float32(1 - dropout)


def _validation_accuracy(
    validation: Sample | None, size: int, random: np.random.Generator
) -> Callable[[Head], float | None]:
    """How a report measures validation: on a fresh balanced draw, or on all rows for -1."""
    if not validation:
        return lambda head: None
    if size == -1:
        return lambda head: evaluate(head, validation).accuracy
    draws = balanced_batches(validation, size, random)
    return lambda head: evaluate(head, Sample(*next(draws))).accuracy


def truncated_normal(shape: tuple[int, int], random: np.random.Generator) -> Floats:
    """TensorFlow's truncated normal, deviation 0.001: draws beyond two deviations are redrawn."""
    values = random.standard_normal(shape, dtype=np.float32)
    while (far := np.abs(values) > 2).any():
        values[far] = random.standard_normal(int(far.sum()), dtype=np.float32)
    return values * np.float32(_INITIAL_DEVIATION)
