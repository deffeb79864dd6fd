"""Holds versions of the decoding rules, by which outdated rejects are found."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata

from beam_flowers.images.formats import FORMATS, NOT_HERE
from beam_flowers.records import NOT_AN_IMAGE

_OF_NO_FORMAT = (NOT_AN_IMAGE, "UnsupportedFormat", "EmptyFile")
_OF_A_FORMAT = ("TooLarge", "TooManyPixels", "TooMuchMemory", "Timeout", "Truncated", "Undecodable")

CRASHED = "Crashed"
"""Class of rejects that crash their decoder process. It has no version: the message names the
versions of the decoders, see `decoder_versions`."""

BY_INSTALLATION = frozenset({CRASHED, "UnsupportedFormat"})
"""Classes of rejects that other installed packages may read, see `is_outdated`."""

_LIBRARIES = ("libjpeg_turbo", "jpg", "zlib", "libtiff", "webp", "jpg_2000", "avif")
"""Libraries that Pillow may decode with, by its names."""

RULES: dict[str, int] = {
    **dict.fromkeys((*FORMATS, *_OF_NO_FORMAT, *_OF_A_FORMAT), 1),
    # 2: JPEGs that lack only their end marker are accepted. This rule and the next are not rules of
    # the format JPEG, so that accepted JPEGs are not read again.
    "Truncated": 2,
    "TooManyPixels": 2,  # 2: of a JPEG the decoded pixels count.
    # 2: the size is checked before other damage, also in WebP and GIF. 3: JPEGs with arithmetic
    # coding of more than 4 KiB are accepted.
    "Undecodable": 3,
    "PPM": 2,  # 2: no side is above 65,535 pixels, as in PNG, TIFF and BMP.
    "BMP": 2,  # 2: 4-bit RLE is refused, all bit fields and short headers are accepted.
    # 2: BMPs with a header of 16 bytes are images, camera raw of Sigma is known by name, and
    # only the first 4 KiB tell the format. 3: AVIF, HEIC and JPEG 2000 are images.
    "NotAnImage": 3,
    "UnsupportedFormat": 3,
    # 2: fax images that lack rows are refused, and camera raw files. 3: more strips than 2**18.
    "TIFF": 3,
    "PNG": 2,  # 2: wrong checksums of pixels are refused, those of texts are accepted.
}
"""Version of the rule for each format and each class of reject. Raise that of a format if files of
it are newly accepted or newly refused. Raise that of a class if only rejects of that class are
concerned. The next run then reads exactly those files again. An image that is accepted before and
after must keep its pixels to the bit; if it does not, change `recipe.DECODE_VERSION` instead."""


def changed_rules(recorded: Mapping[str, int]) -> frozenset[str]:
    """Returns formats and classes whose rules have changed since a store was written.

    Args:
        recorded: versions of the rules in the store; a missing one is 1.
    """
    return frozenset(name for name, now in RULES.items() if recorded.get(name, 1) != now)


def is_outdated(changed: frozenset[str], stage: str, error_class: str, message: str) -> bool:
    """Tells if a reject has to be read again.

    Args:
        changed: result of `changed_rules`.
        stage: stage of the reject.
        error_class: class of the reject.
        message: message of the reject. Most begin with the format; others may be of any.
    """
    if stage != "decode":
        return False
    if error_class == CRASHED and decoder_versions() not in message:
        return True
    if error_class in changed:
        return True
    format_ = message.partition(" ")[0]
    if error_class == "UnsupportedFormat" and format_ in FORMATS and NOT_HERE in message:
        # Imported late: it loads Pillow, which a run without new images rarely needs.
        from beam_flowers.images.heif import cure

        return not cure(format_)
    if error_class in _OF_NO_FORMAT:
        return False
    return format_ in changed if format_ in FORMATS else not changed.isdisjoint(FORMATS)


@lru_cache(maxsize=1)
def decoder_versions() -> str:
    """Names Pillow and the libraries that it decodes with, each with its version.

    Other versions may decode an image that crashed these.
    """
    # Imported late: all runs import this module, and few call this function.
    import PIL
    from PIL import features

    versions = {name: features.version(name) for name in _LIBRARIES}
    with contextlib.suppress(metadata.PackageNotFoundError):
        versions["pillow-heif"] = metadata.version("pillow-heif")
    libraries = [f"{name} {version}" for name, version in versions.items() if version]
    return ", ".join([f"Pillow {PIL.__version__}", *libraries])
