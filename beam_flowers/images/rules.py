"""Versions of the decoding rules, by which stored verdicts are told that need another look."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata

from beam_flowers.images.formats import FORMATS, NOT_HERE
from beam_flowers.records import NOT_AN_IMAGE

_OF_NO_FORMAT = (NOT_AN_IMAGE, "UnsupportedFormat", "EmptyFile")
_OF_A_FORMAT = (
    "TooLarge",
    "TooManyPixels",
    "TooMuchMemory",
    "Timeout",
    "Truncated",
    "Undecodable",
)

CRASHED = "Crashed"
"""Class of the rejects that end the process of their decoder. It has no version here: the message
names the decoders' versions, see `decoder_versions`."""

BY_INSTALLATION = frozenset({CRASHED, "UnsupportedFormat"})
"""Classes of which a reject may be none where other packages are installed, see `is_outdated`."""

_LIBRARIES = ("libjpeg_turbo", "jpg", "zlib", "libtiff", "webp", "jpg_2000", "avif")
"""By Pillow's names: what it decodes with, as far as it is built with them."""

RULES: dict[str, int] = {
    **dict.fromkeys((*FORMATS, *_OF_NO_FORMAT, *_OF_A_FORMAT), 1),
    # 2: JPEGs that lack nothing but the marker of their end are accepted. This and the next are
    # no rules of JPEG, so that no row of one is read again.
    "Truncated": 2,
    "TooManyPixels": 2,  # 2: of a JPEG those that are decoded count.
    "Undecodable": 2,  # 2: the size is looked at before other damage, in WebP and GIF too.
    "PPM": 2,  # 2: no side is above 65,535 pixels, as in PNG, TIFF and BMP.
    "BMP": 2,  # 2: 4-bit RLE is refused, all bit fields and short headers are accepted.
    # 2: BMPs with a header of 16 bytes are pictures, camera raw of Sigma is known by name, and
    # only the first 4 KiB tell the format. 3: AVIF, HEIC and JPEG 2000 are pictures.
    "NotAnImage": 3,
    "UnsupportedFormat": 3,
    # 2: fax pictures that lack rows are refused, and camera raw files. 3: more strips than 2**18.
    "TIFF": 3,
    "PNG": 2,  # 2: wrong checksums of pixels are refused, those of texts are accepted.
}
"""Version of the rule for each format and each class of reject. Raise that of a format where files
of it are accepted that were refused, or refused that were accepted, that of a class where only
files of that class are concerned: the next run reads what is stored of them again, and nothing
else. A picture that is accepted before and after must keep its pixels to the bit; where it does
not, change `recipe.DECODE_VERSION` instead."""


def changed_rules(recorded: Mapping[str, int]) -> frozenset[str]:
    """Formats and classes of which some verdict may be another one by now.

    Args:
        recorded: the versions that the verdicts were made by; one that is absent is 1.
    """
    return frozenset(name for name, now in RULES.items() if recorded.get(name, 1) != now)


def is_outdated(changed: frozenset[str], stage: str, error_class: str, message: str) -> bool:
    """Tells if a reject has to be looked at again.

    Args:
        changed: see `changed_rules`.
        stage: of the reject.
        error_class: likewise.
        message: likewise. Most begin with the format; those that do not may be of any.
    """
    if stage != "decode":
        return False
    if error_class == CRASHED and decoder_versions() not in message:
        return True
    if error_class in changed:
        return True
    format_ = message.partition(" ")[0]
    if error_class == "UnsupportedFormat" and format_ in FORMATS and NOT_HERE in message:
        # It loads Pillow, which few runs need that have nothing to do.
        from beam_flowers.images.heif import cure

        return not cure(format_)
    if error_class in _OF_NO_FORMAT:
        return False
    return format_ in changed if format_ in FORMATS else not changed.isdisjoint(FORMATS)


@lru_cache(maxsize=1)
def decoder_versions() -> str:
    """Names Pillow and the libraries that it decodes with, each with its version.

    Another one may decode what crashed this one.
    """
    # Few runs have a reason to ask, and all import this module.
    import PIL
    from PIL import features

    found = {name: features.version(name) for name in _LIBRARIES}
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["pillow-heif"] = metadata.version("pillow-heif")
    libraries = [f"{name} {version}" for name, version in found.items() if version]
    return ", ".join([f"Pillow {PIL.__version__}", *libraries])
