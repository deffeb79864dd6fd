"""Holds the vectors of many images, in memory or, above a limit, in a temporary file."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import StoreError

Floats = npt.NDArray[np.float32]

IN_MEMORY = 1 << 30
"""Most bytes of float32 vectors in memory; more are put into a temporary file."""

_SPARSE = 4
"""Rows are read in one piece if it holds at most this many times the rows wanted."""

_COPIED = 4096
"""Number of rows in memory while a file is copied."""


class Vectors(Protocol):
    """Matrix float32 [N, D] that is read a few rows at a time: an array or a `VectorFile`."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> Any: ...
    def __setitem__(self, rows: Any, vectors: Any, /) -> None: ...


class VectorFile:
    """Matrix in a temporary file, indexed like an array; the file ends with the process.

    The file is read and not mapped, so that the memory of the process does not grow with the rows
    read. These stay in the system's cache, which frees them when other programs need memory.
    """

    def __init__(self, order: npt.NDArray[np.intp], length: int, numbers: str) -> None:
        """Opens a file with room for [N, length] vectors.

        Args:
            order: intp [N], indices of the rows in the order of the file; reading or writing them
                in another order costs one access for each row.
            length: D.
            numbers: dtype in the file, float32 or float16; reading always returns float32.

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
        weakref.finalize(self, self._file.close)
        # Seeking and reading are two steps, and several threads may read.
        self._using = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> Floats:
        """Reads rows: float32 [D] for a number, [n, D] for a slice or intp [n]."""
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
            # Unbuffered reads may return less: Linux gives 2 GiB at most.
            while done < len(view):
                done += self._file.readinto(view[done:]) or _ended()
        return found


class Stacked:
    """Rows of one matrix followed by those of another, indexed like an array."""

    def __init__(self, first: Vectors, second: Vectors) -> None:
        self.shape = len(first) + len(second), first.shape[1]
        self._first, self._second = first, second

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any, /) -> Floats:
        """Reads rows: float32 [D] for a number, [n, D] for a slice or intp [n]."""
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
    """Returns room for [N, length] vectors, in memory or in a file; see `VectorFile`."""
    if len(order) * length * 4 <= IN_MEMORY:
        return np.empty((len(order), length), np.float32)
    return VectorFile(order, length, numbers)


def arranged(vectors: Vectors, order: npt.NDArray[np.intp]) -> Vectors:
    """Returns the same vectors; those of a file are copied to a file in the order `order`.

    This is several times faster than writing single rows all over a file.
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
