"""Trains heads as retrain.py: small class-balanced batches and plain gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat

import numpy as np

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.metrics import evaluate, make_step
from beam_flowers.head.objective import targets_for
from beam_flowers.head.settings import check_settings
from beam_flowers.head.sgd import Batch, Watch, descend, new_head
from beam_flowers.head.softmax import Floats, Head, Sample, TrainingStep

_INITIAL_DEVIATION = 0.001  # add_final_retrain_ops of retrain.py


@dataclass(frozen=True)
class RetrainOptions:
    """Settings of retrain.py under their old names, with its defaults, and regularisation.

    The vectors are not scaled; the penalties act on the plain weights.

    Attributes:
        how_many_training_steps: batches, not epochs.
        train_batch_size: images a step; the paper had 10.
        learning_rate: of plain gradient descent.
        eval_step_interval: steps from one report to the next; the last step has one, too.
        validation_batch_size: images drawn for each report, -1 for all.
        l1: >= 0; a proximal step after each gradient step.
        l2: >= 0; adds l2 * W to the gradient.
        dropout: share of the last layer's inputs set to 0 in training, 0..1.
        label_smoothing: share of the target that is spread over all labels, 0..1.
        hidden: width of a hidden ReLU layer, or None. Dropout then acts behind it.
        early_stopping: number of reports without a lower validation cross entropy after which
            training ends with the best head; None to train all steps.
    """

    how_many_training_steps: int = 4000
    train_batch_size: int = 100
    learning_rate: float = 0.01
    eval_step_interval: int = 10
    validation_batch_size: int = 100
    l1: float = 0.0
    l2: float = 0.0
    dropout: float = 0.0
    label_smoothing: float = 0.0
    hidden: int | None = None
    early_stopping: int | None = None

    momentum = 0.0  # no setting: retrain.py had none

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def l2_gradient(self) -> float:
        """Factor of the weights in the gradient, see `DescentOptions`."""
        return self.l2


def balanced_batches(sample: Sample, size: int, random: np.random.Generator) -> Iterator[Batch]:
    """Yields batches without end: draws a class, then a row of that class, both uniformly."""
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
    report: Callable[[TrainingStep], None] | None = None,
    start: Head | None = None,
) -> Head:
    """Trains a head as retrain.py did (tensorflow/hub, examples/image_retraining).

    It reports accuracy and cross entropy of the batch just trained on, and of a balanced draw
    from the validation rows.

    Args:
        training: rows to draw from; classes without a row are never drawn.
        classes: number of classes C.
        options: the recipe's settings.
        seed: of the weights and of all draws.
        validation: rows to report on.
        report: called every `eval_step_interval` steps and at the last one.
        start: head to begin from instead of drawn weights.
    """
    options = options or RetrainOptions()
    first, draws, drops, checks = np.random.default_rng(seed).spawn(4)
    targets = targets_for(training, classes, smoothing=options.label_smoothing)
    features = training.vectors.shape[1]
    head = start or new_head(truncated_normal, features, targets, options.hidden, first)
    held_back = _validation_draws(validation, options.validation_batch_size, checks)
    last = options.how_many_training_steps - 1

    def is_due(step: int) -> bool:
        return step == last or step % options.eval_step_interval == 0

    def measure(step: int, head: Head, batch: Batch) -> TrainingStep:
        now = evaluate(head, Sample(*batch, membership=training.membership))
        return make_step(step, now.accuracy, now.cross_entropy, head, next(held_back))

    watch = Watch(is_due, measure, report, validation, options.early_stopping)
    batches = islice(balanced_batches(training, options.train_batch_size, draws), last + 1)
    return descend(head, batches, options, targets, watch, drops)


def _validation_draws(
    validation: Sample | None, size: int, random: np.random.Generator
) -> Iterator[Sample | None]:
    """Yields the rows that each report measures: a fresh balanced draw, or all rows for -1."""
    if not validation or size == -1:
        yield from repeat(validation or None)
        return
    for batch in balanced_batches(validation, size, random):
        yield Sample(*batch, membership=validation.membership)


def truncated_normal(shape: tuple[int, int], random: np.random.Generator) -> Floats:
    """Draws from TensorFlow's truncated normal, deviation 0.001, within two deviations."""
    values = random.standard_normal(shape, dtype=np.float32)
    while (far := np.abs(values) > 2).any():
        values[far] = random.standard_normal(int(far.sum()), dtype=np.float32)
    return values * np.float32(_INITIAL_DEVIATION)
