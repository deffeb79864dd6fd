"""Mean cross entropy over scaled vectors, with its gradient, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from beam_flowers.head.softmax import CHUNK_ROWS, Doubles, Floats, Head, Indices, Sample, sigmoid


class Scaling(NamedTuple):
    """Centres each feature and brings all to one common scale, `(x - mean) * inverse`.

    One scale for all, not one each: a feature that varies much says more than one that hardly
    does, and keeping that gave 90.3 against 89.2 % on 1,500 flowers (15 folds of
    cross-validation, EfficientNet-Lite0), and 84.7 against 83.2 % when trained on 150.

    Attributes:
        mean: float32 [D].
        inverse: 1 / root mean square of all deviations; 0 if all vectors are alike.
    """

    mean: Floats
    inverse: np.float32

    def fold(self, weights: Doubles, bias: Doubles) -> Head:
        """The head over plain vectors that equals this one over scaled vectors."""
        plain = weights * float(self.inverse)
        shifted = bias - self.mean.astype(np.float64) @ plain
        return Head(plain.astype(np.float32), shifted.astype(np.float32))

    def unfold(self, head: Head) -> tuple[Doubles, Doubles]:
        """Weights and bias over scaled vectors that `fold` turns into `head`."""
        plain = head.weights.astype(np.float64)
        shifted = head.bias + self.mean.astype(np.float64) @ plain
        return plain / float(self.inverse) if self.inverse else 0 * plain, shifted


class Evaluation(NamedTuple):
    """The objective at one point, without penalties.

    Attributes:
        cross_entropy: mean, in nats.
        accuracy: share of right answers.
        weights_gradient: float64 [D, C].
        bias_gradient: float64 [C].
    """

    cross_entropy: float
    accuracy: float
    weights_gradient: Doubles
    bias_gradient: Doubles


def common_scaling(sample: Sample) -> Scaling:
    """Means and the common deviation, in two passes of double sums."""
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
    """For one chunk; to ask the system for it each time would take as long as to fill it."""
    return np.empty((min(len(sample), CHUNK_ROWS), sample.vectors.shape[1]), np.float32)


def evaluate_softmax(
    sample: Sample, scaling: Scaling, weights: Floats, bias: Floats, targets: Targets | None = None
) -> Evaluation:
    """Cross entropy, accuracy and gradient over the whole sample.

    The products are single precision, the sums over chunks double, in a fixed order: the same
    on every run of one machine.

    Args:
        sample: rows that count alike, unless `targets` weighs them.
        scaling: applied to the vectors first.
        weights: float32 [D, C], over scaled vectors.
        bias: float32 [C].
        targets: what the logits should be near; by default the rows' classes.
    """
    targets = targets or Targets(len(bias), membership=sample.membership)
    loss, right = 0.0, 0
    weights_gradient, bias_gradient = np.zeros(weights.shape), np.zeros(bias.shape)
    # The scale goes into the weights and the gradient, which are smaller than the vectors. The
    # mean does not: taken off the products it would cost digits.
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
    """What the scores of a row should be, by its class id.

    Attributes:
        classes: number of labels C.
        smoothing: share s of label smoothing, 0..1: a softmax aims at 1 - s + s/C and s/C, a
            sigmoid at 1 - s/2 and s/2 (as Keras' two losses do).
        class_weights: float32 [K], how much a row of each class id counts; None for alike.
        membership: see `Sample.membership`.
    """

    classes: int
    smoothing: float = 0.0
    class_weights: Floats | None = None
    membership: Floats | None = None

    def of(self, class_ids: Indices) -> Floats:
        """float32 [n, C]."""
        smoothing = np.float32(self.smoothing)
        if self.membership is not None:
            return self.membership[class_ids] * (1 - smoothing) + smoothing / 2
        targets = np.full((len(class_ids), self.classes), smoothing / self.classes, np.float32)
        targets[np.arange(len(class_ids)), class_ids] += 1 - smoothing
        return targets

    def errors(self, logits: Floats, class_ids: Indices) -> tuple[Floats, Floats]:
        """Gradient of the cross entropy by the logits, float32 [n, C], and losses, float32 [n].

        With several labels a picture, the loss is the sum over its labels' sigmoids.
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
        errors = scores - targets
        if self.class_weights is not None:
            weights = self.class_weights[class_ids]
            return errors * weights[:, None], losses * weights
        return errors, losses


def targets_for(
    sample: Sample, classes: int, smoothing: float = 0.0, class_weights: str | None = None
) -> Targets:
    """The targets of a sample's rows.

    Args:
        sample: the training rows.
        classes: number of labels C.
        smoothing: see `Targets`.
        class_weights: `balanced` lets each class count alike: a row of a class with n_c of n
            rows weighs n / (K n_c), as scikit-learn's `class_weight="balanced"`.
    """
    weights = None
    if class_weights is not None:
        counts = np.bincount(sample.class_ids)
        present = np.count_nonzero(counts)
        weights = (len(sample) / (present * np.maximum(counts, 1))).astype(np.float32)
    return Targets(classes, smoothing, weights, sample.membership)
