"""Opens JPEGs, finds those that may be decoded scaled, and counts the missing rows of cut ones."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.JpegImagePlugin import JpegImageFile

from beam_flowers.errors import ImageError
from beam_flowers.images.bounded_file import FEED_BYTES, BoundedFile
from beam_flowers.images.recipe import Limits

_END_OF_IMAGE = b"\xff\xd9"

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG's frames, SOF0 to SOF15 (ITU T.81, table B.1)."""

_SCALED_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}

_PROGRESSIVE_FRAMES = {0xC2, 0xC6, 0xCA, 0xCE}

_ARITHMETIC_FRAMES = {0xC9, 0xCA}

_LONE_MARKERS = {0x00, 0x01, *range(0xD0, 0xDA)}
"""Second bytes of the JPEG markers without a length, and of a padded 0xFF, a data byte."""

_START_OF_SCAN, _RESTART_INTERVAL = 0xDA, 0xDD

_MOST_SCANS = 1_000
"""Libraries write ten at most."""

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Marker that ends the data of a scan; excludes padded 0xFF and restarts."""

_PIXELS_IN_FULL = 25_000_000
"""Larger images are compared at an eighth of their size."""


class Jpeg(JpegImageFile):
    """Opens a JPEG without reading its resolution, where broken EXIF would raise."""

    def _read_dpi_from_exif(self) -> None:
        pass


def can_be_scaled(data: bytes) -> bool:
    """Tells if all frames in a JPEG's header, up to its first scan, are `_SCALED_FRAMES`."""
    frames = {marker for marker, _ in _segments(data, 2)} & _FRAMES
    return bool(frames) and frames <= _SCALED_FRAMES


def bytes_to_feed(data: bytes) -> int:
    """Returns the bytes of a JPEG that its decoder has to get at a time.

    All of them for arithmetic coding: libjpeg cannot wait for more within its data.
    """
    is_arithmetic = any(marker in _ARITHMETIC_FRAMES for marker, _ in _segments(data, 2))
    return len(data) if is_arithmetic else FEED_BYTES


def coefficients(data: bytes) -> float:
    """Returns the bytes a pixel of coefficients that wait for the last scan; 0 for a plain JPEG.

    Progressive files, and those whose first scan lacks a component, hold them in memory.
    """
    samples, is_progressive, count = 0.0, False, 0
    for marker, at in _segments(data, 2):
        if marker in _FRAMES:
            is_progressive = marker in _PROGRESSIVE_FRAMES
            factors = data[at + 11 : at + 10 + 3 * data[at + 9] : 3]
            areas = [(factor >> 4) * (factor & 15) for factor in factors]
            count = len(areas)
            most = max((f >> 4 for f in factors), default=1) * max(
                (f & 15 for f in factors), default=1
            )
            samples = sum(areas) / max(1, most)
        elif marker == _START_OF_SCAN and not is_progressive and data[at + 4] >= count:
            return 0.0
    return 2 * samples


def _segments(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Yields marker and offset of each segment of a header, up to and with a start of scan."""
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        marker, length = struct.unpack_from(">BH", data, at + 1)
        if marker == 0xFF:  # Any number of these may precede a marker.
            at += 1
        elif marker in _LONE_MARKERS:
            at += 2
        else:
            yield marker, at
            if marker == _START_OF_SCAN:
                return
            at += 2 + max(2, length)


def has_end(data: bytes) -> bool:
    """Tells if a JPEG has its last marker at the very end."""
    return data.endswith(_END_OF_IMAGE)


def with_end(data: bytes) -> bytes:
    """Adds the end marker to a JPEG that lacks it."""
    return data.rstrip(b"\xff") + _END_OF_IMAGE


def missing_share(data: bytes, limits: Limits) -> float:
    """Returns the share of rows that a cut JPEG lacks wholly or in part, 1 if unknown.

    libjpeg decodes missing rows as grey and does not report where they begin. So the file is
    decoded with three endings: the end marker alone, and two kinds of noise that decode to pixels.
    Complete rows are equal in all three. Missing scans, as in a progressive file, are found by
    their headers.

    Raises:
        ImageError: `Timeout`.
    """
    data = data.rstrip(b"\xff")  # Half a marker.
    try:
        if not _has_all_scans(data):
            return 1.0
        whole, *others = (_pixels(data + ending, limits) for ending in _endings(data))
    except (ImageError, MemoryError):
        raise
    except Exception:  # The cut is within a header, or the file has other damage.
        return 1.0
    different = np.zeros(len(whole), bool)
    for other in others:
        different |= (whole != other).reshape(len(whole), -1).any(axis=1)
    return 1 - int(different.argmax()) / len(whole) if different.any() else 0.0


def _has_all_scans(data: bytes) -> bool:
    """Tells if the scans up to the cut are all that the image needs.

    They are if each coefficient of each component has a scan for its last bit.
    """
    missing: set[tuple[int, int]] = set()
    is_framed = False
    start = 2
    for _ in range(_MOST_SCANS):
        for marker, at in _segments(data, start):
            if marker in _FRAMES:
                is_framed = True
                parts = data[at + 10 : at + 10 + 3 * data[at + 9] : 3]
                missing |= {(part, k) for part in parts for k in range(64)}
            start = at
        if not (is_framed and data[start + 1] == _START_OF_SCAN):
            return False
        parts = data[start + 5 : start + 5 + 2 * data[start + 4] : 2]
        first, last, precision = data[start + 5 + 2 * data[start + 4] :][:3]
        if precision & 15 == 0:
            missing -= {(part, k) for part in parts for k in range(first, last + 1)}
        if not missing:
            return True
        start = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if not (following := _MARKER.search(data, start)):
            return False
        start = following.start()
    return False


def _endings(data: bytes) -> Iterator[bytes]:
    yield _END_OF_IMAGE
    has_restarts = any(marker == _RESTART_INTERVAL for marker, _ in _segments(data, 2))
    for seed in range(2):
        draw = random.Random(seed)
        noise = bytes(draw.randrange(255) for _ in range(512))
        # If the JPEG has restarts, the decoder skips data until the restart that it expects.
        restarts = (bytes([0xFF, 0xD0 + n % 8]) + noise for n in range(16))
        yield noise + b"".join(restarts if has_restarts else ()) + _END_OF_IMAGE


def opened_to_compare(data: bytes, limits: Limits) -> tuple[Jpeg, tuple[int, int]]:
    """Opens a JPEG at the size at which `missing_share` decodes it.

    Returns:
        The image, and its unscaled size.
    """
    im = Jpeg(BoundedFile(data, limits))
    im.decodermaxblock = bytes_to_feed(data)
    size = im.size
    if im.width * im.height > _PIXELS_IN_FULL:
        im.draft(im.mode, (im.width // 8, im.height // 8))
    return im, size


def _pixels(data: bytes, limits: Limits) -> npt.NDArray[Any]:
    im, _ = opened_to_compare(data, limits)
    im.load()
    return np.asarray(im)
