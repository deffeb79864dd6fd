"""Pictures on different sides of the split that are all but the same."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.examples import Examples
from beam_flowers.head.softmax import CHUNK_ROWS, Floats, Indices
from beam_flowers.head.split import SPLITS, Codes
from beam_flowers.store.vectors import Vectors

SAME = 0.999
"""Cosine from which two vectors count as of one picture. Of 1,500 different flowers, seen by
EfficientNet-Lite0, the two most alike have 0.965."""

MOST_PAIRS = 50_000_000
"""Pairs that are looked at, some seconds' work; of more held-out rows only a part is checked."""

MOST_FOUND = 1000
"""Pairs after which the search ends."""

_SHOWN = 10


class Pair(NamedTuple):
    """Two rows on different sides.

    Attributes:
        held_out: the row that does not train, or the testing one.
        other: the other row.
        cosine: of their vectors.
    """

    held_out: int
    other: int
    cosine: float


def leakage_warnings(examples: Examples, codes: Codes, rows: Indices) -> list[str]:
    """Lines about near-identical pictures across the sides; none if all is well.

    Args:
        examples: the rows.
        codes: int8 [N], the split of each example.
        rows: intp [n], the rows to look at, in an order that owes nothing to their names.
    """
    held_out = rows[codes[rows] > 0]
    most = MOST_PAIRS // len(rows)
    pairs = near_identical(examples.vectors, codes, rows, held_out[:most])
    if not pairs:
        return []
    checked = f", in {most} of {len(held_out)} looked at" if most < len(held_out) else ""
    lines = [
        f"{len(pairs)} pairs of near-identical pictures lie on different sides of the split"
        f"{checked}: the accuracy flatters; delete one of each, give both one split in a manifest,"
        " or name them NAME_nohash_1.jpg, NAME_nohash_2.jpg"
    ]
    for pair in pairs[:_SHOWN]:
        a, b = (f"{examples.uris[i]!r} ({SPLITS[codes[i]]})" for i in (pair.held_out, pair.other))
        lines.append(f"near-identical: {a} and {b}, cosine {pair.cosine:.5f}")
    return lines


@one_blas_thread
def near_identical(
    vectors: Vectors, codes: Codes, rows: Indices, held_out: Indices, least: float = SAME
) -> list[Pair]:
    """Pairs of rows in different splits whose vectors have a cosine of `least` or more.

    Args:
        vectors: float32 [N, D]; held are 2 x `CHUNK_ROWS` of them at once.
        codes: int8 [N], the split of each row.
        rows: rows to compare with.
        held_out: rows to compare.
        least: lowest cosine.

    Returns:
        The pairs, the most alike first, each once; no more than `MOST_FOUND`.
    """
    pairs = []
    for mine in _chunks(held_out):
        units = _unit(vectors[mine])
        for others in _chunks(rows):
            cosines = units @ _unit(vectors[others]).T
            across = codes[mine][:, None] > codes[others][None, :]
            for i, j in zip(*np.nonzero((cosines >= least) & across), strict=True):
                pairs.append(Pair(int(mine[i]), int(others[j]), float(cosines[i, j])))
                if len(pairs) == MOST_FOUND:
                    return sorted(pairs, key=_most_alike)
    return sorted(pairs, key=_most_alike)


def _most_alike(pair: Pair) -> tuple[float, int, int]:
    return -pair.cosine, pair.held_out, pair.other


def _chunks(rows: Indices) -> list[Indices]:
    return [rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS)]


def _unit(vectors: Floats) -> Floats:
    """Vectors of length 1; zeros stay zeros, like to none."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
