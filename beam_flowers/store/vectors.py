"""Vectors of many pictures at hand: in memory or, where that would be too much, in a file."""

from __future__ import annotations

import shutil
import tempfile
import threading
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import StoreError

Floats = npt.NDArray[np.float32]

IN_MEMORY = 1 << 30
"""Bytes of float32 vectors above which they lie in a temporary file instead."""

_SPARSE = 4
"""Up to so many times the rows asked for are read in one piece rather than row by row."""

_COPIED = 4096
"""Rows that are in memory when a file is copied."""


class Vectors(Protocol):
    """float32 [N, D] that is read a few rows at a time: an array or a `VectorFile`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...
    def __setitem__(self, rows: Any, vectors: Any, /) -> None: ...


class VectorFile:
    """Rows in a temporary file, which goes with the process; indexed like an array.

    It is read and not mapped, so that the process' memory does not grow with what it has seen:
    that stays in the system's cache, which gives it back when others need it.
    """

    def __init__(self, order: npt.NDArray[np.intp], length: int, numbers: str) -> None:
        """Room for [N, length] vectors.

        Args:
            order: intp [N], the rows as they follow each other in the file; reading or writing
                them in another order costs an access a row.
            length: D.
            numbers: float32 or float16, what the file holds. Read are float32.

        Raises:
            StoreError: the disk has no room for them.
        """
        self.shape = len(order), length
        self._places = np.empty_like(order)
        self._places[order] = np.arange(len(order))
        self.numbers = numbers
        self._numbers = np.dtype(numbers)
        self._width = length * self._numbers.itemsize
        _require_room(len(order) * self._width)
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as this does.
        self._using = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> Floats:
        """float32 [D] of a number, [n, D] of a slice or of intp [n]."""
        places = self._places[rows]
        if not np.ndim(places):
            return self._read(int(places), 1)[0].astype(np.float32)
        if not len(places):
            return np.empty((0, self.shape[1]), np.float32)
        first, count = int(places.min()), int(np.ptp(places)) + 1
        if count <= _SPARSE * len(places):
            return self._read(first, count)[places - first].astype(np.float32)
        found = [self._read(place, 1) for place in places.tolist()]
        return np.concatenate(found).astype(np.float32)

    def __setitem__(self, rows: Any, vectors: Any, /) -> None:
        data, places = np.asarray(vectors, self._numbers), self._places[rows]
        ends = np.flatnonzero(np.diff(places) != 1) + 1
        starts = [0, *ends.tolist()] if len(places) else []
        with self._using:
            for start, piece in zip(starts, np.split(data, ends), strict=False):
                self._file.seek(int(places[start]) * self._width)
                self._file.write(piece.tobytes())

    def _read(self, first: int, count: int) -> npt.NDArray[Any]:
        found = np.empty((count, self.shape[1]), self._numbers)
        view, done = found.data.cast("B"), 0
        with self._using:
            self._file.seek(first * self._width)
            while done < len(view):
                done += self._file.readinto(view[done:]) or _ended()
        return found


class Stacked:
    """The rows of one matrix and, numbered on, those of another; indexed like an array."""

    def __init__(self, first: Vectors, second: Vectors) -> None:
        self.shape = len(first) + len(second), first.shape[1]
        self._first, self._second = first, second

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> Floats:
        """float32 [D] of a number, [n, D] of a slice or of intp [n]."""
        places = np.arange(len(self))[rows]
        if not np.ndim(places):
            return self[places[np.newaxis]][0]
        found = np.empty((len(places), self.shape[1]), np.float32)
        inside = places < len(self._first)
        found[inside] = self._first[places[inside]]
        found[~inside] = self._second[places[~inside] - len(self._first)]
        return found

    def __setitem__(self, rows: Any, vectors: Any, /) -> None:
        raise TypeError("stacked vectors are written where they come from")


def allocate(order: npt.NDArray[np.intp], length: int, numbers: str = "float32") -> Vectors:
    """Room for [N, length] vectors, in memory or in a file; see `VectorFile`."""
    if len(order) * length * 4 <= IN_MEMORY:
        return np.empty((len(order), length), np.float32)
    return VectorFile(order, length, numbers)


def arranged(vectors: Vectors, order: npt.NDArray[np.intp]) -> Vectors:
    """The same vectors, those of a file in another order there.

    A file is written in one order and copied to the other, as that is several times faster than
    writing single rows all over it.
    """
    if not isinstance(vectors, VectorFile):
        return vectors
    copy = VectorFile(order, vectors.shape[1], vectors.numbers)
    for start in range(0, len(order), _COPIED):
        rows = order[start : start + _COPIED]
        copy[rows] = vectors[rows]
    return copy


def _require_room(size: int) -> None:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise StoreError(
            f"the vectors need {size / 2**30:.1f} GiB for the time of the command, and {folder} has"
            f" {free / 2**30:.1f} left; name another folder by the variable TMPDIR"
        )


def _ended() -> int:
    raise StoreError("the temporary file of vectors ends too early; run this again")
