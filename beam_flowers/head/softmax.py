"""The softmax layer over the vectors, and the rows it is trained and measured on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

CHUNK_ROWS = 1024
"""Rows that are worked on at once. Fixed, as sums over other chunks differ in the last bits."""


@dataclass(frozen=True)
class Head:
    """A linear layer whose logits the softmax turns into scores.

    Attributes:
        weights: float32 [D, C].
        bias: float32 [C].
    """

    weights: Floats
    bias: Floats

    def logits(self, vectors: Floats) -> Doubles:
        """Logits of float [N, D] vectors: float64 [N, C].

        Double precision, so that a score in float32 is the same in whatever batch a picture
        comes.
        """
        logits: Doubles = vectors.astype(np.float64) @ self.weights.astype(np.float64) + self.bias
        return logits

    def scores(self, vectors: Floats) -> Floats:
        """Softmax scores of float [N, D] vectors: float32 [N, C]; each row sums to 1."""
        return softmax(self.logits(vectors)).astype(np.float32)


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
        vectors: float32 [N, D], may be a `np.memmap`.
        class_ids: intp [n], the class of each row of the sample.
        rows: intp [n], the sample's rows in `vectors`; None if they are the same.
    """

    vectors: Floats
    class_ids: Indices
    rows: Indices | None = None

    def __len__(self) -> int:
        return len(self.class_ids)

    def take(self, places: Indices) -> Floats:
        """A float32 [k, D] copy of the vectors at `places` of the sample."""
        rows = places if self.rows is None else self.rows[places]
        return self.vectors[rows].astype(np.float32, copy=False)

    def chunks(self) -> Iterator[tuple[Floats, Indices]]:
        """Copies of the vectors with their class ids, `CHUNK_ROWS` at a time."""
        for start in range(0, len(self), CHUNK_ROWS):
            places = np.arange(start, min(start + CHUNK_ROWS, len(self)))
            yield self.take(places), self.class_ids[places]


class Step(NamedTuple):
    """One line of the training log.

    Attributes:
        step: number of the step, or of the iteration of an optimiser that has no steps.
        train_accuracy: share of right answers on the rows just trained on, 0..1.
        validation_accuracy: likewise on validation rows; None if there are none.
        cross_entropy: mean over the rows just trained on, in nats, without penalties.
    """

    step: int
    train_accuracy: float
    validation_accuracy: float | None
    cross_entropy: float
