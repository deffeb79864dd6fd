"""Converts Pillow's pixel modes to RGB, by the table in `decode.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile


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
        white = 4095 if _bits(im) == 12 else 65535
    np.clip(values, 0, white, out=values)
    values *= 255 / white
    np.rint(values, out=values)
    return Image.fromarray(values.astype(np.uint8))


def _bits(im: Image.Image) -> int:
    tags = im.tag_v2 if isinstance(im, TiffImageFile) else {}
    return int(tags.get(ExifTags.Base.BitsPerSample, (16,))[0])


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
