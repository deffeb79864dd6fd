"""Makes thumbnails with the decoder that gives the backbone its pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import NamedTuple

from PIL import Image as Pillow

from beam_flowers import files
from beam_flowers.backbones.compute import pool, read_content
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.errors import ImageError
from beam_flowers.images.recipe import DEFAULT_LIMITS, PixelRecipe
from beam_flowers.records import Image, Reject

_QUALITY = 55
"""Quality of WebP: 3.5 KB for a photograph of 160 pixels."""


class Thumbnail(NamedTuple):
    """A thumbnail, or the reason why it cannot be made.

    Attributes:
        data: a WebP file; None if there is a problem.
        problem: one line for people, or None.
    """

    data: bytes | None
    problem: str | None

    @property
    def url(self) -> str | None:
        """The thumbnail as a `data:` address, which needs no other file."""
        if self.data is None:
            return None
        return "data:image/webp;base64," + base64.b64encode(self.data).decode()


def shrink(data: bytes, side: int) -> Pillow.Image:
    """Returns the whole image, upright, RGB, its longer side at most `side` pixels.

    Raises:
        ImageError: if it cannot be decoded.
    """
    # Only decoding tells the size. For 1 x 1 pixels a JPEG is decoded at an eighth: little cost.
    known = decode_apart(data, PixelRecipe(1, 1))
    scale = min(1.0, side / max(known.width, known.height))
    height, width = (max(1, round(length * scale)) for length in (known.height, known.width))
    return Pillow.fromarray(decode_apart(data, PixelRecipe(height, width)).pixels)


def read_thumbnail(
    uri: str, side: int, sha256: str | None = None, quality: int = _QUALITY
) -> Thumbnail:
    """Returns an image's thumbnail, or the problem of a missing, changed or broken file.

    Args:
        uri: of the image.
        side: pixels of its longer side.
        sha256: hex digest that the content must have; None for any.
        quality: of WebP, 0..100.
    """
    content = read_content(Image(uri, files.parent(uri), uri), DEFAULT_LIMITS)
    if isinstance(content, Reject):
        return Thumbnail(None, f"cannot be read: {content.message}")
    if sha256 not in (None, content[2]):
        return Thumbnail(None, "the file has changed since; run the commands on it again")
    try:
        file = io.BytesIO()
        shrink(content[1], side).save(file, "WEBP", quality=quality)
        return Thumbnail(file.getvalue(), None)
    except ImageError as error:
        return Thumbnail(None, str(error))


def read_thumbnails(sides: Mapping[str, int], sha256: Mapping[str, str]) -> dict[str, Thumbnail]:
    """Returns thumbnails of many images, made on the process' threads.

    Args:
        sides: pixels of the longer side by uri.
        sha256: digests by uri, as in `read_thumbnail`; uris may be missing.
    """

    def read(uri: str) -> Thumbnail:
        return read_thumbnail(uri, sides[uri], sha256.get(uri))

    return dict(zip(sides, pool().map(read, sides), strict=True))
