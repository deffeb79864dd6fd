"""Bytes of one picture -> RGB pixels for a network, by fixed rules, or one typed reject.

What each kind of picture becomes (changing a row means changing `recipe.DECODE_VERSION`; which
pictures are accepted at all means changing `rules.RULES`):

| in the file                      | result                                                    |
|----------------------------------|-----------------------------------------------------------|
| EXIF or XMP orientation          | applied; width and height are those after it. An          |
|                                  | unreadable one is ignored                                 |
| greyscale, 1-bit                 | three equal channels, black 0, white 255                  |
| palette                          | its colours                                               |
| alpha, transparent colour        | composited over white, the paper that cut-out pictures are |
|                                  | drawn for; dropping alpha would show hidden colours       |
| CMYK, YCCK                       | Pillow's plain inversion (JPEG: Adobe's inverted inks)    |
| YCbCr, LAB                       | converted to sRGB by Pillow                               |
| 16-bit grey (PNG, TIFF, PGM)     | value / 257, rounded: 0 -> 0, 65535 -> 255; a transparent |
|                                  | colour is ignored. 12-bit TIFF likewise, 4095 -> 255      |
| 32-bit integer grey (TIFF)       | as 16-bit; what lies outside 0..65535 is clipped          |
| 16-bit colour                    | the high byte of each channel                             |
| float grey (TIFF, PFM)           | no value above 1: times 255, else as it is; then rounded  |
|                                  | and clipped to 0..255; NaN is 0                           |
| animated GIF, WebP, APNG;        | the first frame or page (an APNG with a separate still    |
| several pages, MPO               | picture: that one)                                        |
| embedded colour profile, gamma   | ignored                                                   |

A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (DCT scaling) where the part that is used
stays at least twice as large as the target; what remains is done by one antialiased resize.
Scaled decoding is asked only of SOF0, 1, 2, 9, 10; others are decoded whole.
Nothing here is shared between threads, and no result depends on how many there are.
"""

from __future__ import annotations

import io
import re
import struct
import time
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from beam_flowers.errors import PictureError
from beam_flowers.images.formats import FORMATS, sniff, sniff_other
from beam_flowers.images.modes import over_white, plain
from beam_flowers.images.recipe import DEFAULT_LIMITS, Limits, PixelRecipe
from beam_flowers.records import NOT_AN_IMAGE, Picture

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile

# Pillow's warnings name no file, so they would only litter the screen; what matters of them
# is an error here. `catch_warnings` around each picture would not be safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class _Jpeg(JpegImageFile):
    """A JPEG that is not asked for its resolution, where broken EXIF would reject it."""

    def _read_dpi_from_exif(self) -> None:
        pass


# The classes and not `Image.open`: it warns of big pictures before they can be asked for
# their size, hides the cause of a failure, and may refuse a JPEG for a broken MPO index.
_OPEN: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "JPEG": _Jpeg,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
    "PPM": PpmImageFile,
}

_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF 2.32, tag 0x0112: what brings a picture stored that way upright."""

_FEED_BYTES = 4 * 1024
"""What a decoder gets at a time, before the clock is read again. A progressive JPEG can ask
for a pass over all its pixels in some ten bytes; at this size photographs decode as fast as
at Pillow's 64 KiB, and noisy 12-megapixel ones a tenth slower."""

_CUT_SHORT = re.compile(r"truncat|not enough|only got|end of|EOF|no more", re.IGNORECASE)

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG's frames, SOF0 to SOF15 (ITU T.81, table B.1)."""

_SCALED_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}

_LONE_MARKERS = {0x00, 0x01, *range(0xD0, 0xDA)}
"""Second bytes of the JPEG markers without a length, and of a padded 0xFF, which is no marker."""

_END_OF_DATA = (EOFError, IndexError, struct.error)
"""What header parsers run into at the end of a file; Pillow wraps them in a SyntaxError."""


def decode(data: bytes, recipe: PixelRecipe, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Decodes one picture.

    Args:
        data: the whole file; its format is told from the content.
        recipe: size, crop and filter.
        limits: what it may cost.

    Raises:
        PictureError: always with one of these classes. `NotAnImage`: not a picture.
            `EmptyFile`. `UnsupportedFormat`: a picture, but none of the seven formats.
            `TooLarge`: in bytes. `TooManyPixels`. `Timeout`. `Truncated`: the file ends too
            early. `Undecodable`: damaged, or a variant of the format that Pillow lacks.
    """
    return _guarded(data, limits, recipe, whole=False)


def decode_whole(data: bytes, recipe: PixelRecipe, limits: Limits = DEFAULT_LIMITS) -> Picture:
    """Decodes one picture with all that lies around the part that `recipe` uses.

    Args:
        data: the whole file.
        recipe: where its part of the picture is larger than its size, the whole picture is
            made smaller until the two agree. Nothing is enlarged.
        limits: what it may cost.

    Raises:
        PictureError: as `decode` does.
    """
    return _guarded(data, limits, recipe, whole=True)


def _guarded(data: bytes, limits: Limits, recipe: PixelRecipe, *, whole: bool) -> Picture:
    format_ = _admitted(data, limits)
    try:
        return _decode(data, format_, recipe, limits, whole=whole)
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError("TooManyPixels", _clean(error)) from error
    except Exception as error:  # Damaged files draw nearly every class out of Pillow.
        raise _failure(error, data, format_) from error


def _admitted(data: bytes, limits: Limits) -> str:
    if not data:
        raise PictureError("EmptyFile", "file has no bytes: fetch or export it again")
    if format_ := sniff(data):
        if len(data) > limits.max_bytes:
            raise PictureError(
                "TooLarge",
                f"{format_} of {len(data):,} bytes is above the limit of {limits.max_bytes:,}",
            )
        return format_
    if other := sniff_other(data):
        raise PictureError(
            "UnsupportedFormat",
            f"{other} is not read: convert it to JPEG or PNG ({', '.join(FORMATS)} are read)",
        )
    raise PictureError(NOT_AN_IMAGE, "not an image: it begins as no format of pictures does")


def _decode(
    data: bytes, format_: str, recipe: PixelRecipe, limits: Limits, *, whole: bool
) -> Picture:
    file = _BoundedFile(data, limits)
    if format_ == "PNG":
        _check_png_headers(file, limits)
    file.seek(0)
    im = _OPEN[format_](file)
    _check_size(*im.size, limits=limits)
    im.decodermaxblock = _FEED_BYTES
    width, height = im.size
    # Where pixels are taken from a whole picture, another reduction is still to come.
    extent = _draft(im, data, recipe, spare=1 if whole else 2)
    im.load()
    if extent is None:
        # Pillow turns a TIFF upright while it loads it, so that only now the size is known.
        extent = width, height = im.size
    orientation = _orientation(im)
    turned = orientation >= 5
    out = (recipe.height, recipe.width) if turned else (recipe.width, recipe.height)
    box = crop_box(extent, out, recipe.crop)
    if whole:
        out, box = _around(box, out, extent), (0, 0, *extent)
    small = plain(im).resize(out, Image.Resampling[recipe.resample.upper()], box)
    pixels = np.array(over_white(_upright(small, orientation)))
    return Picture(pixels, *((height, width) if turned else (width, height)), format_)


class _BoundedFile(io.BytesIO):
    """The file as Pillow reads it: only for so long, and only so many bytes in all.

    The count stops a TIFF whose thousands of tags all claim the same megabytes; a sound one
    with big tags is read through some five times.
    """

    def __init__(self, data: bytes, limits: Limits) -> None:
        super().__init__(data)
        self._seconds = limits.seconds
        self._deadline = time.thread_time() + limits.seconds
        self._left = 8 * len(data) + 2**16

    def read(self, size: int | None = -1, /) -> bytes:
        if time.thread_time() > self._deadline:
            raise PictureError(
                "Timeout", f"decoding took more than {self._seconds:g} seconds of CPU time"
            )
        piece = super().read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise PictureError("Undecodable", "header refers to the same bytes again and again")
        return piece


def _check_size(width: int, height: int, *, limits: Limits) -> None:
    if width * height > limits.max_pixels:
        raise PictureError(
            "TooManyPixels",
            f"{width} x {height} is {width * height:,} pixels, above the limit of "
            f"{limits.max_pixels:,}: scale it down or raise the limit",
        )


def _check_png_headers(file: _BoundedFile, limits: Limits) -> None:
    """Checks the size before Pillow opens the file, as opening an APNG may fill its canvas."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in (b"IDAT", b"fdAT"):
            return
        body = file.read(length)
        if name == b"IHDR" and length >= 8:
            _check_size(*struct.unpack_from(">II", body), limits=limits)
        file.seek(4, io.SEEK_CUR)


def _draft(
    im: ImageFile, data: bytes, recipe: PixelRecipe, *, spare: int
) -> tuple[float, float] | None:
    """Has a JPEG decoded at a fraction of its size, at least `spare` times as large as needed.

    Returns:
        Width and height of the picture in decoded pixels, which need not be whole (the
        decoder pads the last column and row), or None where there is no such decoding.
    """
    if not isinstance(im, _Jpeg) or not _can_be_scaled(data):
        return None
    width, height = im.size
    out = (recipe.width, recipe.height)
    if _orientation(im) >= 5:
        out = out[::-1]
    left, top, right, bottom = crop_box(im.size, out, recipe.crop)
    most = min((right - left) / (spare * out[0]), (bottom - top) / (spare * out[1]))
    scale = next((s for s in (8, 4, 2) if s <= most), 1)
    im.draft("RGB", (width // scale, height // scale))
    return width / scale, height / scale


def _can_be_scaled(data: bytes) -> bool:
    """Reads a JPEG's header up to its first scan: True if all its frames are `_SCALED_FRAMES`."""
    frames: set[int] = set()
    place = 2
    while 0 <= (place := data.find(b"\xff", place)) < len(data) - 3:
        marker, length = struct.unpack_from(">BH", data, place + 1)
        if marker == 0xDA:
            break
        if marker == 0xFF:  # Any number of these may stand before a marker.
            place += 1
        elif marker in _LONE_MARKERS:
            place += 2
        else:
            frames |= {marker} & _FRAMES
            place += 2 + max(2, length)
    return bool(frames) and frames <= _SCALED_FRAMES


def _around(
    box: tuple[float, float, float, float], out: tuple[int, int], extent: tuple[float, float]
) -> tuple[int, int]:
    """Size of the whole picture where `box`, if larger than `out`, becomes `out`."""
    shrink = (min(1.0, out[0] / (box[2] - box[0])), min(1.0, out[1] / (box[3] - box[1])))
    return max(1, round(extent[0] * shrink[0])), max(1, round(extent[1] * shrink[1]))


def crop_box(
    extent: tuple[float, float], out: tuple[int, int], crop: float | None
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the part that is used, at least one pixel each way."""
    width, height = extent
    if crop is None:
        return 0, 0, width, height
    scale = crop * min(width / out[0], height / out[1])
    across = min(width, max(1.0, scale * out[0]))
    down = min(height, max(1.0, scale * out[1]))
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, min(width, left + across), min(height, top + down)


def _orientation(im: ImageFile) -> int:
    try:
        orientation = im.getexif().get(ExifTags.Base.Orientation)
        return int(orientation) if orientation in _TURN else 1
    except PictureError:
        raise
    except Exception:  # Broken EXIF has as many shapes, and says nothing of the pixels.
        return 1


def _upright(im: Image.Image, orientation: int) -> Image.Image:
    return im.transpose(_TURN[orientation]) if orientation in _TURN else im


def _failure(error: Exception, data: bytes, format_: str) -> PictureError:
    text = _clean(error)
    ended = isinstance(error, _END_OF_DATA) or isinstance(error.__cause__, _END_OF_DATA)
    if ended or _CUT_SHORT.search(text) or _ends_early(data, format_):
        return PictureError("Truncated", f"{format_} ends before its picture does: fetch it again")
    return PictureError("Undecodable", f"{format_} cannot be decoded: {text}")


def _ends_early(data: bytes, format_: str) -> bool:
    """Whether the header says that the file is longer; some decoders only report damage."""
    if format_ == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if format_ == "TIFF" and data[2:3] != b"+" and data[3:4] != b"+":
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") >= len(data)
    return False


def _clean(error: Exception) -> str:
    """One line without memory addresses, so that equal failures read equal.

    What Pillow quotes of the file is cut off: any file may begin as a PPM, one with passwords too.
    """
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "file", str(error))
    text = re.sub(r"(?is)((?:token|literal|could not convert)[^:]*): .*", r"\1", text)
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}".rstrip(": ")
