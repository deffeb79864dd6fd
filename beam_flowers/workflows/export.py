"""Writes a model in a format for use elsewhere, and compares it before it is kept."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from beam_flowers import files
from beam_flowers.backbones.compute import pool, read_content
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import ImageError, InputError, ModelError
from beam_flowers.evaluation.card import model_card
from beam_flowers.export.agreement import Agreement, Example, measure, require_agreement
from beam_flowers.export.converters import (
    Pixels,
    require_onnx,
    write_onnx,
    write_tflite,
    write_tflite_int8,
)
from beam_flowers.export.graph import write_saved_model
from beam_flowers.export.keras_model import write_keras
from beam_flowers.export.onnx_join import write_joined
from beam_flowers.head.bundle import Bundle, require_backbone
from beam_flowers.images.outputs import Writing, check_target, placing, require_ending
from beam_flowers.images.recipe import DEFAULT_LIMITS, PixelRecipe
from beam_flowers.records import Image, Reject, Say
from beam_flowers.store.parts import read_part
from beam_flowers.workflows.progress import Progress
from beam_flowers.workflows.score_stored import model_sections

SUFFIXES = {
    "savedmodel": "",
    "tflite": ".tflite",
    "tflite-int8": ".tflite",
    "keras": ".keras",
    "onnx": ".onnx",
    "labels": ".txt",
    "card": ".md",
}
"""Of the output, by format."""

_WITH_LABELS = ("tflite", "tflite-int8", "keras", "onnx")

IMAGES = 100
"""To compare on, and as many others to calibrate on."""

_JPEG_OR_PNG = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")


class _Opened(NamedTuple):
    content: bytes
    pixels: Pixels


def export_model(
    bundle: Bundle,
    backbone: ResolvedBackbone | None,
    format_: str,
    output: str,
    store: str | None = None,
    warn: Say = print,
    writing: Writing | None = None,
    progress: Progress | None = None,
) -> Agreement | None:
    """Writes an export to `output` once it has shown, in a fresh process, that it agrees.

    Args:
        bundle: the model.
        backbone: the one it was trained on; not needed for `labels` and `card`.
        format_: a key of `SUFFIXES`.
        output: local path. All but `savedmodel`, `labels` and `card` get a `.labels.txt` beside
            them.
        store: whose images are compared and calibrated on; by default those in the package.
        warn: takes a line for the user.
        writing: the terms; by default nothing may be there yet.
        progress: gets each stage.

    Returns:
        How well it agrees with the model; None for `labels` and `card`.

    Raises:
        OutputError: something is there that must stay, or the output has another suffix.
        InputError: there are no images.
        ModelError: the format cannot hold the model, or the export does not agree with it.
    """
    writing = (writing or Writing()).reading(store, backbone.path if backbone else None)
    target = check_export(format_, output, writing)
    if format_ in ("labels", "card"):
        text = labels_text(bundle.labels) if format_ == "labels" else model_card(bundle).encode()
        files.write_atomic(target, text)
        return None
    if backbone is None:
        raise InputError(f"an export to {format_} needs the backbone of the model")
    if backbone.kind == "onnx" and format_ != "onnx":
        raise ModelError(
            f"the backbone {backbone.row.name!r} is an ONNX network, which becomes no {format_}: "
            "use --to onnx"
        )
    if backbone.precision == "int8":
        raise ModelError(
            "the model was trained on int8 vectors, and exports hold the float32 network, whose "
            "vectors are others: train a model on float32 vectors and export that"
        )
    progress = progress or Progress()
    progress.begin("loading")
    about = backbone.about()
    require_backbone(bundle, backbone.row.name, backbone.fingerprint, about["pixels"])
    recipe = load(backbone).recipe
    opened = _images(bundle, store, recipe, 2 * IMAGES if format_ == "tflite-int8" else IMAGES)
    compared, others = opened[:IMAGES], opened[IMAGES:]
    if format_ == "tflite-int8" and not others:
        warn(f"calibrated on the {len(compared)} images that it is compared on: no others")
    scores = bundle.head.scores(load(backbone).embed(np.stack([o.pixels for o in compared])))
    examples = [Example(*one, row) for one, row in zip(compared, scores, strict=True)]
    with placing(target) as made:
        progress.begin("converting")
        _write(format_, made, bundle, backbone, recipe, [o.pixels for o in others or compared])
        progress.begin("comparing")
        agreement = measure(format_, made, examples, bundle.labels)
        require_agreement(format_, agreement)
    return agreement


def labels_text(labels: Sequence[str]) -> bytes:
    """Returns the labels in class order, one a line, UTF-8.

    Raises:
        ModelError: a label has a line break.
    """
    for label in labels:
        if "\n" in label or "\r" in label:
            raise ModelError(
                f"the label {label!r} has a line break, which a labels file can't hold"
            )
    return "".join(f"{label}\n" for label in labels).encode()


def labels_beside(path: str) -> str:
    """Returns the path of the labels: `flowers.tflite.labels.txt` for `flowers.tflite`."""
    return path + ".labels.txt"


def check_export(format_: str, output: str, writing: Writing) -> str:
    """Returns the absolute path of an export, before anything is read.

    Raises:
        OutputError: see `check_target`.
        ModelError: the format takes a package that is not installed.
    """
    what = f"an export to {format_}"
    if SUFFIXES[format_]:
        require_ending(output, [SUFFIXES[format_]], what)
    target = check_target(output, what, writing, is_folder=not SUFFIXES[format_])
    if format_ in _WITH_LABELS:
        writing.check_file(labels_beside(target), "an export of labels")
    if format_ == "onnx":
        require_onnx()
    return target


def _write(
    format_: str,
    path: str,
    bundle: Bundle,
    backbone: ResolvedBackbone,
    recipe: PixelRecipe,
    calibration: Sequence[Pixels],
) -> None:
    if format_ == "savedmodel":
        write_saved_model(path, bundle, backbone, recipe)
        return
    files.write_atomic(labels_beside(path), labels_text(bundle.labels))
    if format_ == "tflite":
        write_tflite(path, bundle, backbone)
    elif format_ == "tflite-int8":
        write_tflite_int8(path, bundle, backbone, np.stack(calibration))
    elif format_ == "keras":
        write_keras(path, bundle, backbone, recipe)
    elif backbone.kind == "onnx":
        write_joined(path, bundle, backbone, recipe)
    else:
        write_onnx(path, bundle, backbone)


def _images(bundle: Bundle, store: str | None, recipe: PixelRecipe, most: int) -> list[_Opened]:
    """Returns up to `most` JPEG and PNG images, which every export can read."""
    if store is None:
        data = importlib.resources.files("beam_flowers") / "data" / "flowers"
        with importlib.resources.as_file(data) as folder:
            uris = sorted(map(str, folder.rglob("*.jpg")), key=os.path.basename)
            return _open_some(uris, recipe, most)
    opened = _open_some(_stored_uris(bundle, store), recipe, most)
    if not opened:
        raise InputError(
            f"none of the images that {store} names can be read as JPEG or PNG any more; leave "
            "--store out to compare on the photographs in the package"
        )
    return opened


def _stored_uris(bundle: Bundle, store: str) -> list[str]:
    """Yields the uri of one file for each content, in the random order of the digests."""
    place, section = model_sections(files.absolute(store), bundle)[0]
    columns = ["uri", "sha256"]
    rows = pa.concat_tables([read_part(place, part, columns) for part in section.rows])
    first = {sha: uri for uri, sha in zip(*(rows[c].to_pylist() for c in columns), strict=True)}
    return [first[sha] for sha in sorted(first)]


def _open_some(uris: Sequence[str], recipe: PixelRecipe, most: int) -> list[_Opened]:
    opened: list[_Opened] = []
    # As many as are missing at a time: a store may name a million, and none of them be there.
    tried = 0
    while len(opened) < most and tried < min(len(uris), 20 * most):
        some = uris[tried : tried + most - len(opened)]
        tried += len(some)
        found = pool().map(lambda uri: _open(uri, recipe), some)
        opened.extend(one for one in found if one is not None)
    return opened


def _open(uri: str, recipe: PixelRecipe) -> _Opened | None:
    result = read_content(Image(uri, files.parent(uri), uri), DEFAULT_LIMITS)
    if isinstance(result, Reject) or not result[1].startswith(_JPEG_OR_PNG):
        return None
    try:
        return _Opened(result[1], decode_apart(result[1], recipe).pixels)
    except ImageError:
        return None
