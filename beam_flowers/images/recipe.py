"""Holds crop, size and filter of the pixels for a backbone, and the limits of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from beam_flowers.errors import InputError

DECODE_VERSION = "pillow-draft-1"
"""Name of the rules in `decode.py`. Change it whenever the pixels of any image could change: it is
part of every backbone's fingerprint, so that stored embeddings are computed again."""

Resample = Literal["bilinear", "bicubic", "lanczos"]

PILLOW_LARGEST_PIXELS = 178_956_970
"""Pixels above which Pillow refuses (`DecompressionBombError`, twice `MAX_IMAGE_PIXELS`)."""

LARGEST_SIDE = 65_535
"""Pixels of the largest width or height, however narrow the image is."""


@dataclass(frozen=True)
class PixelRecipe:
    """Holds crop, target size and filter of an image.

    Attributes:
        height: pixels that the backbone takes down.
        width: pixels that the backbone takes across.
        crop: None squashes the whole image to height x width and ignores its aspect. A
            fraction in (0, 1] keeps the aspect: the crop is the central box of the backbone's
            aspect, this fraction of the largest that fits. For a square backbone that is a
            square of `crop` times the image's shorter side.
        resample: Pillow's antialiasing filter.
        resize: pixels to which the shorter side is scaled before height x width are cut out of
            the middle: the order of torchvision and of Hugging Face's processors. None without
            such a step. `decode.resized` has its rounding.
    """

    height: int
    width: int
    crop: float | None = None
    resample: Resample = "bicubic"
    resize: int | None = None

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(
                f"pixel size {self.height!r} x {self.width!r} is not possible: "
                "height and width are at least 1"
            )
        if self.crop is not None and not 0 < self.crop <= 1:
            raise InputError(
                f"crop {self.crop!r} is not possible: give a fraction above 0 and at most 1 of "
                "the shorter side, or None to squash the whole image"
            )
        if self.resample not in get_args(Resample):
            raise InputError(
                f"resample {self.resample!r} is unknown: use one of {', '.join(get_args(Resample))}"
            )
        if self.resize is None:
            return
        if self.crop is not None:
            raise InputError(
                f"crop {self.crop!r} and resize {self.resize!r} exclude each other: the box is cut "
                "either before or after the image is scaled"
            )
        if self.resize < max(self.height, self.width):
            raise InputError(
                f"resize {self.resize!r} is not possible: no {self.height} x {self.width} pixels "
                "can be cut out of an image whose shorter side has fewer"
            )

    def as_dict(self) -> dict[str, int | float | str | None]:
        """Returns plain values with the version of the rules, for a fingerprint."""
        fit = "squash" if self.crop is None else "center-crop"
        # Absent without it, so that older stores keep their fingerprint.
        later = {} if self.resize is None else {"resize": self.resize}
        return {
            "decode": DECODE_VERSION,
            "height": self.height,
            "width": self.width,
            "fit": "resize-then-crop" if self.resize else fit,
            "crop": self.crop,
            "resample": self.resample,
            **later,
        }


@dataclass(frozen=True)
class Limits:
    """Holds the limits of one image; an image above any of them is a reject.

    Attributes:
        max_bytes: bytes of the file. A worker holds the whole file in memory.
        max_pixels: width times height of the decoded image. The header declares it, but a plain
            JPEG may be decoded at a fraction: one of 200 megapixels takes some 60 MiB. The
            default accepts 102-megapixel cameras in every format. `memory_gate.Gate` bounds
            the memory of an image apart from this.
        seconds: CPU time of the decoding thread, so that a busy machine rejects no more than an
            idle one. It is checked when the decoder reads more of the file: that covers headers
            and pixels of JPEG, PNG, GIF, BMP, PPM and uncompressed TIFF. A WebP,
            compressed TIFF or JPEG with arithmetic coding is decoded in one call of C, which
            commands stop after six times as much.
        salvage: share of the rows of a JPEG that may be missing at its end. `DecodedImage.format`
            has the missing share. libjpeg shows these rows as grey.
    """

    max_bytes: int = 256 * 2**20
    max_pixels: int = 120_000_000
    seconds: float = 10.0
    salvage: float = 0.0

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or not self.seconds > 0:
            raise InputError(
                f"limits of {self.max_bytes!r} bytes and {self.seconds!r} seconds an image "
                "let nothing through: both must be positive"
            )
        if not 0 <= self.salvage < 1:
            raise InputError(f"salvage is a share from 0 to below 1, not {self.salvage!r}")
        if not 1 <= self.max_pixels <= PILLOW_LARGEST_PIXELS:
            raise InputError(
                f"max_pixels {self.max_pixels!r} is not possible: Pillow takes "
                f"1 to {PILLOW_LARGEST_PIXELS:,} pixels"
            )


DEFAULT_LIMITS = Limits()
