"""Opens AVIF and HEIC files, and tells what of a format is missing here."""

from __future__ import annotations

import io
import re
import struct
from functools import lru_cache

from PIL import AvifImagePlugin, features
from PIL.ImageFile import ImageFile

from beam_flowers.errors import PictureError

# One picture at a time is decoded by each process, and there are as many of them as cores. Both
# libraries know this only as a setting of all; the pixels are the same with any number.
_THREADS = 1
AvifImagePlugin.DEFAULT_MAX_THREADS = _THREADS

_CONFIGURATION = re.compile(rb"av1C..(.)|hvcC.{16}(.{3})", re.DOTALL)
"""What AV1 and HEVC say of chroma and depth."""
_HEAD_BYTES, _MOST_BOXES = 2**18, 1_000


@lru_cache(maxsize=1)
def _heif() -> type[ImageFile] | None:
    """Returns Pillow's class of HEIC files, None where the extra `heic` is not installed."""
    try:
        # At the top it would be loaded by every process that decodes, and most need it never.
        import pillow_heif
    except ImportError:
        return None
    pillow_heif.options.DECODE_THREADS = _THREADS
    return pillow_heif.HeifImageFile


def cure(format_: str) -> str:
    """Returns what has to be installed before this format can be read, empty if nothing."""
    if format_ == "HEIC" and not _heif():
        return "pip install 'beam-flowers[heic]'"
    feature = {"AVIF": "avif", "JPEG2000": "jpg_2000"}.get(format_)
    if feature and not features.check(feature):
        return "this Pillow was built without it, take the one of PyPI: pip install pillow"
    return ""


def open_avif(file: io.BytesIO) -> ImageFile:
    """Opens an AVIF by Pillow.

    The turn that the container asks for is its EXIF orientation then, whatever EXIF or XMP say of
    their own: by the standard (ISO 23000-22) the container alone counts, as in browsers.
    """
    im = AvifImagePlugin.AvifImageFile(file)
    im.info.pop("xmp", None)
    return im


def open_heic(file: io.BytesIO) -> ImageFile:
    """Opens a HEIC by libheif, which turns its primary picture upright itself.

    Raises:
        PictureError: `Undecodable`, only other pictures of the file can be read.
    """
    heif = _heif()
    assert heif
    im = heif(file)
    if not im.info.get("primary"):
        raise PictureError("Undecodable", "HEIC cannot be decoded: its primary picture is broken")
    for name in ("exif", "xmp"):
        im.info.pop(name, None)
    return im


def plane_bytes(data: bytes, *, has_alpha: bool) -> float:
    """Returns the bytes of a pixel as it is coded, by depth and chroma.

    Files that do not say it at their beginning, as those of all libraries do, count in full.
    """
    found = 0.0
    for av1, hevc in _CONFIGURATION.findall(data, 0, _HEAD_BYTES):
        if av1:
            is_deep, is_grey = av1[0] & 0x40, av1[0] & 0x10
            # Whether chroma has half the columns, and half the rows.
            samples = 1.0 if is_grey else (3.0, 2.0, 2.0, 1.5)[av1[0] >> 2 & 3]
        else:
            is_deep = (hevc[1] | hevc[2]) & 7
            samples = (1.0, 1.5, 2.0, 3.0)[hevc[0] & 3]
        found = max(found, (samples + has_alpha) * (2 if is_deep else 1))
    return found or 8.0


def boxes_end_early(data: bytes) -> bool:
    """Tells if a box of the file is longer than what is there of it."""
    at = 0
    for _ in range(_MOST_BOXES):
        if at == len(data):
            return False
        try:
            (size,) = struct.unpack_from(">I", data, at)
            if size == 1:
                (size,) = struct.unpack_from(">Q", data, at + 8)
        except struct.error:
            return True
        if size < 8:  # 0 is up to the end of the file, others are damage.
            return False
        at += size
    return False
