"""The head over the vectors, and the rows it is trained and measured on."""

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
"""Rows that are worked on at once. Fixed, as sums over other chunks differ in the last bits."""

_BLOCK_ROWS = 512
"""Rows whose numbers are in double precision at once, so that they stay in the cache."""

_AHEAD = 2
"""Chunks that are read from a file while another is worked on."""


@dataclass(frozen=True)
class Head:
    """A linear layer over the vectors, or over a hidden layer, and how logits become scores.

    Attributes:
        weights: float32 [D, C]; [H, C] with a hidden layer.
        bias: float32 [C].
        hidden_weights: float32 [D, H] of a hidden layer with ReLU, or None.
        hidden_bias: float32 [H], or None.
        temperature: > 0; the logits are divided by it before they become scores.
        multi_label: a sigmoid for each label instead of one softmax over all.
    """

    weights: Floats
    bias: Floats
    hidden_weights: Floats | None = None
    hidden_bias: Floats | None = None
    temperature: float = 1.0
    multi_label: bool = False

    @property
    def parameters(self) -> dict[str, Floats]:
        """The arrays that the head has, by name, from the first layer to the last."""
        names = ("hidden_weights", "hidden_bias", "weights", "bias")
        arrays = ((name, getattr(self, name)) for name in names)
        return {name: array for name, array in arrays if array is not None}

    @property
    def first_weights(self) -> Floats:
        """float32 [D, H or C], the weights that the vectors meet."""
        return self.weights if self.hidden_weights is None else self.hidden_weights

    def logits(self, vectors: Floats) -> Doubles:
        """Logits of float [N, D] vectors, before the temperature: float64 [N, C].

        Double precision, so that a score in float32 is the same in whatever batch a picture
        comes.
        """
        layers = [(self.weights.astype(np.float64), self.bias)]
        if self.hidden_weights is not None and self.hidden_bias is not None:
            layers.insert(0, (self.hidden_weights.astype(np.float64), self.hidden_bias))
        blocks = range(0, len(vectors), _BLOCK_ROWS) or [0]
        return np.concatenate([_through(layers, vectors[i : i + _BLOCK_ROWS]) for i in blocks])

    def scores(self, vectors: Floats) -> Floats:
        """Scores of float [N, D] vectors: float32 [N, C].

        Each row sums to 1, unless the head is multi-label: then each score stands for itself.
        """
        logits = self.logits(vectors) / self.temperature
        return (sigmoid(logits) if self.multi_label else softmax(logits)).astype(np.float32)

    def scaled(self, factor: Floats) -> Head:
        """The head over vectors v that equals this one over v * factor, float32 [D]."""
        name = "weights" if self.hidden_weights is None else "hidden_weights"
        scaled: dict[str, Any] = {name: self.first_weights * factor[:, None]}
        return replace(self, **scaled)


def _through(layers: Sequence[tuple[Doubles, Floats]], vectors: Floats) -> Doubles:
    """What layers with ReLUs between them make of vectors."""
    (weights, bias), *others = layers
    outputs: Doubles = vectors.astype(np.float64) @ weights + bias
    for weights, bias in others:
        outputs = np.maximum(outputs, 0, out=outputs) @ weights + bias
    return outputs


def sigmoid(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """1 / (1 + exp(-x)) of each logit, in their precision; large ones don't overflow."""
    # A third of a second, which one label a picture, and a worker that only embeds, need not pay.
    from scipy.special import expit

    return expit(logits)


def softmax(logits: Doubles) -> Doubles:
    """Softmax along the last axis; large logits don't overflow."""
    return np.exp(log_softmax(logits))


def log_softmax(logits: Doubles) -> Doubles:
    """Logarithm of the softmax along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Doubles = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


@dataclass(frozen=True)
class Sample:
    """Labelled rows of a matrix of vectors; the matrix is never copied as a whole.

    Attributes:
        vectors: float32 [N, D]; where they lie in a file, they are read ahead.
        class_ids: intp [n], the class of each row of the sample.
        rows: intp [n], the sample's rows in `vectors`; None if they are the same.
        membership: float32 [K, C] of 0 and 1 where a picture has several labels: which of them
            the class id stands for. None where the class id is the label.
    """

    vectors: Vectors
    class_ids: Indices
    rows: Indices | None = None
    membership: Floats | None = None

    def __len__(self) -> int:
        return len(self.class_ids)

    def take(self, places: Indices | slice) -> Floats:
        """The vectors at `places` of the sample, float32 [k, D]; of a slice maybe not a copy."""
        rows = places if self.rows is None else self.rows[places]
        return np.asarray(self.vectors[rows], np.float32)

    def chunks(self) -> Iterator[tuple[Floats, Indices]]:
        """The vectors, not to be changed, with their class ids, `CHUNK_ROWS` at a time."""
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

    def hits(self, logits: npt.NDArray[Any], class_ids: Indices) -> int:
        """How many rows of [n, C] logits have their highest at a label of the row."""
        best = logits.argmax(axis=1)
        right = best == class_ids if self.membership is None else self.membership[class_ids, best]
        return int(right.sum())


class Step(NamedTuple):
    """One line of the training log.

    Attributes:
        step: number of the step, or of the iteration of an optimiser that has no steps.
        train_accuracy: share of right answers on the rows just trained on, 0..1.
        validation_accuracy: likewise on validation rows; None if there are none.
        cross_entropy: mean over the rows just trained on, in nats, without penalties.
        validation_cross_entropy: likewise on the validation rows; None if there are none.
    """

    step: int
    train_accuracy: float
    validation_accuracy: float | None
    cross_entropy: float
    validation_cross_entropy: float | None = None
