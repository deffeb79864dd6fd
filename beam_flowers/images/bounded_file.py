"""Hands a file to a decoder piece by piece, for a bounded time."""

from __future__ import annotations

import io
import time

from beam_flowers.errors import ImageError
from beam_flowers.images.recipe import Limits

FEED_BYTES = 4 * 1024
"""Bytes that a decoder gets before the clock is read again. A progressive JPEG can ask for a pass
over all its pixels in some ten bytes. At this size photographs decode as fast as at Pillow's
64 KiB, and noisy ones of 12 megapixels a tenth slower."""


class BoundedFile(io.BytesIO):
    """Lets Pillow read a file for a bounded time, and a bounded number of bytes in all.

    The count stops a TIFF whose thousands of tags all claim the same megabytes. A sound file with
    big tags is read some five times.
    """

    def __init__(self, data: bytes, limits: Limits) -> None:
        super().__init__(data)
        self._seconds = limits.seconds
        self._deadline = time.thread_time() + limits.seconds
        self._left = 8 * len(data) + 2**16

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._deadline:
            raise ImageError(
                "Timeout", f"decoding took more than {self._seconds:g} seconds of CPU time"
            )
        piece = super().read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise ImageError("Undecodable", "header refers to the same bytes again and again")
        return piece
