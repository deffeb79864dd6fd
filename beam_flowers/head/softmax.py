"""Holds the head, which turns vectors into scores, and the rows that it is trained on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.store.vectors import Vectors

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

CHUNK_ROWS = 1024
"""Rows in one step of a sum. Fixed: sums over other chunks differ in their last bits."""

_BLOCK_ROWS = 512
"""Rows in double precision at once, few enough for the processor's cache."""

_AHEAD = 2
"""Chunks that are read from a file ahead of the one in use."""


@dataclass(frozen=True)
class Head:
    """A linear layer over vectors or over a hidden layer, with the rule that makes scores.

    Attributes:
        weights: float32 [D, C]; [H, C] with a hidden layer.
        bias: float32 [C].
        hidden_weights: float32 [D, H] of a hidden layer with ReLU, or None.
        hidden_bias: float32 [H], or None.
        temperature: > 0, divisor of the logits before they become scores.
        multi_label: True for a sigmoid for each label, False for one softmax over all.
    """

    weights: Floats
    bias: Floats
    hidden_weights: Floats | None = None
    hidden_bias: Floats | None = None
    temperature: float = 1.0
    multi_label: bool = False

    @property
    def parameters(self) -> dict[str, Floats]:
        """Arrays of the head by name, from the first layer to the last."""
        names = ("hidden_weights", "hidden_bias", "weights", "bias")
        arrays = ((name, getattr(self, name)) for name in names)
        return {name: array for name, array in arrays if array is not None}

    @property
    def first_weights(self) -> Floats:
        """Weights of the first layer, float32 [D, H or C]."""
        return self.weights if self.hidden_weights is None else self.hidden_weights

    def logits(self, vectors: Floats) -> Doubles:
        """Returns the logits of float [N, D] vectors, before the temperature: float64 [N, C].

        Double precision makes a float32 score independent of the batch that an image comes in.
        """
        layers = [(self.weights.astype(np.float64), self.bias)]
        if self.hidden_weights is not None and self.hidden_bias is not None:
            layers.insert(0, (self.hidden_weights.astype(np.float64), self.hidden_bias))
        blocks = range(0, len(vectors), _BLOCK_ROWS) or [0]
        return np.concatenate([_through(layers, vectors[i : i + _BLOCK_ROWS]) for i in blocks])

    def scores(self, vectors: Floats) -> Floats:
        """Returns the scores of float [N, D] vectors: float32 [N, C].

        Each row sums to 1, unless the head is multi-label: then the scores are independent.
        """
        logits = self.logits(vectors) / self.temperature
        return (sigmoid(logits) if self.multi_label else softmax(logits)).astype(np.float32)

    def scaled(self, factor: Floats) -> Head:
        """Returns a head that gives vectors v the logits of v * factor, float32 [D]."""
        name = "weights" if self.hidden_weights is None else "hidden_weights"
        scaled: dict[str, Any] = {name: self.first_weights * factor[:, None]}
        return replace(self, **scaled)


def _through(layers: Sequence[tuple[Doubles, Floats]], vectors: Floats) -> Doubles:
    """Returns the outputs of layers with ReLUs between them."""
    (weights, bias), *others = layers
    outputs: Doubles = vectors.astype(np.float64) @ weights + bias
    for weights, bias in others:
        outputs = np.maximum(outputs, 0, out=outputs) @ weights + bias
    return outputs


def sigmoid(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns 1 / (1 + exp(-x)) of each logit, in their precision; large ones don't overflow."""
    # SciPy takes a third of a second to import, and only multi-label heads need it.
    from scipy.special import expit

    return expit(logits)


def softmax(logits: Doubles) -> Doubles:
    """Returns the softmax along the last axis; large logits don't overflow."""
    return np.exp(log_softmax(logits))


def log_softmax(logits: Doubles) -> Doubles:
    """Returns the logarithm of the softmax along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Doubles = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


@dataclass(frozen=True)
class Sample:
    """Labelled rows of a matrix of vectors; the matrix is never copied as a whole.

    Attributes:
        vectors: float32 [N, D]; those in a file are read ahead.
        class_ids: intp [n], the class of each row of the sample.
        rows: intp [n], the sample's rows in `vectors`; None if they are all of them.
        membership: float32 [K, C] of 0 and 1, the labels that each class id stands for where
            images have several. None where the class id is the label.
    """

    vectors: Vectors
    class_ids: Indices
    rows: Indices | None = None
    membership: Floats | None = None

    def __len__(self) -> int:
        return len(self.class_ids)

    def take(self, places: Indices | slice) -> Floats:
        """Returns the vectors at `places` of the sample, float32 [k, D]; a slice may be a view."""
        rows = places if self.rows is None else self.rows[places]
        return np.asarray(self.vectors[rows], np.float32)

    def chunks(self) -> Iterator[tuple[Floats, Indices]]:
        """Yields vectors, which must not be changed, and class ids, `CHUNK_ROWS` at a time."""
        chunks = (slice(i, i + CHUNK_ROWS) for i in range(0, len(self), CHUNK_ROWS))
        if isinstance(self.vectors, np.ndarray):
            yield from ((self.take(places), self.class_ids[places]) for places in chunks)
            return
        with ThreadPoolExecutor(1) as reader:
            waiting: deque[tuple[slice, Future[Floats]]] = deque()
            for places in chunks:
                waiting.append((places, reader.submit(self.take, places)))
                if len(waiting) > _AHEAD:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)

    def _next(self, waiting: deque[tuple[slice, Future[Floats]]]) -> tuple[Floats, Indices]:
        places, vectors = waiting.popleft()
        return vectors.result(), self.class_ids[places]

    def is_right(self, labels: Indices, class_ids: Indices) -> npt.NDArray[np.bool_]:
        """Tells for rows of these class ids if a predicted label, intp [n], is right: bool [n]."""
        if self.membership is None:
            return labels == class_ids
        return self.membership[class_ids, labels] > 0

    def hits(self, logits: npt.NDArray[Any], class_ids: Indices) -> int:
        """Counts the rows of [n, C] logits whose highest logit is at a label of the row."""
        return int(self.is_right(logits.argmax(axis=1), class_ids).sum())


class TrainingStep(NamedTuple):
    """One line of the training log.

    Attributes:
        step: number of the step, or of the optimiser's iteration.
        train_accuracy: share of right labels on the rows just trained on, 0..1.
        validation_accuracy: the same on the validation rows; None without such rows.
        cross_entropy: mean over the rows just trained on, in nats, without penalties.
        validation_cross_entropy: the same on the validation rows; None without such rows.
    """

    step: int
    train_accuracy: float
    validation_accuracy: float | None
    cross_entropy: float
    validation_cross_entropy: float | None = None
