"""Finds near-identical images in different splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.examples import Examples
from beam_flowers.head.softmax import CHUNK_ROWS, Floats, Indices
from beam_flowers.head.split import SPLITS, Codes
from beam_flowers.store.vectors import Vectors

SAME = 0.999
"""Cosine from which two vectors count as of one image. Of 1,500 different flowers the two most
alike have 0.965 (EfficientNet-Lite0)."""

MOST_PAIRS = 50_000_000
"""Most pairs of rows that are compared, in some seconds; fewer held-out rows are checked then."""

MOST_FOUND = 1000
"""Near-identical pairs after which the search ends."""

_SHOWN = 10


class Pair(NamedTuple):
    """Two near-identical rows in different splits.

    Attributes:
        held_out: a row that does not train; of two such the testing one.
        other: the other row.
        cosine: of their vectors.
    """

    held_out: int
    other: int
    cosine: float


def leakage_warnings(examples: Examples, codes: Codes, rows: Indices) -> list[str]:
    """Returns warnings of near-identical images across the splits.

    Args:
        examples: the rows.
        codes: int8 [N], the split of each example.
        rows: intp [n], the rows to compare, in an order that does not depend on their names.
    """
    held_out = rows[codes[rows] > 0]
    most = MOST_PAIRS // len(rows)
    pairs = near_identical(examples.vectors, codes, rows, held_out[:most])
    if not pairs:
        return []
    checked = f", in {most} of {len(held_out)} looked at" if most < len(held_out) else ""
    lines = [
        f"{len(pairs)} pairs of near-identical images lie on different sides of the split"
        f"{checked}: the accuracy flatters; delete one of each, give both one split in a manifest,"
        " or name them NAME_nohash_1.jpg, NAME_nohash_2.jpg"
    ]
    for pair in pairs[:_SHOWN]:
        a, b = (f"{examples.uris[i]!r} ({SPLITS[codes[i]]})" for i in (pair.held_out, pair.other))
        lines.append(f"near-identical: {a} and {b}, cosine {pair.cosine:.5f}")
    return lines


@one_blas_thread
def near_identical(
    vectors: Vectors, codes: Codes, rows: Indices, held_out: Indices, *, least: float = SAME
) -> list[Pair]:
    """Finds pairs of rows in different splits whose vectors have a cosine of `least` or more.

    Args:
        vectors: float32 [N, D]; 2 x `CHUNK_ROWS` of them are in memory at once.
        codes: int8 [N], the split of each row.
        rows: intp [n], the rows to compare with.
        held_out: intp [m], the rows to compare.
        least: lowest cosine.

    Returns:
        Each pair once, the most alike first; at most `MOST_FOUND`.
    """
    pairs = islice(_pairs(vectors, codes, rows, held_out, least), MOST_FOUND)
    return sorted(pairs, key=lambda pair: (-pair.cosine, pair.held_out, pair.other))


@one_blas_thread
def near_groups(
    vectors: Vectors, rows: Indices, groups: Sequence[str], class_ids: Indices
) -> list[str]:
    """Joins groups of images with near-identical vectors.

    A label whose images would all be of one group keeps its groups as they were: else nothing would
    be left to train on where that group is held out. Above `MOST_PAIRS` pairs nothing is joined.

    Args:
        vectors: float32 [N, D].
        rows: intp [n], their rows of the images.
        groups: n keys, see `image_groups`.
        class_ids: intp [n].

    Returns:
        n keys.
    """
    if len(rows) ** 2 > MOST_PAIRS:
        return list(groups)
    parents: dict[str, str] = {}

    def key(group: str) -> str:
        while group in parents:
            group = parents[group]
        return group

    places = np.arange(len(rows))
    for left in _chunks(places):
        units = _unit(vectors[rows[left]])
        for right in _chunks(places[: left[-1] + 1]):
            near = units @ _unit(vectors[rows[right]]).T >= SAME
            for i, j in zip(*np.nonzero(near), strict=True):
                one, other = sorted((key(groups[left[i]]), key(groups[right[j]])))
                if one != other:
                    parents[other] = one
    joined = [key(group) for group in groups]
    held: dict[int, set[str]] = defaultdict(set)
    for group, class_id in zip(joined, class_ids.tolist(), strict=True):
        held[class_id].add(group)
    pairs = zip(groups, joined, class_ids.tolist(), strict=True)
    return [one if len(held[class_id]) > 1 else own for own, one, class_id in pairs]


def _pairs(
    vectors: Vectors, codes: Codes, rows: Indices, held_out: Indices, least: float
) -> Iterator[Pair]:
    for left in _chunks(held_out):
        units = _unit(vectors[left])
        for right in _chunks(rows):
            cosines = units @ _unit(vectors[right]).T
            across = codes[left][:, None] > codes[right][None, :]
            for i, j in zip(*np.nonzero((cosines >= least) & across), strict=True):
                yield Pair(int(left[i]), int(right[j]), float(cosines[i, j]))


def _chunks(rows: Indices) -> list[Indices]:
    return [rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS)]


def _unit(vectors: Floats) -> Floats:
    """Scales vectors to length 1; zeros stay zeros and resemble no vector."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
