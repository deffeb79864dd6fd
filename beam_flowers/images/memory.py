"""Estimates the memory that decoding an image takes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from PIL.TiffImagePlugin import TiffImageFile

from beam_flowers.images.heif import plane_bytes
from beam_flowers.images.jpeg import Jpeg, coefficients
from beam_flowers.images.jpeg2000 import codestream
from beam_flowers.images.recipe import PixelRecipe
from beam_flowers.images.tiff import strips

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Bytes a pixel at the peak, measured by benchmarks/decode_memory.py with Pillow 12.3 and rounded
# up. They include the conversion to RGB or RGBA and what the resize does to alpha.
_PNG = {0: 2.2, 2: 4.4, 3: 5.5, 4: 8.5, 6: 8.5}
"""By colour type: grey, RGB, palette, grey with alpha, RGB with alpha."""
_PNG_GREY_16 = 11.5
_PNG_TRANSPARENT = 8.5
"""Added by a transparent colour."""
_PNG_ANIMATED = 4.5
"""Added by the canvas of an animation."""
_WEBP = 17.5
_BMP, _BMP_BIT_FIELDS = 5.5, 12.5
_MODES = {"1": 2.2, "L": 2.2, "RGB": 4.4, "P": 9.5, "I": 13.5, "F": 13.5, "I;16": 13.5}
"""By Pillow's mode, for formats that are sized after opening. Other modes take four bytes twice."""
_OTHER_MODES = 8.7
_GIF = 10.5
_MADE_OF_PLANES = {"L": 2.7, "RGB": 7.8}
"""Of AVIF and HEIC, besides their planes. With alpha, or deep grey:"""
_OTHERS_OF_PLANES = 12.5
_LIBHEIF = 1.0
_JPEG2000_SAMPLE = 4.3
"""Of a tile, besides the bytes of its copy."""
_BLOCK, _TILE, _TILE_COMPONENT = 700, 6_000, 1_200
"""Bytes of JPEG 2000 for each code block of a tile, each tile, and each component of a tile."""
_PPM_IN_PYTHON = 16.0
"""Of plain numbers and odd maxima, which Pillow decodes in Python."""
_TIFF_COPIES = 4.2
"""Of a copy that is turned upright, or checked for missing rows of a fax."""
_STRIP = 300
"""Bytes for each strip or tile of a TIFF."""
_JPEG_ENDINGS = 18.0
"""Of the three images that `jpeg.missing_share` compares."""


class Declared(NamedTuple):
    """Holds the size in a file's header and the memory that it implies.

    Attributes:
        width: pixels of the image across.
        height: pixels of the image down.
        needed: bytes that decoding takes.
    """

    width: int
    height: int
    needed: int


def declared(data: bytes, format_: str) -> Declared | None:
    """Reads the header of a format that takes memory when it is opened: PNG, WebP and BMP.

    Returns None for other formats and for damaged headers.
    """
    try:
        read = {"PNG": _png, "WEBP": _webp, "BMP": _bmp}[format_]
        width, height, each = read(data)
    except (KeyError, struct.error):
        return None
    return Declared(width, height, int(width * height * each))


def _png(data: bytes) -> tuple[int, int, float]:
    width, height, depth, colours = struct.unpack_from(">IIBB", data, 16)
    each = _PNG_GREY_16 if (depth, colours) == (16, 0) else _PNG[colours]
    # Pillow accepts these chunks anywhere; a chance hit in other data only raises the estimate.
    each += _PNG_TRANSPARENT * (b"tRNS" in data) + _PNG_ANIMATED * (b"acTL" in data)
    return width, height, each


def _webp(data: bytes) -> tuple[int, int, float]:
    chunk = data[12:16]
    if chunk == b"VP8X":
        head = data[24:30].ljust(6, b"\0")
        width = int.from_bytes(head[:3], "little") + 1
        return width, int.from_bytes(head[3:], "little") + 1, _WEBP
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, _WEBP
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF, _WEBP


def _bmp(data: bytes) -> tuple[int, int, float]:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        return *struct.unpack_from("<HH", data, 18), _BMP
    width, height = struct.unpack_from("<ii", data, 18)
    (compression,) = struct.unpack_from("<I", data.ljust(34, b"\0"), 30)
    is_usual = header >= 40 and compression <= 2
    return abs(width), abs(height), _BMP if is_usual else _BMP_BIT_FIELDS


def needed_to_resize(recipe: PixelRecipe, width: int, height: int) -> int:
    """Estimates the bytes of an image with the target's width and its own height.

    Pillow resizes one direction after the other. A constant covers memory that does not grow with
    pixels.
    """
    if recipe.resize is None:
        return 8 * max(recipe.width, recipe.height) * max(width, height) + 2**20
    # The whole image is scaled, whose longer side is at most eight times its shorter one.
    return 8 * recipe.resize * (max(width, height) + 8 * recipe.resize) + 2**20


def needed_by(im: ImageFile, data: bytes, size: tuple[int, int]) -> int:
    """Estimates the bytes that it takes to load, convert and resize an image.

    Args:
        im: the opened image, already set to its scale.
        data: the whole file.
        size: its unscaled width and height.
    """
    pixels = im.width * im.height
    each = _MODES.get(im.mode, _OTHER_MODES)
    if im.format == "GIF":
        each = _GIF
    elif im.format == "PPM" and im.tile and im.tile[0][0] != "raw":
        each = max(each, _PPM_IN_PYTHON)
    elif isinstance(im, Jpeg):
        # The coefficients are those of the whole image, even if it is decoded scaled.
        return int(pixels * each + size[0] * size[1] * coefficients(data))
    elif im.format in ("AVIF", "HEIF"):
        made = _MADE_OF_PLANES.get(im.mode, _OTHERS_OF_PLANES) + _LIBHEIF * (im.format == "HEIF")
        return int(pixels * (made + plane_bytes(data, has_alpha=im.mode[-1] in "Aa")))
    elif im.format == "JPEG2000":
        return max(int(pixels * each), pixels * len(im.getbands()) + _tile_bytes(data))
    elif isinstance(im, TiffImageFile):
        return int(pixels * (each + _TIFF_COPIES)) + _strip_bytes(im) + _STRIP * strips(im)
    return int(pixels * each)


def _tile_bytes(data: bytes) -> int:
    """Estimates the bytes of one JPEG 2000 tile, and of the structures of all tiles."""
    header = codestream(data)
    if not header:
        return 0
    sample = sum(
        _JPEG2000_SAMPLE + (depth + 7) // 8 + _BLOCK * header.blocks for depth in header.bits
    )
    each = _TILE + _TILE_COMPONENT * len(header.bits)
    return int(header.tile * sample) + header.tiles * each


def _strip_bytes(im: TiffImageFile) -> int:
    """Returns the bytes of a strip or tile, which libtiff decodes at once."""
    tags = im.tag_v2
    width, length = im.size
    across = tags.get(322) or width  # Of a tile.
    down = tags.get(323) or min(tags.get(278) or length, length)  # Of a tile, or a strip's rows.
    samples = tags.get(277, 1)
    bits = max(tags.get(258, (8,)))
    return int(across * down * samples * bits) // 8


def needed_to_compare(im: Jpeg, data: bytes, size: tuple[int, int]) -> int:
    """Estimates the bytes that `jpeg.missing_share` takes; arguments as in `needed_by`."""
    return int(im.width * im.height * _JPEG_ENDINGS + size[0] * size[1] * coefficients(data))
