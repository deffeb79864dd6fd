"""The text files in which retrain.py kept bottleneck vectors: their names, and their numbers.

`<label>/<picture>_<module>.txt`, the module's address with `~` for `://`, `/`, `:` and `\\`; the
first version wrote `<label>/<picture>.txt`. In it are decimal numbers with commas between them.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones.catalogue import IMPORTED
from beam_flowers.errors import PictureError

# The last such ending counts: a picture may be called `a.jpg_copy.jpg`.
_NAME = re.compile(r"(.+\.(?:jpe?g|png|bmp|gif|webp|tiff?))(?:_(.+))?\.txt", re.IGNORECASE)
_SHOWN = 20


class TextName(NamedTuple):
    """What the name of a text file says.

    Attributes:
        picture: path of the picture below the folder of pictures.
        module: the network, as the name has it; empty in the first version's names.
    """

    picture: str
    module: str


def parse_name(relative_path: str) -> TextName | None:
    """The picture and the network that a text file is of; None for any other file."""
    folder, slash, name = relative_path.rpartition("/")
    found = _NAME.fullmatch(name)
    return TextName(folder + slash + found[1], found[2] or "") if found else None


def backbone_of(module: str) -> str:
    """What the store calls the vectors of that network."""
    slug = re.sub(r"[^A-Za-z0-9._~-]+", "-", module)
    return f"{IMPORTED}-{slug}" if module else IMPORTED


def fingerprint_of(module: str) -> str:
    """A fingerprint like that of no network here: nobody knows weights and pixels any more."""
    return hashlib.sha256(f"{IMPORTED}\0{module}".encode()).hexdigest()


def parse_vector(data: bytes) -> npt.NDArray[np.float32]:
    """The numbers in a text file: float32 [D], read as doubles and then rounded, as retrain.py did.

    Raises:
        PictureError: `EmptyFile`, `NotNumbers` or `NotFinite`.
    """
    words = data.decode("ascii", "replace").strip().split(",")
    if words == [""]:
        raise PictureError("EmptyFile", "the text file holds no number")
    try:
        numbers = np.array(words, np.float64)
    except ValueError:
        place, word = next((p, w) for p, w in enumerate(words, 1) if not _is_number(w))
        raise PictureError(
            "NotNumbers", f"number {place} of {len(words)} is {word[:_SHOWN]!r}"
        ) from None
    with np.errstate(over="ignore"):
        vector = numbers.astype(np.float32)
    if bad := np.flatnonzero(~np.isfinite(vector)).tolist():
        word = words[bad[0]][:_SHOWN]
        raise PictureError("NotFinite", f"number {bad[0] + 1} of {len(words)} is {word!r}")
    return vector


def _is_number(word: str) -> bool:
    try:
        np.array([word], np.float64)
    except ValueError:
        return False
    return True
