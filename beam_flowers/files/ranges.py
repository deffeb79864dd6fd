"""Gives files that are read by ranges of bytes the interface of Python's raw files."""

from __future__ import annotations

import io
from typing import Any


class RangedFile(io.RawIOBase):
    """Reads a file by ranges, which subclasses give; wrap it in an `io.BufferedReader`.

    Args:
        size: bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self._size, self._position = size, 0

    def read_range(self, start: int, end: int) -> bytes:
        """Returns the bytes from `start` up to `end`, of which there is at least one."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        data = self.read_range(self._position, end) if self._position < end else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
