"""Parses names and numbers of the text files in which retrain.py kept bottleneck vectors.

Their names are `<label>/<image>_<module>.txt`, with `~` for `://`, `/`, `:` and `\\` in the
module's address; the first version wrote `<label>/<image>.txt`. They hold decimal numbers with
commas between them.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones.catalogue import IMPORTED
from beam_flowers.errors import ImageError

# The last such ending counts: an image may be called `a.jpg_copy.jpg`.
_NAME = re.compile(r"(.+\.(?:jpe?g|png|bmp|gif|webp|tiff?))(?:_(.+))?\.txt", re.IGNORECASE)
_SHOWN = 20


class TextName(NamedTuple):
    """Parts of the name of a text file.

    Attributes:
        image: path of the image below the folder of images.
        module: name of the network; empty in the first version's names.
    """

    image: str
    module: str


def parse_name(relative_path: str) -> TextName | None:
    """Parses the path of a text file; returns None for any other file."""
    folder, slash, name = relative_path.rpartition("/")
    match = _NAME.fullmatch(name)
    return TextName(folder + slash + match[1], match[2] or "") if match else None


def backbone_of(module: str) -> str:
    """Returns the store's name for the vectors of a network."""
    slug = re.sub(r"[^A-Za-z0-9._~-]+", "-", module)
    return f"{IMPORTED}-{slug}" if module else IMPORTED


def fingerprint_of(module: str) -> str:
    """Makes a fingerprint that no backbone has: the files do not name weights and pixels."""
    return hashlib.sha256(f"{IMPORTED}\0{module}".encode()).hexdigest()


def parse_vector(data: bytes) -> npt.NDArray[np.float32]:
    """Reads the numbers of a text file, as doubles rounded to float32 [D], as retrain.py did.

    Raises:
        ImageError: `EmptyFile`, `NotNumbers` or `NotFinite`.
    """
    words = data.decode("ascii", "replace").strip().split(",")
    if words == [""]:
        raise ImageError("EmptyFile", "the text file holds no number")
    try:
        numbers = np.array(words, np.float64)
    except ValueError:
        place, word = next((p, w) for p, w in enumerate(words, 1) if not _is_number(w))
        raise ImageError(
            "NotNumbers", f"number {place} of {len(words)} is {word[:_SHOWN]!r}"
        ) from None
    with np.errstate(over="ignore"):
        vector = numbers.astype(np.float32)
    if bad := np.flatnonzero(~np.isfinite(vector)).tolist():
        word = words[bad[0]][:_SHOWN]
        raise ImageError("NotFinite", f"number {bad[0] + 1} of {len(words)} is {word!r}")
    return vector


def _is_number(word: str) -> bool:
    try:
        np.array([word], np.float64)
    except ValueError:
        return False
    return True
