"""Reads the facts about one file that need no backbone."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from PIL import ExifTags
from PIL import Image as PillowImage

from beam_flowers.backbones.compute import read_content
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.errors import ImageError
from beam_flowers.images.recipe import Limits, PixelRecipe
from beam_flowers.records import DecodedImage, Image, Reject

_RECIPE = PixelRecipe(64, 64, None, "bilinear")
"""Enough for a perceptual hash, which looks at 32 x 32 pixels."""

_ONE_COLOUR = 4
"""Of 255 by how much the pixels of an image of one colour differ: what JPEG makes of it."""


class Facts(NamedTuple):
    """Facts about one file.

    Attributes:
        image: the file.
        sha256: hex digest of its bytes; None where they cannot be read.
        error_class: why it is no usable image; None if it is one.
        message: likewise, one line.
        format: as in `DecodedImage`; empty for an unusable file.
        width: of the image upright, in pixels; 0 for an unusable file.
        height: likewise.
        traits: of `rotated` (by EXIF), `cmyk`, `alpha`, `16-bit`, `animated`.
        look: 64-bit perceptual hash (DCT); None without the package imagehash, and of an image
            of one colour, which has nothing to compare.
        blank: whether it is of one colour.
    """

    image: Image
    sha256: str | None
    error_class: str | None = None
    message: str = ""
    format: str = ""
    width: int = 0
    height: int = 0
    traits: tuple[str, ...] = ()
    look: int | None = None
    blank: bool = False


def examine(image: Image, limits: Limits) -> Facts:
    """Reads and decodes a file once."""
    content = read_content(image, limits)
    if isinstance(content, Reject):
        return Facts(image, None, content.error_class, content.message)
    image, data, sha = content
    try:
        decoded = decode_apart(data, _RECIPE, limits)
    except ImageError as error:
        return Facts(image, sha, error.error_class, error.message)
    size = (decoded.format, decoded.width, decoded.height)
    traits = _traits(data, decoded.format)
    blank = int(np.ptp(decoded.pixels, axis=(0, 1)).max()) <= _ONE_COLOUR
    return Facts(image, sha, None, "", *size, traits, None if blank else _look(decoded), blank)


def looks_are_known() -> bool:
    """Tells if the package that computes perceptual hashes is installed."""
    return find_spec("imagehash") is not None


def _look(decoded: DecodedImage) -> int | None:
    if not looks_are_known():
        return None
    import imagehash

    bits = imagehash.phash(PillowImage.fromarray(decoded.pixels)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _traits(data: bytes, format_: str) -> tuple[str, ...]:
    """Returns the traits that the header tells; the rest is left out."""
    if format_ in ("AVIF", "HEIC", "JPEG2000"):
        return ()  # Their headers are read by libraries of C, which decoder processes are for.
    try:
        with PillowImage.open(io.BytesIO(data), formats=[format_, "MPO"]) as im:
            found = {
                "rotated": im.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9),
                "cmyk": im.mode == "CMYK",
                "alpha": im.has_transparency_data,
                "16-bit": im.mode.startswith("I") or "16" in str([t[3] for t in im.tile[:1]]),
                "animated": format_ != "JPEG" and getattr(im, "n_frames", 1) > 1,
            }
    except Exception:  # Pillow's own ways to open are stricter than ours; nothing hangs on it.
        return ()
    return tuple(name for name, holds in found.items() if holds)
