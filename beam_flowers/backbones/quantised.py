"""Finds and checks quantised networks: a backbone in OpenVINO's files, with weights of 8 bits."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from beam_flowers import files
from beam_flowers.backbones import weights
from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.errors import BackboneError, BackboneFieldError
from beam_flowers.files.private import private_folder
from beam_flowers.files.typed import Form

NETWORK, WEIGHTS, ABOUT = "network.xml", "network.bin", "about.json"
"""Files of a quantised network: OpenVINO's two, and an `About`."""
_NAMES = (WEIGHTS, NETWORK)
_FOLDER = "int8"


class About(msgspec.Struct, forbid_unknown_fields=True):
    """Describes how a network was quantised.

    Attributes:
        of: fingerprint of the float32 backbone.
        images: number of images that it was calibrated on.
        images_sha256: of the sorted hex digests of their files, joined by line breaks.
        sha256: see `digest`.
        made_with: versions of the libraries.
    """

    of: str
    images: int
    images_sha256: str
    sha256: str
    made_with: dict[str, str]


_FORM = Form(About, BackboneFieldError, "quantise the network again")


def places(row: Backbone, fingerprint: str) -> list[str]:
    """Returns the folders in which a row's quantised network is searched, in order.

    Args:
        row: the backbone.
        fingerprint: of its float32 form.
    """
    if row.in_package:
        data = Path(__file__).parents[1] / "data" / "backbones"
        return [str(data / row.architecture / _FOLDER)]
    name = f"{row.name}-{fingerprint[:8]}"
    given = os.environ.get(weights.PLACES_VARIABLE)
    own = [files.absolute(files.join(given, _FOLDER, name))] if given else []
    private = private_folder(_FOLDER)
    return own + ([str(private / name)] if private else [])


def find(row: Backbone, fingerprint: str) -> str | None:
    """Returns the first folder that holds the network of that float32 fingerprint, or None.

    Raises:
        BackboneFieldError: a folder's description is not as this program writes it.
    """
    for folder in places(row, fingerprint):
        about = files.join(folder, ABOUT)
        if not files.exists(about):
            continue
        if _FORM.read(files.read_document(about, _FORM), about).of == fingerprint:
            return folder
    return None


def require(row: Backbone, fingerprint: str) -> tuple[str, str]:
    """Returns the folder that `find` returns, and the digest of its files.

    Raises:
        BackboneError: there is no quantised network of this backbone, or it is damaged.
    """
    if folder := find(row, fingerprint):
        about = files.join(folder, ABOUT)
        expected = _FORM.read(files.read_document(about, _FORM), about).sha256
        if digest(folder) != expected:
            cure = "install the package" if row.in_package else "quantise the network"
            raise BackboneError(
                f"the quantised network of {row.name!r} at {folder} is damaged: its sha256 is not "
                f"that of {ABOUT} beside it; {cure} again"
            )
        return folder, expected
    if row.in_package:
        raise BackboneError(
            f"the quantised network of {row.name!r} in the package has the catalogue's pixel "
            "recipe, not the one asked for: leave --pixel-range or --precision int8 out"
        )
    raise BackboneError(
        f"nobody has quantised {row.name!r} on this machine: `beam-flowers backbones --quantize "
        f"{row.name} --images FOLDER` does, with images as yours. Looked for: "
        f"{', '.join(places(row, fingerprint))}"
    )


def digest(folder: str) -> str:
    """Returns the hex sha256 of the lines that `sha256sum network.bin network.xml` prints."""
    sums = (weights.file_digest(files.join(folder, name), "sha256") for name in _NAMES)
    lines = [f"{found}  {name}\n" for found, name in zip(sums, _NAMES, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def require_unchanged(name: str, folder: str, sha256: str) -> None:
    """Checks the files of a quantised network against the digest that the run began with.

    Args:
        name: of the backbone.
        folder: that holds the files, on a disk of this machine.
        sha256: their expected `digest`.

    Raises:
        BackboneError: they are missing or others.
    """
    if not files.is_local(folder):
        raise BackboneError(
            f"the quantised network of {name} at {folder} has to lie on a disk of every worker: "
            f"copy it there, and let {weights.PLACES_VARIABLE} name the folder above {_FOLDER}/"
        )
    try:
        found = digest(folder)
    except OSError as error:
        raise BackboneError(
            f"the quantised network of {name} cannot be read at {folder} "
            f"({error.strerror or error}); put it there"
        ) from error
    if found != sha256:
        raise BackboneError(
            f"the quantised network of {name} at {folder} has the sha256 {found}, not {sha256}: "
            "it is another; every worker needs the same"
        )
