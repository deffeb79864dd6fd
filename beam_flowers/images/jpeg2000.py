"""Opens JPEG 2000 files, and reads fields of their codestream that Pillow does not report."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

from beam_flowers.errors import ImageError

_START = b"\xff\x4f\xff\x51"
"""First markers of a codestream: SOC and SIZ."""

_CODING_STYLE, _STYLE_OF_COMPONENT, _START_OF_TILE = 0xFF52, 0xFF53, 0xFF90
_END = 0xFFD9
_LONE_MARKERS = (0xFF4F, *range(0xFF30, 0xFF40))
"""Markers without a length."""
_MOST_LEVELS, _MOST_TILES = 32, 65_535
"""Bounds of the standard."""
_MOST_SEGMENTS = 100_000
"""Boxes, segments of a header or parts of tiles that are read."""

_LEVELS = ("L", "LA", "RGB", "RGBA")
"""Modes whose numbers are brightness, not indices of a palette."""


class Codestream(NamedTuple):
    """Holds the main header of a codestream.

    Attributes:
        width: pixels of the image across.
        height: pixels of the image down.
        tile: pixels of a tile, or of a smaller image.
        tiles: number of tiles.
        bits: bits of each component.
        blocks: code blocks a sample; many only in hostile files, to fill the memory.
    """

    width: int
    height: int
    tile: int
    tiles: int
    bits: tuple[int, ...]
    blocks: float


def codestream(data: bytes) -> Codestream | None:
    """Reads the main header (ISO 15444-1, annex A); None if it is damaged."""
    try:
        at = 0 if data.startswith(_START) else _offset(data)
        if data[at : at + 4] != _START:
            return None
        size = struct.unpack_from(">8IH", data, at + 8)
        right, down, left, top, tile_width, tile_height, tile_left, tile_top, count = size
        width, height = right - left, down - top
        bits = tuple((data[at + 42 + 3 * n] & 0x7F) + 1 for n in range(count))
        blocks = max(_blocks(data, at + 2), default=0.0)
    except (IndexError, struct.error):
        return None
    if min(width, height, tile_width, tile_height, count) < 1:
        return None
    across, along = -(-(right - tile_left) // tile_width), -(-(down - tile_top) // tile_height)
    tile = min(width, tile_width) * min(height, tile_height)
    return Codestream(width, height, tile, across * along, bits, blocks)


def _offset(data: bytes) -> int:
    """Returns the offset of the codestream in a JP2 file."""
    at = 0
    for _ in range(_MOST_SEGMENTS):
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,), head = struct.unpack_from(">Q", data, at + 8), 16
        if name == b"jp2c":
            return at + head
        at += max(size, head) if size else len(data)
    return len(data)


def _blocks(data: bytes, at: int) -> Iterator[float]:
    """Yields the code blocks a sample for each coding style in the main header."""
    for _ in range(_MOST_SEGMENTS):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == _START_OF_TILE:
            return
        if marker in _LONE_MARKERS:
            length = 0
        elif marker == _CODING_STYLE:
            yield _by_style(data, at + 9, has_precincts=bool(data[at + 4] & 1))
        elif marker == _STYLE_OF_COMPONENT:
            yield _by_style(data, at + 6, has_precincts=bool(data[at + 5] & 1))
        at += 2 + length


def _by_style(data: bytes, at: int, *, has_precincts: bool) -> float:
    levels, width, height = data[at], data[at + 1] + 2, data[at + 2] + 2
    blocks, share = 0.0, 1.0
    # From the finest resolution, which has three quarters of the samples, to the coarsest.
    for level in range(min(levels, _MOST_LEVELS), -1, -1):
        precinct = data[at + 5 + level] if has_precincts else 0xFF
        halved = int(level > 0)
        across = min(width, (precinct & 15) - halved)
        down = min(height, (precinct >> 4) - halved)
        part = share * 0.75 if level else share
        blocks += part / 2.0 ** max(0, across + down)
        share -= part
    return blocks


def stream_ends_early(data: bytes) -> bool:
    """Tells if the file ends before its codestream does, by the lengths of the parts of tiles."""
    try:
        at = 0 if data.startswith(_START) else _offset(data)
        for _ in range(_MOST_SEGMENTS):
            marker, length = struct.unpack_from(">HH", data, at)
            if marker == _END:
                return False
            if marker == _START_OF_TILE:
                # A length of 0 marks the last part.
                at += struct.unpack_from(">I", data, at + 6)[0] or len(data)
            else:
                at += 2 if marker in _LONE_MARKERS else 2 + length
    except struct.error:
        return True
    return False


def open_jpeg2000(file: io.BytesIO) -> Jpeg2KImageFile:
    """Opens a JPEG 2000 file by Pillow.

    Raises:
        ImageError: `Undecodable` if the sizes in its header and its codestream differ: the
            second is decoded, and Pillow leaves the rest black. `UnsupportedFormat` for a palette
            with fewer than 8 bits, which Pillow decodes wrongly.
    """
    im = Jpeg2KImageFile(file)
    found = codestream(file.getvalue())
    if not found or found.tiles > _MOST_TILES:
        raise OSError("broken codestream header")
    if im.size != (found.width, found.height):
        raise ImageError(
            "Undecodable",
            f"JPEG2000 cannot be decoded: {im.width} x {im.height} by its header and "
            f"{found.width} x {found.height} by its codestream",
        )
    if im.mode in ("P", "PA") and min(found.bits) < 8:
        raise ImageError(
            "UnsupportedFormat",
            f"JPEG2000 with a palette of {min(found.bits)} bits is not read: convert it to JPEG "
            "or PNG",
        )
    return im


def stretched(im: Image.Image, data: bytes) -> Image.Image:
    """Scales the brightness of a loaded image with fewer than 8 bits, so that white is 255.

    Pillow only shifts the bits, so that the white of one bit is 128.
    """
    found = codestream(data)
    depths = found.bits if found else ()
    if len(depths) != len(im.getbands()) or min(depths) >= 8 or im.mode not in _LEVELS:
        return im
    table: list[int] = []
    for depth in depths:
        shift = max(0, 8 - depth)
        white = 255 >> shift << shift
        table += [min(255, round(level * 255 / white)) for level in range(256)]
    return im.point(table)
