"""Compares the vectors of two precisions of one backbone: what heads make of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beam_flowers.head.examples import Examples, prepare
from beam_flowers.head.groups import fold_codes
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.recipes import train_head
from beam_flowers.head.split import SplitOptions

_PERCENTILE = 1.0


@dataclass(frozen=True)
class Comparison:
    """Holds what held-out images get from heads on one precision's vectors and on another's.

    Each precision has heads of its own, and both the same folds.

    Attributes:
        count: number of images.
        right: share of images with the right label, by seed of the folds: of the first precision
            and of the second.
        changed: share of images whose label differs between the two, by seed.
    """

    count: int
    right: tuple[tuple[float, float], ...]
    changed: tuple[float, ...]

    @property
    def lost(self) -> tuple[float, float]:
        """Mean over the seeds of the accuracy lost, 0..1, and half its 95 % interval.

        The interval is over the images, not the seeds: how much a loss of this size varies
        between collections of as many images, from McNemar's pairs. `changed` bounds the pairs.
        """
        losses = [first - second for first, second in self.right]
        mean = float(np.mean(losses))
        variance = max(float(np.mean(self.changed)) - mean**2, 0.0) / self.count
        return mean, 1.96 * variance**0.5


def compare_heads(
    first: Examples, second: npt.NDArray[np.float32], seeds: Sequence[int], folds: int = 5
) -> Comparison:
    """Trains heads on both precisions' vectors and compares the labels of held-out images.

    Args:
        first: labelled images with the vectors of the first precision.
        second: the vectors of the second precision, float32 [N, D], in the same order.
        seeds: of the folds.
        folds: number of folds.

    Raises:
        TrainingError: the images cannot be trained on, such as with one label only.
    """
    prepared = prepare(first, SplitOptions(validation_percentage=0, testing_percentage=0))
    both = [np.asarray(first.vectors), second]
    right, changed = [], []
    for seed in seeds:
        codes = fold_codes(prepared.groups, prepared.class_ids, folds, seed=seed)
        given = np.empty((2, len(prepared.rows)), np.intp)
        for fold in range(folds):
            held_out = codes == fold
            for row, vectors in zip(given, both, strict=True):
                training = prepared.where(vectors, ~held_out)
                head = train_head(training, len(prepared.labels), LbfgsOptions(), seed=seed)
                row[held_out] = head.logits(vectors[prepared.rows[held_out]]).argmax(axis=1)
        shares = (given == prepared.class_ids).mean(axis=1)
        right.append((float(shares[0]), float(shares[1])))
        changed.append(float((given[0] != given[1]).mean()))
    return Comparison(len(prepared.rows), tuple(right), tuple(changed))


def cosines(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Returns the mean cosine between two vectors of each image, [N, D], and its 1st percentile."""
    products = np.einsum("nd,nd->n", first, second, dtype=np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    found = products / np.maximum(norms, np.finfo(np.float64).tiny)
    return float(found.mean()), float(np.percentile(found, _PERCENTILE))
