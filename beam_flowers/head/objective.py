"""Mean softmax cross entropy over scaled vectors, with its gradient, chunk by chunk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beam_flowers.head.softmax import Doubles, Floats, Head, Indices, Sample


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

    def apply(self, vectors: Floats) -> Floats:
        """Scales float32 [n, D] vectors in place."""
        vectors -= self.mean
        vectors *= self.inverse
        return vectors

    def fold(self, weights: Doubles, bias: Doubles) -> Head:
        """The head over plain vectors that equals this one over scaled vectors."""
        plain = weights * float(self.inverse)
        shifted = bias - self.mean.astype(np.float64) @ plain
        return Head(plain.astype(np.float32), shifted.astype(np.float32))


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
    squares = 0.0
    for vectors, _ in sample.chunks():
        vectors -= mean
        squares += float(np.square(vectors, out=vectors).sum(dtype=np.float64))
    deviation = np.sqrt(squares / (len(sample) * len(mean)))
    return Scaling(mean, np.float32(1 / deviation if deviation else 0))


def evaluate_softmax(sample: Sample, scaling: Scaling, weights: Floats, bias: Floats) -> Evaluation:
    """Cross entropy, accuracy and gradient over the whole sample.

    The products are single precision, the sums over chunks double, in a fixed order: the same
    on every run of one machine.

    Args:
        sample: rows that count alike.
        scaling: applied to the vectors first.
        weights: float32 [D, C], over scaled vectors.
        bias: float32 [C].
    """
    loss, right = 0.0, 0
    weights_gradient, bias_gradient = np.zeros(weights.shape), np.zeros(bias.shape)
    for vectors, class_ids in sample.chunks():
        scaling.apply(vectors)
        logits = vectors @ weights + bias
        right += int((logits.argmax(axis=1) == class_ids).sum())
        errors, losses = softmax_errors(logits, class_ids)
        loss += float(losses.sum(dtype=np.float64))
        weights_gradient += vectors.T @ errors
        bias_gradient += errors.sum(axis=0, dtype=np.float64)
    n = len(sample)
    return Evaluation(loss / n, right / n, weights_gradient / n, bias_gradient / n)


def softmax_errors(logits: Floats, class_ids: Indices) -> tuple[Floats, Floats]:
    """Gradient of the cross entropy by the logits, float32 [n, C], and the losses, float32 [n].

    The gradient is written over `logits`.
    """
    at = (np.arange(len(class_ids)), class_ids)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[at]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1)
    logits /= total[:, None]
    logits[at] -= 1.0
    return logits, np.log(total) - chosen
