"""Quantises a backbone on a user's images and says what that changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from beam_flowers import files
from beam_flowers.backbones.compute import compute_embeddings, pool, read_content
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.quantised import NETWORK, WEIGHTS, digest, places
from beam_flowers.backbones.quantising import require_nncf, write_quantised
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BackboneError, ImageError, InputError, OutputError, TrainingError
from beam_flowers.evaluation.precisions import Comparison, compare_heads, cosines
from beam_flowers.files.private import private_folder
from beam_flowers.head.examples import Examples
from beam_flowers.images.find import find_images
from beam_flowers.images.outputs import Writing, check_target, placing
from beam_flowers.images.recipe import DEFAULT_LIMITS, PixelRecipe
from beam_flowers.records import Embedding, Image, Reject, Say

_CALIBRATED = 300
"""Images whose activations give the ranges; NNCF's own default."""
_FEWEST = 10
_MEASURED = 2000
_FEWEST_MEASURED = 100

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class QuantiseResult:
    """Holds where a quantised network lies and what it changes.

    Attributes:
        folder: of its files.
        sha256: see `quantised.digest`.
        megabytes: size of its weights.
        calibrated: number of images that it was calibrated on.
        measured: number of images that it was compared on.
        are_others: False if images to compare on are among those that it was calibrated on.
        cosine: mean cosine to the float32 vectors.
        low_cosine: its first percentile over the images.
        comparison: accuracies and changed labels; None for images without two labels.
    """

    folder: str
    sha256: str
    megabytes: float
    calibrated: int
    measured: int
    are_others: bool
    cosine: float
    low_cosine: float
    comparison: Comparison | None


def quantise(
    backbone: ResolvedBackbone,
    images: Sequence[str],
    output: str | None = None,
    writing: Writing | None = None,
    warn: Say = print,
) -> QuantiseResult:
    """Writes the quantised network of a backbone and compares its vectors with the float32 ones.

    Up to 300 images calibrate it and up to 2,000 others compare, drawn by a hash of their names
    below the listed folders.

    Args:
        backbone: in float32, run by OpenVINO.
        images: see `find_images`; first-level folders are the labels.
        output: folder to write; by default that in the cache from which `--precision int8` takes
            it. A backbone of the package has its own there, so that `output` is needed.
        writing: the terms; by default nothing may be there yet.
        warn: takes a line for the user.

    Raises:
        BackboneError: NNCF is missing or does not take the network.
        InputError: there are too few images.
        OutputError: a network is there already.
    """
    require_nncf()
    target = _target(backbone, output, (writing or Writing()).listing(images))
    listed = [found for found in find_images(images) if isinstance(found, Image)]
    listed.sort(key=lambda image: hashlib.sha256(image.relative_path.encode()).digest())
    opened = _opened(listed, load(backbone).recipe)
    if len(opened) < _FEWEST:
        raise InputError(
            f"{len(opened)} of the {len(listed)} files in {', '.join(images)} can be used as "
            f"images: a network is calibrated on {_FEWEST} at least, better on {_CALIBRATED}, of "
            "the kind that it will see"
        )
    sha256, pixels = zip(*opened.values(), strict=True)
    with placing(target) as made:
        write_quantised(backbone, pixels, sha256, made)
    found = digest(target)
    reduced = replace(backbone, precision="int8", quantised_path=target, quantised_sha256=found)
    others = [image for image in listed if image.uri not in opened]
    are_others = len(others) >= _FEWEST_MEASURED
    examples, second = _both(backbone, reduced, (others if are_others else listed)[:_MEASURED])
    try:
        comparison = compare_heads(examples, second, seeds=(0,))
    except TrainingError as error:
        warn(f"accuracy was not measured: {error}")
        comparison = None
    return QuantiseResult(
        target,
        found,
        os.path.getsize(os.path.join(target, WEIGHTS)) / 1e6,
        len(opened),
        len(second),
        are_others,
        *cosines(np.asarray(examples.vectors), second),
        comparison,
    )


def _target(backbone: ResolvedBackbone, output: str | None, writing: Writing) -> str:
    if output is None and backbone.row.in_package:
        raise InputError(
            f"the package has a quantised network of {backbone.row.name!r}, which --precision int8 "
            "takes; to make another one, name a folder for it: --output FOLDER"
        )
    output = output or _in_cache(backbone)
    if files.exists(files.join(files.absolute(output), NETWORK)) and not writing.overwrite:
        raise OutputError(
            f"{output!r} has a quantised network already, whose vectors your stores may hold: "
            "--overwrite replaces it, and no image can be embedded as those any more"
        )
    return check_target(output, "a quantised network", writing)


def _in_cache(backbone: ResolvedBackbone) -> str:
    if private_folder("int8", make=True) is None:
        raise BackboneError(
            "there is no folder for a quantised network in your cache: let XDG_CACHE_HOME name "
            "one, or give --output FOLDER"
        )
    return places(backbone.row, backbone.fingerprint)[-1]


def _opened(images: Sequence[Image], recipe: PixelRecipe) -> dict[str, tuple[str, Pixels]]:
    """Returns (sha256, pixels) of the first images that can be decoded, by uri."""

    def opened(image: Image) -> tuple[str, Pixels] | None:
        content = read_content(image, DEFAULT_LIMITS)
        if isinstance(content, Reject):
            return None
        try:
            return content[2], decode_apart(content[1], recipe, DEFAULT_LIMITS).pixels
        except ImageError:
            return None

    found: dict[str, tuple[str, Pixels]] = {}
    for begin in range(0, len(images), _CALIBRATED):
        some = images[begin : begin + _CALIBRATED]
        for image, one in zip(some, pool().map(opened, some), strict=True):
            if one is not None and len(found) < _CALIBRATED:
                found[image.uri] = one
        if len(found) == _CALIBRATED:
            break
    return found


def _both(
    full: ResolvedBackbone, reduced: ResolvedBackbone, images: Sequence[Image]
) -> tuple[Examples, npt.NDArray[np.float32]]:
    """Returns the images with vectors of the first precision, and those of the second: [N, D]."""
    computed = [compute_embeddings(images, load(one)) for one in (full, reduced)]
    rows = [row for row in computed[0] if isinstance(row, Embedding)]
    examples = Examples(
        [row.image.uri for row in rows],
        [row.sha256 for row in rows],
        [row.image.label for row in rows],
        [None] * len(rows),
        np.stack([row.vector for row in rows]),
    )
    found = {row.image.uri: row.vector for row in computed[1] if isinstance(row, Embedding)}
    return examples, np.stack([found[uri] for uri in examples.uris])
