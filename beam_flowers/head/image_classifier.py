"""Trains heads as TensorFlow Hub's make_image_classifier: epochs of shuffled batches, momentum."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.metrics import evaluate, make_step
from beam_flowers.head.objective import targets_for
from beam_flowers.head.settings import check_settings
from beam_flowers.head.sgd import Batch, Watch, descend, glorot_uniform, new_head
from beam_flowers.head.softmax import Head, Sample, TrainingStep


@dataclass(frozen=True)
class ImageClassifierOptions:
    """Settings of make_image_classifier with its defaults, and some of ours.

    The vectors are not scaled. An epoch takes every training image once; its last batch may be
    short (make_image_classifier left that out, and failed if it was the only one).

    Attributes:
        train_epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of gradient descent.
        momentum: 0..1.
        dropout: `dropout_rate`, share of the last layer's inputs set to 0 in training.
        l1: `l1_regularizer`, weight of sum|W|, by proximal steps.
        l2: `l2_regularizer`, weight of sum W^2, as in Keras: twice as strong as the same number
            in the other recipes, whose penalty is half of it.
        label_smoothing: share of the target that is spread over all labels, 0..1.
        hidden: width of a hidden ReLU layer, or None. Dropout then acts behind it.
        early_stopping: number of epochs without a lower validation cross entropy after which
            training ends with the best head; None to train all epochs.
        class_weights: `balanced` weighs all classes equally, None all images.
    """

    train_epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 0.005
    momentum: float = 0.9
    dropout: float = 0.2
    l1: float = 0.0
    l2: float = 1e-4
    label_smoothing: float = 0.1
    hidden: int | None = None
    early_stopping: int | None = None
    class_weights: str | None = None

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def l2_gradient(self) -> float:
        """Factor of the weights in the gradient, see `DescentOptions`."""
        return 2 * self.l2


@one_blas_thread
def train_image_classifier(
    training: Sample,
    classes: int,
    options: ImageClassifierOptions | None = None,
    *,
    seed: int = 0,
    validation: Sample | None = None,
    report: Callable[[TrainingStep], None] | None = None,
    start: Head | None = None,
) -> Head:
    """Trains a head as make_image_classifier did (tensorflow/hub, tools), on stored vectors.

    Args:
        training: rows to train on.
        classes: number of classes C.
        options: the recipe's settings.
        seed: of the weights, the order of the images and the dropout.
        validation: rows to report on.
        report: called after each epoch with measures on all rows of both samples.
        start: head to begin from instead of drawn weights.
    """
    options = options or ImageClassifierOptions()
    first, order, drops = np.random.default_rng(seed).spawn(3)
    targets = targets_for(
        training,
        classes,
        smoothing=options.label_smoothing,
        class_weights=options.class_weights,
    )
    features = training.vectors.shape[1]
    head = start or new_head(glorot_uniform, features, targets, options.hidden, first)
    epoch_steps = math.ceil(len(training) / options.batch_size)

    def measure(step: int, head: Head, batch: Batch) -> TrainingStep:
        now = evaluate(head, training)
        return make_step(step, now.accuracy, now.cross_entropy, head, validation)

    def is_due(step: int) -> bool:
        return (step + 1) % epoch_steps == 0

    watch = Watch(is_due, measure, report, validation, options.early_stopping)
    batches = epochs(training, options.batch_size, options.train_epochs, order)
    return descend(head, batches, options, targets, watch, drops)


def epochs(sample: Sample, size: int, count: int, random: np.random.Generator) -> Iterator[Batch]:
    """Yields batches of all rows of the sample, `count` times, each time in another order."""
    for _ in range(count):
        order = random.permutation(len(sample))
        for start in range(0, len(order), size):
            places = order[start : start + size]
            yield sample.take(places), sample.class_ids[places]
