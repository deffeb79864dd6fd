"""Decodes the bytes of one image to RGB pixels by fixed rules, or raises one typed reject.

A change of a row of this table needs a new `recipe.DECODE_VERSION`. A change of which images are
accepted needs a higher version in `rules.RULES`.

| in the file                      | result                                                    |
|----------------------------------|-----------------------------------------------------------|
| EXIF or XMP orientation          | applied; width and height are those after it. An          |
|                                  | unreadable one is ignored                                 |
| greyscale, 1-bit                 | three equal channels, black 0, white 255                  |
| palette                          | its colours                                               |
| alpha, transparent colour        | composited over white, the paper that cut-out images are  |
|                                  | drawn for; dropping alpha would show hidden colours       |
| CMYK, YCCK                       | Pillow's plain inversion (JPEG: Adobe's inverted inks)    |
| YCbCr, LAB                       | converted to sRGB by Pillow                               |
| 16-bit grey (PNG, TIFF, PGM)     | value / 257, rounded: 0 -> 0, 65535 -> 255; a transparent |
|                                  | colour is ignored. 12-bit TIFF likewise, 4095 -> 255      |
| 32-bit integer grey (TIFF)       | as 16-bit; values outside 0..65535 are clipped            |
| 16-bit colour                    | the high byte of each channel                             |
| float grey (TIFF, PFM)           | no value above 1: times 255, else as it is; then rounded  |
|                                  | and clipped to 0..255; NaN is 0                           |
| animated GIF, WebP, APNG, AVIF;  | the first frame or page (an APNG with a separate still    |
| several pages, MPO               | image: that one). Of HEIC the primary image               |
| AVIF and HEIC that are turned or | turned as the container says. EXIF and XMP do not count,  |
| mirrored                         | as in browsers. HEIC is also cut as it says               |
| 10 and 12 bits (AVIF, HEIC)      | made 8 bits by libavif and libheif, grey as 16-bit grey   |
| fewer than 8 bits (JPEG 2000)    | white is 255                                              |
| embedded colour profile, gamma   | ignored                                                   |

A JPEG is decoded at 1/2, 1/4 or 1/8 of its size (DCT scaling) if the used part stays at least
twice as large as the target. One antialiased resize does the rest. Only SOF0, 1, 2, 9 and 10 are
decoded scaled, others whole. Threads share no state, and no result depends on their number.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
import struct
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image
from PIL.GifImagePlugin import GifImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from beam_flowers.errors import ImageError
from beam_flowers.images.bmp import open_bmp
from beam_flowers.images.bounded_file import FEED_BYTES, BoundedFile
from beam_flowers.images.fax import check_fax
from beam_flowers.images.formats import FORMATS, NOT_HERE, sniff, sniff_other
from beam_flowers.images.heif import boxes_end_early, cure, open_avif, open_heic
from beam_flowers.images.jpeg import (
    Jpeg,
    bytes_to_feed,
    can_be_scaled,
    coefficients,
    has_end,
    missing_share,
    opened_to_compare,
    with_end,
)
from beam_flowers.images.jpeg2000 import open_jpeg2000, stream_ends_early, stretched
from beam_flowers.images.memory import declared, needed_by, needed_to_compare, needed_to_resize
from beam_flowers.images.memory_gate import gate
from beam_flowers.images.png import without_damaged_texts
from beam_flowers.images.recipe import DEFAULT_LIMITS, LARGEST_SIDE, Limits, PixelRecipe
from beam_flowers.images.tiff import Tiff
from beam_flowers.records import NOT_AN_IMAGE, READ, DecodedImage

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.ImageFile import ImageFile

# Pillow's warnings name no file and would only fill the screen; serious ones are errors here.
# `catch_warnings` around each image would not be safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


# `Image.open` is not used: it warns of big images before their size can be read, hides the cause
# of a failure, and may refuse a JPEG for a broken MPO index.
_OPEN: dict[str, Callable[[io.BytesIO], ImageFile]] = {
    "JPEG": Jpeg,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "TIFF": Tiff,
    "PPM": PpmImageFile,
    "AVIF": open_avif,
    "HEIC": open_heic,
    "JPEG2000": open_jpeg2000,
}

_BOUNDED = ("AVIF", "HEIC", "JPEG2000")
"""Formats with a second header in their data, which may claim a larger image than the first. So
their memory is not only estimated but also limited."""
_OPENING_BYTES = 2**24

_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that makes an image upright, by orientation (EXIF 2.32, tag 0x0112)."""

_CUT_SHORT = re.compile(r"truncat|not enough|only got|end of|EOF|no more", re.IGNORECASE)

_END_OF_DATA = (EOFError, IndexError, struct.error)
"""Errors of header parsers at the end of a file; Pillow wraps them in a SyntaxError."""


def decode(data: bytes, recipe: PixelRecipe, limits: Limits = DEFAULT_LIMITS) -> DecodedImage:
    """Decodes one image.

    Args:
        data: the whole file; the content decides its format.
        recipe: size, crop and filter.
        limits: bounds of bytes, pixels and time.

    Raises:
        ImageError: always with one of these classes. `NotAnImage`: not an image.
            `EmptyFile`. `UnsupportedFormat`: an image in a format outside `FORMATS`, or in one
            that needs another package. `TooLarge`: in bytes. `TooManyPixels`. `TooMuchMemory`:
            decoding would take more than half of this process' memory. `Timeout`. `Truncated`:
            the file ends too early. `Undecodable`: damaged, or a variant of the format that Pillow
            lacks. `Killed`, of stage `read`: memory ran out.
    """
    return _guarded(data, limits, recipe, whole=False)


def decode_whole(data: bytes, recipe: PixelRecipe, limits: Limits = DEFAULT_LIMITS) -> DecodedImage:
    """Decodes one image including the parts outside the crop of `recipe`.

    Args:
        data: the whole file.
        recipe: if its crop is larger than its target size, the whole image is scaled down until
            the crop has that size. No image is enlarged.
        limits: bounds of bytes, pixels and time.

    Raises:
        ImageError: with the classes of `decode`.
    """
    return _guarded(data, limits, recipe, whole=True)


def _guarded(data: bytes, limits: Limits, recipe: PixelRecipe, *, whole: bool) -> DecodedImage:
    format_ = _admitted(data, limits)
    try:
        return _salvaged(data, format_, recipe, limits, whole=whole)
    except MemoryError as error:
        # The cause is this process, not the image: with more memory the image may decode.
        raise ImageError(
            "Killed",
            f"{format_}: memory ran out while it was decoded: run this again, with more memory "
            "or fewer workers",
            stage=READ,
        ) from error


def _salvaged(
    data: bytes, format_: str, recipe: PixelRecipe, limits: Limits, *, whole: bool
) -> DecodedImage:
    try:
        return _decode(data, format_, recipe, limits, whole=whole)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("TooManyPixels", _clean(error)) from error
    except Exception as error:  # Pillow raises nearly every class for damaged files.
        failure = _failure(error, data, format_)
        # Many programs omit the end of a JPEG, and browsers show the image.
        is_cut = format_ == "JPEG" and failure.error_class == "Truncated" and not has_end(data)
        missing = _missing_share(data, limits) if is_cut else 1.0
        if missing <= limits.salvage:
            image = _guarded(with_end(data), limits, recipe, whole=whole)
            about = f"JPEG, {missing:.1%} missing" if missing else "JPEG"
            return image._replace(format=about)
        if missing < 1:
            failure = ImageError(
                "Truncated",
                f"JPEG ends before its image does, {missing:.1%} of its rows are missing: fetch "
                "it again, or take it as it is by --salvage, with --retry-rejects",
            )
        raise failure from error


def _missing_share(data: bytes, limits: Limits) -> float:
    try:
        im, size = opened_to_compare(data, limits)
    except (ImageError, MemoryError):
        raise
    except Exception:  # The file ends in its header.
        return 1.0
    with gate().hold(needed_to_compare(im, data, size), _named("JPEG", *size)):
        return missing_share(data, limits)


def _admitted(data: bytes, limits: Limits) -> str:
    if not data:
        raise ImageError("EmptyFile", "file has no bytes: fetch or export it again")
    if format_ := sniff(data):
        if needed := cure(format_):
            raise ImageError("UnsupportedFormat", f"{format_} {NOT_HERE}: {needed}")
        if len(data) > limits.max_bytes:
            raise ImageError(
                "TooLarge",
                f"{format_} of {len(data):,} bytes is above the limit of "
                f"{limits.max_bytes:,}: raise it by --max-bytes, with --retry-rejects",
            )
        return format_
    if other := sniff_other(data):
        raise ImageError(
            "UnsupportedFormat",
            f"{other} is not read: convert it to JPEG or PNG ({', '.join(FORMATS)} are read)",
        )
    raise ImageError(NOT_AN_IMAGE, "not an image: it begins as no format of images does")


def _decode(
    data: bytes, format_: str, recipe: PixelRecipe, limits: Limits, *, whole: bool
) -> DecodedImage:
    header = declared(data, format_)
    if header:
        _check_size(header.width, header.height, limits=limits)
    elif format_ == "GIF":
        _check_size(*struct.unpack_from("<HH", data, 6), limits=limits)
    with contextlib.ExitStack() as held:
        if header:
            title = _named(format_, header.width, header.height)
            needed = header.needed + needed_to_resize(recipe, header.width, header.height)
            held.enter_context(gate().hold(needed, title))
        with contextlib.ExitStack() as bound:
            if format_ in _BOUNDED:
                bound.enter_context(gate().bounded(_OPENING_BYTES, format_))
            im = _opened(data, format_, limits)
        width, height = im.size
        # From a whole image the caller cuts its pixels later and reduces them again.
        extent = _draft(im, data, recipe, spare=1 if whole else 2)
        decoded = im.size if extent and not coefficients(data) else (width, height)
        _check_size(*decoded, limits=limits)
        if not header:
            title = _named(format_, width, height)
            needed = needed_by(im, data, (width, height)) + needed_to_resize(recipe, *im.size)
            held.enter_context(gate().hold(needed, title))
        if isinstance(im, TiffImageFile):
            check_fax(im, data)
        if format_ in _BOUNDED:
            held.enter_context(gate().bounded(needed, title))
        im.load()
        if extent is None:
            # Pillow turns a TIFF upright while it loads it, so the size is known only now.
            extent = width, height = im.size
        orientation = _orientation(im)
        turned = orientation >= 5
        out = (recipe.height, recipe.width) if turned else (recipe.width, recipe.height)
        box = crop_box(extent, out, recipe)
        if whole:
            out, box = _around(box, out, extent), (0, 0, *extent)
        elif all_of_it := resized((width, height), recipe):
            out, box = all_of_it, (0, 0, *extent)
        levelled = stretched(im, data) if format_ == "JPEG2000" else im
        small = plain(levelled).resize(out, Image.Resampling[recipe.resample.upper()], box)
        upright = over_white(_upright(small, orientation))
        pixels = np.array(upright if whole else _middle(upright, recipe))
    return DecodedImage(pixels, *((height, width) if turned else (width, height)), format_)


def _opened(data: bytes, format_: str, limits: Limits) -> ImageFile:
    file = BoundedFile(data, limits)
    if format_ == "PNG":
        if (sound := without_damaged_texts(file)) is not None:
            file = BoundedFile(sound, limits)
        file.seek(0)
    if format_ == "BMP":
        im: ImageFile = open_bmp(file, functools.partial(_check_size, limits=limits))
    else:
        im = _OPEN[format_](file)
    im.decodermaxblock = bytes_to_feed(data) if format_ == "JPEG" else FEED_BYTES
    return im


def _named(format_: str, width: int, height: int) -> str:
    return f"{format_} of {width} x {height} pixels"


def _check_size(width: int, height: int, *, limits: Limits) -> None:
    """Checks the size at which an image is decoded."""
    if max(width, height) > LARGEST_SIDE:
        raise ImageError(
            "TooManyPixels",
            f"{width} x {height} has a side of more than {LARGEST_SIDE:,} pixels: scale it down",
        )
    if width * height > limits.max_pixels:
        raise ImageError(
            "TooManyPixels",
            f"{width} x {height} is {width * height:,} pixels, above the limit of "
            f"{limits.max_pixels:,}: scale it down, or raise the limit by --max-pixels, "
            "with --retry-rejects",
        )


def _draft(
    im: ImageFile, data: bytes, recipe: PixelRecipe, *, spare: int
) -> tuple[float, float] | None:
    """Sets a JPEG to be decoded at a fraction of its size, at least `spare` times the target.

    Returns:
        Width and height of the image in decoded pixels, fractions included (the decoder pads the
        last column and row); None for images that are not decoded scaled.
    """
    if not isinstance(im, Jpeg) or not can_be_scaled(data):
        return None
    width, height = im.size
    out = (recipe.width, recipe.height)
    if _orientation(im) >= 5:
        out = out[::-1]
    left, top, right, bottom = crop_box(im.size, out, recipe)
    most = min((right - left) / (spare * out[0]), (bottom - top) / (spare * out[1]))
    scale = next((s for s in (8, 4, 2) if s <= most), 1)
    im.draft("RGB", (width // scale, height // scale))
    return width / scale, height / scale


def _around(
    box: tuple[float, float, float, float], out: tuple[int, int], extent: tuple[float, float]
) -> tuple[int, int]:
    """Returns the size of the whole image after `box`, if larger than `out`, is scaled to `out`."""
    shrink = (min(1.0, out[0] / (box[2] - box[0])), min(1.0, out[1] / (box[3] - box[1])))
    return max(1, round(extent[0] * shrink[0])), max(1, round(extent[1] * shrink[1]))


def crop_box(
    extent: tuple[float, float], out: tuple[int, int], recipe: PixelRecipe
) -> tuple[float, float, float, float]:
    """Returns left, top, right, bottom of the crop, at least one pixel wide and high.

    Args:
        extent: width and height of the image.
        out: width and height of the target: those of `recipe`, in the image's orientation.
        recipe: crop, or the size to which the shorter side is scaled.
    """
    width, height = extent
    if recipe.resize is not None:
        scale = min(width, height) / recipe.resize
    elif recipe.crop is not None:
        scale = recipe.crop * min(width / out[0], height / out[1])
    else:
        return 0, 0, width, height
    across = min(width, max(1.0, scale * out[0]))
    down = min(height, max(1.0, scale * out[1]))
    left, top = (width - across) / 2, (height - down) / 2
    return left, top, min(width, left + across), min(height, top + down)


def resized(size: tuple[int, int], recipe: PixelRecipe) -> tuple[int, int] | None:
    """Returns width and height of a whole image that is scaled by `recipe.resize`.

    The longer side is rounded down, as by torchvision and Hugging Face. Returns None without that
    step, and for an image so narrow that all of it would cost much memory: of that the same box
    is scaled alone, whose edges lie between pixels.
    """
    short, long = min(size), max(size)
    if recipe.resize is None or long > _NARROW * short:
        return None
    scaled = recipe.resize * long // short
    return (recipe.resize, scaled) if size[0] <= size[1] else (scaled, recipe.resize)


_NARROW = 8


def _middle(image: Image.Image, recipe: PixelRecipe) -> Image.Image:
    """Cuts height x width out of the middle, rounded as Hugging Face's `center_crop`."""
    left, top = (image.width - recipe.width) // 2, (image.height - recipe.height) // 2
    return image.crop((left, top, left + recipe.width, top + recipe.height))


def _orientation(im: ImageFile) -> int:
    try:
        orientation = im.getexif().get(ExifTags.Base.Orientation)
        return int(orientation) if orientation in _TURN else 1
    except (ImageError, MemoryError):
        raise
    except Exception:  # Broken EXIF raises many classes too, and does not concern the pixels.
        return 1


def _upright(im: Image.Image, orientation: int) -> Image.Image:
    return im.transpose(_TURN[orientation]) if orientation in _TURN else im


def _failure(error: Exception, data: bytes, format_: str) -> ImageError:
    text = _clean(error)
    ended = isinstance(error, _END_OF_DATA) or isinstance(error.__cause__, _END_OF_DATA)
    if ended or _CUT_SHORT.search(text) or _ends_early(data, format_):
        return ImageError("Truncated", f"{format_} ends before its image does: fetch it again")
    return ImageError("Undecodable", f"{format_} cannot be decoded: {text}")


def _ends_early(data: bytes, format_: str) -> bool:
    """Tells if the header claims a longer file; some decoders only report damage."""
    if format_ in ("AVIF", "HEIC"):
        return boxes_end_early(data)
    if format_ == "JPEG2000":
        return stream_ends_early(data)
    if format_ == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if format_ == "TIFF" and data[2:3] != b"+" and data[3:4] != b"+":
        return int.from_bytes(data[4:8], "little" if data[:1] == b"I" else "big") >= len(data)
    return False


def _clean(error: Exception) -> str:
    """Returns an error as one line without memory addresses, so that equal failures read equal.

    Quotes from the file are cut off: any file may begin as a PPM, even one with passwords.
    """
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "file", str(error))
    text = re.sub(r"(?is)((?:token|literal|could not convert)[^:]*): .*", r"\1", text)
    return f"{type(error).__name__}: {' '.join(text.split())[:200]}".rstrip(": ")


def plain(im: Image.Image) -> Image.Image:
    """Converts an image to a mode that can be resized: L, LA, RGB or RGBA."""
    if im.mode == "F" or im.mode.startswith("I"):
        return _eight_bit(im)
    if im.mode in ("LA", "RGBA"):
        return im
    if im.has_transparency_data:
        return im.convert("RGBA")
    if im.mode in ("1", "L"):
        return im.convert("L")
    return im if im.mode == "RGB" else im.convert("RGB")


def _eight_bit(im: Image.Image) -> Image.Image:
    """Scales greys of more than 8 bits; Pillow's own conversion would clip them at 255."""
    values: Any = np.array(im, np.float32)
    np.nan_to_num(values, copy=False)
    if im.mode == "F":
        white = 1 if values.max() <= 1 else 255
    else:
        tags = im.tag_v2 if isinstance(im, TiffImageFile) else {}
        white = 4095 if tags.get(ExifTags.Base.BitsPerSample, (16,))[0] == 12 else 65535
    np.clip(values, 0, white, out=values)
    values *= 255 / white
    np.rint(values, out=values)
    return Image.fromarray(values.astype(np.uint8))


def over_white(im: Image.Image) -> Image.Image:
    """Composites an image from `plain` over white, as RGB.

    The resize comes first and weighs colours by their alpha: the result equals compositing first,
    at a fraction of the memory.
    """
    if im.mode not in ("LA", "RGBA"):
        return im.convert("RGB")
    paper = Image.new("RGB", im.size, "white")
    paper.paste(im.convert("RGB"), mask=im.getchannel("A"))
    return paper
