"""A map of vectors: the plane in which they differ most."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.softmax import Doubles, Floats, Indices


def sample_rows(count: int, most: int, seed: int = 0) -> Indices:
    """At most `most` of `count` rows by chance, ascending; the same ones for a seed."""
    if count <= most:
        return np.arange(count, dtype=np.intp)
    chosen = np.random.default_rng(seed).choice(count, most, replace=False)
    return np.sort(chosen).astype(np.intp)


@one_blas_thread
def principal_plane(vectors: Floats) -> tuple[Doubles, float]:
    """Principal component analysis to two dimensions.

    Args:
        vectors: float [n, D], finite.

    Returns:
        float64 [n, 2], zeros where there is nothing to tell apart, and the share of the
        variance that is in them, 0..1.
    """
    deviations = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    # The smaller of the two squares has the same largest eigenvalues.
    tall = len(vectors) >= vectors.shape[1]
    square = deviations.T @ deviations if tall else deviations @ deviations.T
    total, size = float(np.trace(square)), len(square)
    if not total or size < 2:
        return np.zeros((len(vectors), 2)), 1.0
    values, axes = eigh(square, subset_by_index=[size - 2, size - 1])
    plane = deviations @ axes if tall else axes * np.sqrt(values.clip(min=0))
    signs = np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])
    return (plane * signs)[:, ::-1], float(values.clip(min=0).sum() / total)
