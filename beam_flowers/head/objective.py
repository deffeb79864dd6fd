"""Computes the mean cross entropy over scaled vectors and its gradient, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from beam_flowers.head.softmax import CHUNK_ROWS, Doubles, Floats, Head, Indices, Sample, sigmoid


class Scaling(NamedTuple):
    """Centres each feature and scales all by one factor, `(x - mean) * inverse`.

    One factor for all features keeps how much each of them varies. That gave an accuracy of 90.3
    against 89.2 % with a factor each on 1,500 flowers (15 folds of cross-validation,
    EfficientNet-Lite0), and 84.7 against 83.2 % when trained on 150.

    Attributes:
        mean: float32 [D].
        inverse: 1 / root mean square of all deviations; 0 if all vectors are alike.
    """

    mean: Floats
    inverse: np.float32

    def fold(self, weights: Doubles, bias: Doubles) -> Head:
        """Returns the head over plain vectors that equals this one over scaled vectors."""
        plain = weights * float(self.inverse)
        shifted = bias - self.mean.astype(np.float64) @ plain
        return Head(plain.astype(np.float32), shifted.astype(np.float32))

    def unfold(self, head: Head) -> tuple[Doubles, Doubles]:
        """Returns the weights and bias over scaled vectors that `fold` turns into `head`."""
        plain = head.weights.astype(np.float64)
        shifted = head.bias + self.mean.astype(np.float64) @ plain
        return plain / float(self.inverse) if self.inverse else 0 * plain, shifted


class Evaluation(NamedTuple):
    """Value and gradient of the objective at one point, without penalties.

    Attributes:
        cross_entropy: mean, in nats.
        accuracy: share of right labels, 0..1.
        weights_gradient: float64 [D, C].
        bias_gradient: float64 [C].
    """

    cross_entropy: float
    accuracy: float
    weights_gradient: Doubles
    bias_gradient: Doubles


def common_scaling(sample: Sample) -> Scaling:
    """Computes the feature means and the common deviation, in two passes of double sums."""
    total = np.zeros(sample.vectors.shape[1])
    for vectors, _ in sample.chunks():
        total += vectors.sum(axis=0, dtype=np.float64)
    mean = (total / len(sample)).astype(np.float32)
    squares, room = 0.0, _room(sample)
    for vectors, _ in sample.chunks():
        centred = np.subtract(vectors, mean, out=room[: len(vectors)])
        squares += float(np.square(centred, out=centred).sum(dtype=np.float64))
    deviation = np.sqrt(squares / (len(sample) * len(mean)))
    return Scaling(mean, np.float32(1 / deviation if deviation else 0))


def _room(sample: Sample) -> Floats:
    """Allocates memory for one chunk: once, as allocating it takes as long as filling it."""
    return np.empty((min(len(sample), CHUNK_ROWS), sample.vectors.shape[1]), np.float32)


def evaluate_softmax(
    sample: Sample, scaling: Scaling, weights: Floats, bias: Floats, targets: Targets | None = None
) -> Evaluation:
    """Computes cross entropy, accuracy and gradient over the whole sample.

    Products are in single precision, sums over chunks in double, in a fixed order: every run on
    one machine gives the same bits.

    Args:
        sample: the rows; they count equally unless `targets` weighs them.
        scaling: applied to the vectors first.
        weights: float32 [D, C], over scaled vectors.
        bias: float32 [C].
        targets: scores to aim at; by default the rows' classes.
    """
    targets = targets or Targets(len(bias), membership=sample.membership)
    loss, right = 0.0, 0
    weights_gradient, bias_gradient = np.zeros(weights.shape), np.zeros(bias.shape)
    # The scale goes into weights and gradient, which are smaller than the vectors. The mean stays
    # with the vectors: subtracted from the products it would cost digits.
    room, scaled = _room(sample), weights * scaling.inverse
    for vectors, class_ids in sample.chunks():
        centred = np.subtract(vectors, scaling.mean, out=room[: len(vectors)])
        logits = centred @ scaled + bias
        right += sample.hits(logits, class_ids)
        errors, losses = targets.errors(logits, class_ids)
        loss += float(losses.sum(dtype=np.float64))
        weights_gradient += centred.T @ errors
        bias_gradient += errors.sum(axis=0, dtype=np.float64)
    n = len(sample)
    weights_gradient *= float(scaling.inverse) / n
    return Evaluation(loss / n, right / n, weights_gradient, bias_gradient / n)


@dataclass(frozen=True)
class Targets:
    """Scores that training aims at, by class id.

    Attributes:
        classes: number of labels C.
        smoothing: share s of label smoothing, 0..1: a softmax aims at 1 - s + s/C and s/C, a
            sigmoid at 1 - s/2 and s/2 (as Keras' two losses do).
        class_weights: float32 [K], weight of a row of each class id; None for equal weights.
        membership: see `Sample.membership`.
    """

    classes: int
    smoothing: float = 0.0
    class_weights: Floats | None = None
    membership: Floats | None = None

    def of(self, class_ids: Indices) -> Floats:
        """Returns the targets of rows with these class ids: float32 [n, C]."""
        smoothing = np.float32(self.smoothing)
        if self.membership is not None:
            return self.membership[class_ids] * (1 - smoothing) + smoothing / 2
        targets = np.full((len(class_ids), self.classes), smoothing / self.classes, np.float32)
        targets[np.arange(len(class_ids)), class_ids] += 1 - smoothing
        return targets

    def errors(self, logits: Floats, class_ids: Indices) -> tuple[Floats, Floats]:
        """Returns gradients of the loss by the logits, float32 [n, C], and losses, float32 [n].

        With several labels an image, the loss is the sum over the sigmoids of all labels.
        """
        targets = self.of(class_ids)
        if self.membership is None:
            logits = logits - logits.max(axis=1, keepdims=True)
            scores = np.exp(logits)
            total = scores.sum(axis=1)
            scores /= total[:, None]
            losses = np.log(total) - (targets * logits).sum(axis=1)
        else:
            scores = sigmoid(logits)
            losses = (np.logaddexp(0, logits) - targets * logits).sum(axis=1)
        if self.class_weights is None:
            return scores - targets, losses
        weights = self.class_weights[class_ids]
        return (scores - targets) * weights[:, None], losses * weights


def targets_for(
    sample: Sample, classes: int, *, smoothing: float = 0.0, class_weights: str | None = None
) -> Targets:
    """Makes the targets of a sample's rows.

    Args:
        sample: the training rows.
        classes: number of labels C.
        smoothing: see `Targets`.
        class_weights: `balanced` weighs all classes equally: a row of a class with n_c of n rows
            weighs n / (K n_c), as scikit-learn's `class_weight="balanced"`. None for equal rows.
    """
    if class_weights is None:
        return Targets(classes, smoothing, None, sample.membership)
    counts = np.bincount(sample.class_ids)
    weights = len(sample) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return Targets(classes, smoothing, weights.astype(np.float32), sample.membership)
