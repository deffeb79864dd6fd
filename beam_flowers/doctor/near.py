"""Pictures that look alike, by their perceptual hashes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

MOST_BITS = 3
"""By how many of 64 bits the hashes of two near-duplicates differ at most. A picture that was
saved again or scaled changes 0 to 2 of them; two photographs of one thing, some 10 or more."""

_BANDS = MOST_BITS + 1
_BLOCK = 2_000


def groups_alike(looks: Sequence[int]) -> list[list[int]]:
    """Indices of pictures that look alike, groups of two or more.

    Hashes that differ in at most `MOST_BITS` bits agree in at least one of `MOST_BITS + 1`
    bands, so only those that share a band are compared.

    Args:
        looks: 64-bit hashes.
    """
    hashes, places = np.unique(np.array(looks, np.uint64), return_inverse=True)
    pairs = [_pairs_of_band(hashes, band) for band in range(_BANDS)]
    left, right = np.concatenate(pairs, axis=1) if len(hashes) else np.zeros((2, 0), np.intp)
    links = coo_array((np.ones(len(left), bool), (left, right)), shape=(len(hashes),) * 2)
    _, component = connected_components(links, directed=False)
    order = np.argsort(component[places], kind="stable")
    cuts = np.flatnonzero(np.diff(component[places][order])) + 1
    return [group.tolist() for group in np.split(order, cuts) if len(group) > 1]


def _pairs_of_band(hashes: npt.NDArray[np.uint64], band: int) -> npt.NDArray[np.intp]:
    """int [2, P]: indices of hashes that share the band and differ in few bits."""
    width = 64 // _BANDS
    keys = (hashes >> np.uint64(band * width)) & np.uint64(2**width - 1)
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    found = [np.zeros((2, 0), np.intp)]
    for bucket in np.split(order, cuts):
        for start in range(0, len(bucket) if len(bucket) > 1 else 0, _BLOCK):
            block = bucket[start : start + _BLOCK]
            apart = _bits(hashes[block][:, None] ^ hashes[bucket][None, :])
            rows, columns = np.nonzero(apart <= MOST_BITS)
            found.append(np.stack([block[rows], bucket[columns]]))
    return np.concatenate(found, axis=1)


def _bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Number of ones in each value; NumPy has it of its own from version 2."""
    octets = values[..., None].view(np.uint8)
    return _ONES[octets].sum(axis=-1, dtype=np.intp)


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
