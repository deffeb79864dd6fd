"""Opens BMP files, including valid forms that Pillow does not read."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL.BmpImagePlugin import BmpImageFile

from beam_flowers.errors import ImageError

_RAW, _RLE4, _BIT_FIELDS, _ALPHA_BIT_FIELDS = 0, 2, 3, 6
_PIXELS_AT_ONCE = 2**20


def open_bmp(file: io.BytesIO, check_size: Callable[[int, int], None]) -> BmpImageFile:
    """Opens a BMP by Pillow; rewrites valid forms that Pillow refuses to a common one first.

    Args:
        file: the BMP, at its beginning.
        check_size: called with width and height before much memory is used.

    Raises:
        ImageError: `UnsupportedFormat` for 4-bit RLE, which Pillow decodes to garbage.
    """
    try:
        im = BmpImageFile(file)
    except OSError:
        common = _common_form(file.getvalue(), check_size)
        if common is None:
            raise
        return BmpImageFile(io.BytesIO(common))
    if im.info["compression"] == _RLE4:
        raise ImageError(
            "UnsupportedFormat", "BMP with 4-bit RLE is not read: convert it to JPEG or PNG"
        )
    return im


def _common_form(data: bytes, check_size: Callable[[int, int], None]) -> bytes | None:
    """Rewrites an image to 8-bit indices, or 8 bits a colour and alpha; None if it cannot."""
    offset, header = struct.unpack_from("<II", data, 10)
    if header < 16:
        return None
    # Fields that a header of 16 bytes lacks are zero.
    about = (data[14 : 14 + header]).ljust(40, b"\0")
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", about, 4)
    if width < 1 or height == 0:
        return None
    check_size(width, abs(height))
    stride = (width * bits + 31) // 32 * 4
    if offset + stride * abs(height) > len(data):
        raise OSError("image file is truncated")
    lines = np.frombuffer(data, np.uint8, stride * abs(height), offset).reshape(-1, stride)
    if compression == _RAW and bits in (1, 2, 4, 8) and (header == 16 or bits == 2):
        palette = data[14 + header :][: 4 * (struct.unpack_from("<I", about, 32)[0] or 2**bits)]
        return _file(about, 8, _indices(lines, bits, width), palette.ljust(1024, b"\0")[:1024])
    if compression == _RAW and header == 16 and bits in (16, 24, 32):
        return _file(about, bits, lines)
    if compression not in (_BIT_FIELDS, _ALPHA_BIT_FIELDS) or bits not in (16, 32):
        return None
    has_alpha = compression == _ALPHA_BIT_FIELDS or header >= 56
    masks = struct.unpack_from("<4I" if has_alpha else "<3I", data, 54)
    if any(_levels(mask) & (_levels(mask) + 1) for mask in masks):
        return None  # The bits of a colour must be adjacent.
    return _file(about, 32, _colours(lines, bits, width, masks), has_alpha=bool(masks[3:] > (0,)))


def _file(
    about: bytes,
    bits: int,
    lines: npt.NDArray[np.uint8],
    palette: bytes = b"",
    *,
    has_alpha: bool = False,
) -> bytes:
    """Returns a BMP with a header of 40 bytes, or 108 with masks; `about` gives its size."""
    size = 108 if has_alpha else 40
    compression = _BIT_FIELDS if has_alpha else _RAW
    header = struct.pack("<I8sHHIIII", size, about[4:12], 1, bits, compression, 0, 0, 0)
    header += struct.pack("<II", len(palette) // 4, 0)
    if has_alpha:
        header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    offset = 14 + size + len(palette)
    start = struct.pack("<2sIII", b"BM", offset + lines.size, 0, offset)
    return b"".join([start, header.ljust(size, b"\0"), palette, lines.tobytes()])


def _levels(mask: int) -> int:
    """Returns the largest value of a mask: 31 for 5 bits."""
    return mask // (mask & -mask) if mask else 0


def _indices(lines: npt.NDArray[np.uint8], bits: int, width: int) -> npt.NDArray[np.uint8]:
    """Unpacks to one byte a pixel, rows padded to four bytes: uint8 [H, S]."""
    each = 8 // bits
    out = np.zeros((len(lines), lines.shape[1] * each), np.uint8)
    for n in range(each):
        out[:, n::each] = lines >> (8 - bits * (n + 1)) & (2**bits - 1)
    return out[:, : (width + 3) // 4 * 4]


def _colours(
    lines: npt.NDArray[np.uint8], bits: int, width: int, masks: Sequence[int]
) -> npt.NDArray[np.uint8]:
    """Scales blue, green, red and alpha of each pixel to 8 bits: uint8 [H, 4 W]."""
    out = np.zeros((len(lines), width, 4), np.uint8)
    step = max(1, _PIXELS_AT_ONCE // width)
    for at in range(0, len(lines), step):
        numbers = lines[at : at + step, : width * bits // 8].copy().view(f"<u{bits // 8}")
        for mask, channel in zip(masks, (2, 1, 0, 3), strict=False):
            if most := _levels(mask):
                level = (numbers & np.array(mask, numbers.dtype)).astype(np.float64)
                out[at : at + step, :, channel] = np.rint(level * (255 / most / (mask & -mask)))
    return out.reshape(len(lines), -1)
