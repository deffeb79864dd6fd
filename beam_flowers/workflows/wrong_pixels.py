"""Notices a network that gets wrong pixels, by its vectors alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import PartLostError
from beam_flowers.store.commits import committed, latest
from beam_flowers.store.parts import Place, read_part
from beam_flowers.store.schema import vectors_of

DRAWN = 100
"""Images whose vectors are looked at."""
_MOST_PARTS = 16

_LIMITS = ((47.0, 0.2), (10.0, 0.1))
"""Pairs: below this effective rank, from this spread on, pixels are taken for wrong.

Measured by `benchmarks/wrong_pixels.py` with EfficientNet-Lite0 (`benchmarks/WRONG_PIXELS.md`): by
right pixels the rank was 52 to 59 and the spread over 0.5, of bursts of one subject 21 to 31 and
under 0.13. By 0..255 the rank was 38 to 44, by values near 0 it was 2 to 3.
"""
_LEAST_LENGTH = 256


class Direction(NamedTuple):
    """Describes how vectors differ, whatever their lengths.

    Attributes:
        rank: effective rank of the centred unit vectors, at least 1.
        spread: mean square of their lengths after centring, 0..1.
    """

    rank: float
    spread: float


def directions(vectors: npt.NDArray[np.float32]) -> Direction:
    """Computes effective rank and spread of vectors, float32 [N, D].

    The rank is the exponential of the entropy of the shares that each principal direction has of
    the variance, after Roy & Vetterli 2007, "The effective rank", who take singular values.
    """
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    units = wide / np.where(lengths > 0, lengths, 1)
    variances = np.linalg.svd(units - units.mean(axis=0), compute_uv=False) ** 2
    total = variances.sum()
    shares = variances[variances > 0] / total if total > 0 else np.ones(1)
    return Direction(float(np.exp(-(shares * np.log(shares)).sum())), float(total / len(wide)))


def is_wrong(found: Direction) -> bool:
    """Tells if vectors of `DRAWN` images look as if the network had got wrong pixels."""
    return any(found.rank < rank and found.spread >= spread for rank, spread in _LIMITS)


def drawn_vectors(place: Place) -> npt.NDArray[np.float32]:
    """Reads the vectors of up to a hundred images, drawn by content: float32 [N, D].

    Of the first parts by name, which is a hash, they are those with the smallest digests: the same
    store gives the same images, whatever their names and order.
    """
    parts = sorted(part.name for part in committed(latest(place.root), place).rows)
    found: dict[str, npt.NDArray[np.float32]] = {}
    for name in parts[:_MOST_PARTS]:
        table = read_part(place, name, ["sha256", "vector"])
        digests = table["sha256"].to_pylist()
        smallest = np.argsort(digests)[:DRAWN]
        vectors = vectors_of(table.take(smallest))
        found |= {digests[row]: vector for row, vector in zip(smallest, vectors, strict=True)}
        found = {digest: found[digest] for digest in sorted(found)[:DRAWN]}
    return np.stack(list(found.values())) if found else np.zeros((0, 0), np.float32)


def doubt(place: Place) -> str | None:
    """Returns a line for the user if a backbone's rows look as if it got wrong pixels.

    Nothing is said of fewer than a hundred images, of short vectors, and of images that are alike.
    """
    try:
        vectors = drawn_vectors(place)
    except PartLostError:
        # Another run has replaced a part meanwhile.
        return None
    if len(vectors) < DRAWN or vectors.shape[1] < _LEAST_LENGTH:
        return None
    found = directions(vectors)
    if not is_wrong(found):
        return None
    return (
        f"the vectors of {DRAWN} images, drawn by content, differ in few directions (effective "
        f"rank {found.rank:.0f}, under {_LIMITS[0][0]:.0f}): the network may get wrong pixels, or "
        "these images are much alike. See its --pixel-range and --backbone-config, and "
        "docs/how-to/own-network.md"
    )
