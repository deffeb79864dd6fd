"""Counts the rows that one version of a table adds, removes and changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from beam_flowers import files
from beam_flowers.errors import PartLostError
from beam_flowers.store.commits import Section
from beam_flowers.store.parts import Part, Place, iterate_part

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
"""Keys of the counts of a manifest."""
_URI = "uri"
_TOLD_BY = ("sha256", "label", "label_text", "labels")
"""Columns by which two rows of one image differ; stores and score tables have some of them."""
_AT_ONCE = 16

Numbers = npt.NDArray[np.int64]


def count_changes(
    root: str, before: Mapping[str, Section], after: Mapping[str, Section]
) -> dict[str, int]:
    """Counts the rows, without rejects, that a version adds, removes and changes.

    A row is changed if the content or the label of its image differs. Parts that both versions
    have are not read. No part is read if the version only adds parts, or only removes some. Rows
    that are read take 16 bytes of memory each.

    Args:
        root: folder of the table.
        before: sections of the version that `after` is committed on.
        after: those of the version to be committed; its new parts are written.

    Returns:
        `added`, `removed` and `changed`; empty if a replaced part is gone or damaged, as its rows
        are not known then.
    """
    totals = np.zeros(3, np.int64)
    try:
        for key in {*before, *after}:
            totals += _in_section(root, key, before.get(key), after.get(key))
    except PartLostError:
        return {}
    return dict(zip((ADDED, REMOVED, CHANGED), totals.tolist(), strict=True))


def _in_section(
    root: str, key: str, before: Section | None, after: Section | None
) -> tuple[int, int, int]:
    old = {part.name: part for part in before.rows} if before else {}
    new = {part.name: part for part in after.rows} if after else {}
    came = [part for name, part in new.items() if name not in old]
    went = [part for name, part in old.items() if name not in new]
    # Rows of one image are in one part only, so without parts on both sides no image is in both.
    if not (before and after and came and went):
        return sum(part.rows for part in came), sum(part.rows for part in went), 0
    old_uris, old_rows = _numbers(Place(root, key, before.fingerprint), went)
    new_uris, new_rows = _numbers(Place(root, key, after.fingerprint), came)
    # An image has several rows in a table of several models' scores.
    stayed = _in_common(old_uris, new_uris)
    changed = stayed - _in_common(old_rows, new_rows)
    return len(new_uris) - stayed, len(old_uris) - stayed, changed


def _numbers(place: Place, parts: list[Part]) -> tuple[Numbers, Numbers]:
    """Returns hashes of the images and of the whole rows of parts, int64 [N] each.

    They can be compared within this process only. Two images of one hash are too rare to matter
    in a count.
    """

    def read(part: Part) -> tuple[Numbers, Numbers]:
        uris: list[int] = []
        rows: list[int] = []
        for table in iterate_part(place, part, [_URI, *_TOLD_BY]):
            told_by = [table[n].to_pylist() for n in _TOLD_BY if n in table.schema.names]
            uris += map(hash, table[_URI].to_pylist())
            rows += map(hash, zip(table[_URI].to_pylist(), *map(_hashable, told_by), strict=True))
        return np.array(uris, np.int64), np.array(rows, np.int64)

    # Object stores answer one request slowly, but many at a time.
    with ThreadPoolExecutor(1 if files.is_local(place.root) else _AT_ONCE) as pool:
        found = list(pool.map(read, parts))
    return np.concatenate([u for u, _ in found]), np.concatenate([r for _, r in found])


def _hashable(values: Iterable[object]) -> Iterable[object]:
    return (tuple(value) if isinstance(value, list) else value for value in values)


def _in_common(some: Numbers, others: Numbers) -> int:
    """Counts the numbers in both; a repeated one counts as often as in the array with fewer."""
    values, counts = np.unique(some, return_counts=True)
    other_values, other_counts = np.unique(others, return_counts=True)
    _, here, there = np.intersect1d(values, other_values, assume_unique=True, return_indices=True)
    return int(np.minimum(counts[here], other_counts[there]).sum())
