"""Mean softmax cross entropy over standardised vectors, with its gradient, chunk by chunk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beam_flowers.head.softmax import Doubles, Floats, Head, Indices, Sample

# A spread this small against the widest feature's is rounding noise or a feature that hardly
# ever fires; dividing by it would blow up the first picture that differs.
_CONSTANT = 1e-4


class Scaling(NamedTuple):
    """Per-feature standardisation, `(x - mean) * inverse`.

    Attributes:
        mean: float32 [D].
        inverse: float32 [D], 1 / standard deviation; 0 for constant features.
    """

    mean: Floats
    inverse: Floats

    def apply(self, vectors: Floats) -> Floats:
        """Standardises float32 [n, D] vectors in place."""
        vectors -= self.mean
        vectors *= self.inverse
        return vectors

    def fold(self, weights: Doubles, bias: Doubles) -> Head:
        """The head over plain vectors that equals this one over standardised vectors."""
        plain = weights * self.inverse.astype(np.float64)[:, None]
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


def standardisation(sample: Sample) -> Scaling:
    """Mean and inverse deviation of each feature, in two passes of double sums."""
    total = np.zeros(sample.vectors.shape[1])
    for vectors, _ in sample.chunks():
        total += vectors.sum(axis=0, dtype=np.float64)
    mean = (total / len(sample)).astype(np.float32)
    squares = np.zeros_like(total)
    for vectors, _ in sample.chunks():
        vectors -= mean
        squares += np.einsum("nd,nd->d", vectors, vectors, dtype=np.float64)
    deviation = np.sqrt(squares / len(sample))
    varies = deviation > _CONSTANT * deviation.max()
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    return Scaling(mean, inverse.astype(np.float32))


def evaluate_softmax(sample: Sample, scaling: Scaling, weights: Floats, bias: Floats) -> Evaluation:
    """Cross entropy, accuracy and gradient over the whole sample.

    The products are single precision, the sums over chunks double, in a fixed order: the same
    on every run of one machine.

    Args:
        sample: rows that count alike.
        scaling: applied to the vectors first.
        weights: float32 [D, C], over standardised vectors.
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
