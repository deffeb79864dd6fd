"""Detects fax-compressed TIFFs (Group 3 and 4) whose strips lack rows."""

from __future__ import annotations

import io
import itertools
import struct
from collections.abc import Sequence

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from beam_flowers.errors import ImageError

_WIDTH, _LENGTH, _COMPRESSION, _FILL_ORDER = 256, 257, 259, 266
_STRIP_OFFSETS, _ROWS_PER_STRIP, _STRIP_BYTES = 273, 278, 279
_T4_OPTIONS, _T6_OPTIONS = 292, 293
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325

_ENCODERS = {3: "group3", 4: "group4"}
"""Values of the tag Compression and Pillow's names for them. For the two other forms of fax code
(2, 32771) libtiff reports strips that end early."""

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_PIXELS_AT_ONCE = 2**24


def check_fax(im: TiffImageFile, data: bytes) -> None:
    """Checks that each strip or tile of fax code has all of its rows.

    libtiff decodes a Group 4 strip that ends early without an error, and Pillow then shows old
    memory: parts of other images. Pillow decodes all strips into one buffer. So each strip is
    decoded once behind a white strip and once behind a black one: its missing rows then differ.

    Args:
        im: the TIFF, opened and not yet loaded.
        data: the whole file.

    Raises:
        ImageError: `Undecodable` if a strip lacks rows.
    """
    tags = im.tag_v2
    if tags.get(_COMPRESSION) not in _ENCODERS:
        return
    if _TILE_OFFSETS in tags:
        width, rows = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0)
        offsets, sizes, last = tags[_TILE_OFFSETS], tags.get(_TILE_BYTES), rows
    else:
        width, length = tags[_WIDTH], tags[_LENGTH]
        rows = min(tags.get(_ROWS_PER_STRIP, length), length)
        offsets, sizes = tags.get(_STRIP_OFFSETS, ()), tags.get(_STRIP_BYTES)
        last = (length - 1) % max(1, rows) + 1
    if width < 1 or rows < 1:
        raise ImageError("Undecodable", "TIFF cannot be decoded: a strip of no pixels")
    # Without sizes libtiff also reads on from the offset.
    sizes = sizes or [len(data)] * len(offsets)
    strips = [data[start : start + size] for start, size in zip(offsets, sizes, strict=False)]
    full = strips if last == rows else strips[:-1]
    step = max(1, _PIXELS_AT_ONCE // (width * rows))
    for at in range(0, len(full), step):
        _check_strips(im, full[at : at + step], width, rows)
    if last < rows:
        _check_strips(im, strips[-1:], width, last)


def _check_strips(im: TiffImageFile, strips: Sequence[bytes], width: int, rows: int) -> None:
    """Checks strips of `rows` rows each."""
    row_bytes = (width + 7) // 8
    contents = []
    for colour in (0, 1):
        filler = _filler(im, width, rows, colour)
        decoded = _decoded(im, [part for strip in strips for part in (filler, strip)], width, rows)
        size = rows * row_bytes
        contents.append([decoded[at : at + size] for at in range(size, len(decoded), 2 * size)])
    if contents[0] != contents[1]:
        raise ImageError(
            "Undecodable", "TIFF cannot be decoded: its fax data end before all rows are there"
        )


def _options(im: TiffImageFile) -> dict[int, int]:
    """Returns the tags that the fax decoder uses."""
    wanted = (_COMPRESSION, _FILL_ORDER, _T4_OPTIONS, _T6_OPTIONS)
    return {tag: im.tag_v2[tag] for tag in wanted if tag in im.tag_v2}


def _filler(im: TiffImageFile, width: int, rows: int, colour: int) -> bytes:
    """Returns a strip of one colour."""
    options = _options(im)
    compression = options.pop(_COMPRESSION)
    reverse = options.pop(_FILL_ORDER, 1) == 2
    file = io.BytesIO()
    Image.new("1", (width, rows), colour).save(
        file,
        "TIFF",
        compression=_ENCODERS[compression],
        tiffinfo={**options, _ROWS_PER_STRIP: rows},
    )
    file.seek(0)
    tags = TiffImageFile(file).tag_v2
    start, size = tags[_STRIP_OFFSETS][0], tags[_STRIP_BYTES][0]
    strip = file.getvalue()[start : start + size]
    return strip.translate(_REVERSED) if reverse else strip


def _decoded(im: TiffImageFile, strips: Sequence[bytes], width: int, rows: int) -> bytes:
    """Returns the pixels of strips, one bit each, rows padded to whole bytes."""
    sizes = [len(strip) for strip in strips]
    # Some decoders skip to the next even address at the end of each row.
    strips = [strip + b"\0" * (len(strip) % 2) for strip in strips]
    starts = list(itertools.accumulate(map(len, strips), initial=8))
    at = starts.pop()
    tags: dict[int, Sequence[int]] = {
        _WIDTH: [width],
        _LENGTH: [rows * len(strips)],
        258: [1],  # Bits a sample.
        262: [1],  # Zero is black.
        _STRIP_OFFSETS: starts,
        277: [1],  # Samples a pixel.
        _ROWS_PER_STRIP: [rows],
        _STRIP_BYTES: sizes,
        **{tag: [value] for tag, value in _options(im).items()},
    }
    lists, entries = b"", b""
    for tag in sorted(tags):
        packed = struct.pack(f"<{len(tags[tag])}I", *tags[tag])
        entries += struct.pack("<HHI", tag, 4, len(tags[tag]))
        entries += packed if len(packed) == 4 else struct.pack("<I", at + len(lists))
        lists += packed if len(packed) > 4 else b""
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    header = struct.pack("<2sHI", b"II", 42, at + len(lists))
    decoded = TiffImageFile(io.BytesIO(b"".join([header, *strips, lists, directory])))
    decoded.load()
    return decoded.tobytes()
