"""Groups images that look alike, by their perceptual hashes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MOST_BITS = 3
"""Most bits of 64 in which the hashes of two near-duplicates differ. Saving or scaling an image
again changes 0 to 2 of them; two photographs of one thing differ in some 10 or more."""

_BANDS = MOST_BITS + 1
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
"""Number of ones in each byte."""
_BLOCK = 2_000
"""Hashes that are compared with their whole band at once, which bounds the memory."""


def groups_alike(looks: Sequence[int]) -> list[list[int]]:
    """Returns groups of two or more indices of images that look alike.

    Hashes that differ in at most `MOST_BITS` bits agree in at least one of `MOST_BITS + 1`
    bands. Only those that share a band are compared.

    Args:
        looks: 64-bit hashes.
    """
    hashes, number = np.unique(np.array(looks, np.uint64), return_inverse=True)
    pairs = [_pairs_of_band(hashes, band) for band in range(_BANDS)]
    left, right = np.concatenate(pairs, axis=1) if len(hashes) else np.zeros((2, 0), np.intp)
    links = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(hashes),) * 2)
    _, component = connected_components(links, directed=False)
    order = np.argsort(component[number], kind="stable")
    cuts = np.flatnonzero(np.diff(component[number][order])) + 1
    return [group.tolist() for group in np.split(order, cuts) if len(group) > 1]


def _pairs_of_band(hashes: npt.NDArray[np.uint64], band: int) -> npt.NDArray[np.intp]:
    """Returns index pairs, int [2, P], of hashes that share the band and differ in few bits."""
    width = 64 // _BANDS
    keys = (hashes >> np.uint64(band * width)) & np.uint64(2**width - 1)
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    pairs = [np.zeros((2, 0), np.intp)]
    for bucket in np.split(order, cuts):
        for start in range(0, len(bucket) if len(bucket) > 1 else 0, _BLOCK):
            block = bucket[start : start + _BLOCK]
            different = hashes[block][:, None] ^ hashes[bucket][None, :]
            # `np.bitwise_count` needs NumPy 2; a table of all bytes works with older ones too.
            bits = _ONES[different[..., None].view(np.uint8)].sum(axis=-1, dtype=np.intp)
            rows, columns = np.nonzero(bits <= MOST_BITS)
            pairs.append(np.stack([block[rows], bucket[columns]]))
    return np.concatenate(pairs, axis=1)
