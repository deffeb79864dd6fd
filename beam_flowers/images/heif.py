"""Opens AVIF and HEIC files, and names the package that a format lacks."""

from __future__ import annotations

import io
import re
import struct
from functools import lru_cache

from PIL import AvifImagePlugin, features
from PIL.ImageFile import ImageFile

from beam_flowers.errors import ImageError

# Each process decodes one image at a time, and as many processes run as cores. Both libraries have
# only a global setting for it; the pixels are the same with any number.
_THREADS = 1
AvifImagePlugin.DEFAULT_MAX_THREADS = _THREADS

_CONFIGURATION = re.compile(rb"av1C..(.)|hvcC.{16}(.{3})", re.DOTALL)
"""Fields of chroma and depth in AV1 and HEVC."""
_HEAD_BYTES, _MOST_BOXES = 2**18, 1_000


@lru_cache(maxsize=1)
def _heif() -> type[ImageFile] | None:
    """Returns Pillow's class of HEIC files; None without the extra `heic`."""
    try:
        # Imported late: most decoder processes never need it.
        import pillow_heif
    except ImportError:
        return None
    pillow_heif.options.DECODE_THREADS = _THREADS
    return pillow_heif.HeifImageFile


def cure(format_: str) -> str:
    """Returns what to install to read this format, empty if nothing."""
    if format_ == "HEIC" and not _heif():
        return "pip install 'beam-flowers[heic]'"
    feature = {"AVIF": "avif", "JPEG2000": "jpg_2000"}.get(format_)
    if feature and not features.check(feature):
        return "this Pillow was built without it, take the one of PyPI: pip install pillow"
    return ""


def open_avif(file: io.BytesIO) -> ImageFile:
    """Opens an AVIF by Pillow.

    Pillow reports the container's rotation as the EXIF orientation. EXIF and XMP of the file do not
    count: by the standard (ISO 23000-22) and in browsers only the container does.
    """
    im = AvifImagePlugin.AvifImageFile(file)
    im.info.pop("xmp", None)
    return im


def open_heic(file: io.BytesIO) -> ImageFile:
    """Opens a HEIC by libheif, which turns the primary image upright.

    Raises:
        ImageError: `Undecodable` if the primary image cannot be read.
    """
    heif = _heif()
    assert heif
    im = heif(file)
    if not im.info.get("primary"):
        raise ImageError("Undecodable", "HEIC cannot be decoded: its primary image is broken")
    for name in ("exif", "xmp"):
        im.info.pop(name, None)
    return im


def plane_bytes(data: bytes, *, has_alpha: bool) -> float:
    """Returns the bytes of a coded pixel, by depth and chroma.

    Files without these fields at their beginning get the largest value; all libraries write them.
    """
    most = 0.0
    for av1, hevc in _CONFIGURATION.findall(data, 0, _HEAD_BYTES):
        if av1:
            is_deep, is_grey = av1[0] & 0x40, av1[0] & 0x10
            # Chroma may have half the columns, half the rows, or both.
            samples = 1.0 if is_grey else (3.0, 2.0, 2.0, 1.5)[av1[0] >> 2 & 3]
        else:
            is_deep = (hevc[1] | hevc[2]) & 7
            samples = (1.0, 1.5, 2.0, 3.0)[hevc[0] & 3]
        most = max(most, (samples + has_alpha) * (2 if is_deep else 1))
    return most or 8.0


def boxes_end_early(data: bytes) -> bool:
    """Tells if a box of the file ends behind the end of the file."""
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
        if size < 8:  # 0 means the rest of the file; others are damage.
            return False
        at += size
    return False
