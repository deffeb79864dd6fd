"""Exports a store's vectors, labels and images for TensorBoard's projector or for FiftyOne."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image as Pillow

from beam_flowers import files
from beam_flowers.backbones.compute import pool, read_content
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.errors import ImageError, InputError
from beam_flowers.files.text import guarded, visible
from beam_flowers.images.outputs import Writing, check_target, placing
from beam_flowers.images.recipe import DEFAULT_LIMITS, PixelRecipe
from beam_flowers.records import Image, Reject, Say
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.store.features import Features, read_features

_ROWS = 4096
"""Vectors that are copied at once: all of them may not fit into memory."""

_Predictions = list[tuple[str, float] | None]
"""Label and score, 0..1, of each image of the store."""


class Exported(NamedTuple):
    """Counts of one export.

    Attributes:
        rows: number of rows written.
        stored: number of rows of the store.
    """

    rows: int
    stored: int


def export_store(
    store: str,
    format: str,
    output: str,
    *,
    backbone: str | None = None,
    scores: str | None = None,
    warn: Say = print,
    writing: Writing | None = None,
) -> Exported:
    """Writes a store for TensorBoard's projector or for FiftyOne.

    Args:
        store: folder.
        format: `projector` or `fiftyone`.
        output: local folder.
        backbone: name of the vectors' backbone; needed if the store has several.
        scores: a score table, whose labels become predictions.
        warn: called with a line for the user.
        writing: terms of replacing files; by default the output must not exist.

    Raises:
        OutputError: if the output exists and must stay.
        InputError: if the score table has none of the images.
        StoreError: if there is no such store, or it has no vectors.
    """
    writing = (writing or Writing()).reading(store, scores)
    target = check_target(output, f"an export to {format}", writing)
    features = read_features(files.absolute(store), backbone)[1]
    predictions = _predictions(features, scores)
    with placing(target) as made:
        os.mkdir(made)
        write = _write_projector if format == "projector" else _write_fiftyone
        count = write(made, features, predictions, warn)
    return Exported(count, len(features.uris))


def _predictions(features: Features, scores: str | None) -> _Predictions | None:
    if scores is None:
        return None
    table = read_scores(scores)
    given = zip(table.given, map(float, table.scores), strict=True)
    by_uri = dict(zip(table.uris, given, strict=True))
    predictions = [by_uri.get(uri) for uri in features.uris]
    if not any(predictions):
        raise InputError(f"{scores!r} has no score of an image of the store; score that store")
    return predictions


def _write_projector(
    folder: str, features: Features, predictions: _Predictions | None, warn: Say
) -> int:
    # Digests are in random order, which is the same for every export.
    order = np.argsort(np.array(features.sha256), kind="stable")[:MOST_POINTS]
    if len(order) < len(features.uris):
        warn(f"the projector loads {MOST_POINTS:,} points: the others of the store are left out")
    columns: dict[str, list[object]] = {
        "label": [features.labels[i] for i in order],
        "uri": [features.uris[i] for i in order],
    }
    if predictions:
        columns["prediction"] = [(predictions[i] or ("",))[0] for i in order]
        columns["score"] = [f"{p[1]:.6f}" if (p := predictions[i]) else "" for i in order]
    uris = [features.uris[i] for i in order]
    missing = write_projector(folder, features.vectors[order], columns, uris)
    if missing:
        warn(f"{missing} of the images cannot be read any more: grey in the sprite")
    return len(order)


def _write_fiftyone(
    folder: str, features: Features, predictions: _Predictions | None, warn: Say
) -> int:
    """Writes a `FiftyOneImageClassificationDataset`; images stay where they are.

    `labels.json` and `data.json` are a dataset; `predictions.json` is a second `labels_path` for
    its images. FiftyOne reads images in the order of their keys, which is that of `vectors.npy`.
    The format: https://docs.voxel51.com/user_guide/import_datasets.html
    """
    elsewhere = sum(not files.is_local(uri) for uri in features.uris)
    if elsewhere:
        warn(f"{elsewhere} of the images are no local files: FiftyOne cannot show them")
    keys = [hashlib.sha256(uri.encode()).hexdigest()[:24] for uri in features.uris]
    classes = sorted({label for label in features.labels if label is not None})
    numbers = {name: number for number, name in enumerate(classes)}
    targets = [None if label is None else numbers[label] for label in features.labels]
    _write(folder, "data", dict(zip(keys, features.uris, strict=True)))
    _write(folder, "labels", {"classes": classes, "labels": _by_key(keys, targets)})
    if predictions is not None:
        named = [p and {"label": p[0], "confidence": p[1]} for p in predictions]
        _write(folder, "predictions", {"labels": _by_key(keys, named)})
    order = sorted(range(len(keys)), key=keys.__getitem__)
    path, shape = os.path.join(folder, "vectors.npy"), (len(keys), features.vectors.shape[1])
    target = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for start in range(0, len(order), _ROWS):
        target[start : start + _ROWS] = features.vectors[order[start : start + _ROWS]]
    target.flush()
    return len(keys)


def _by_key(keys: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(sorted(zip(keys, values, strict=True)))


def _write(folder: str, name: str, content: dict[str, Any]) -> None:
    with open(os.path.join(folder, f"{name}.json"), "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)


MOST_POINTS = 100_000
"""Most points that the projector loads (tensorflow/tensorboard#773)."""

_SPRITE = 8192
"""Largest side of an image in pixels that every WebGL supports."""
_TILE = 64
_MISSING = (128, 128, 128)

_CONFIG = """\
embeddings {{
  tensor_name: "embeddings"
  tensor_path: "tensors.tsv"
  metadata_path: "metadata.tsv"
  sprite {{
    image_path: "sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
}}
"""


def write_projector(
    folder: str, vectors: np.ndarray, columns: Mapping[str, Sequence[object]], uris: Sequence[str]
) -> int:
    """Writes `tensors.tsv`, `metadata.tsv`, `sprite.png` and `projector_config.pbtxt`.

    Args:
        folder: an existing local folder.
        vectors: float32 [N, D], N <= `MOST_POINTS`.
        columns: metadata by name, each [N]; two or more, as a single one would have no header.
        uris: [N], addresses of the images; those that cannot be read are grey.

    Returns:
        The number of images that could not be read.
    """
    with open(os.path.join(folder, "tensors.tsv"), "w", encoding="utf-8") as file:
        for vector in vectors:
            file.write("\t".join(f"{value:.6g}" for value in vector.tolist()) + "\n")
    with open(os.path.join(folder, "metadata.tsv"), "w", encoding="utf-8") as file:
        file.write("\t".join(columns) + "\n")
        for row in zip(*columns.values(), strict=True):
            file.write("\t".join(_cell(value) for value in row) + "\n")
    sprite, missing = _sprite(uris)
    sprite.save(os.path.join(folder, "sprite.png"))
    with open(os.path.join(folder, "projector_config.pbtxt"), "w", encoding="utf-8") as file:
        file.write(_CONFIG.format(side=tile_side(len(uris))))
    return missing


def tile_side(count: int) -> int:
    """Returns the side of one image in pixels, in a sprite of `count` images."""
    return max(1, min(_TILE, _SPRITE // _across(count)))


def _across(count: int) -> int:
    # The projector expects a square of images, row by row.
    return max(1, math.ceil(math.sqrt(count)))


def _cell(value: object) -> str:
    return str(guarded(visible(" ".join(str("" if value is None else value).split()))))


def _sprite(uris: Sequence[str]) -> tuple[Pillow.Image, int]:
    across, side = _across(len(uris)), tile_side(len(uris))
    sheet = Pillow.new("RGB", (across * side, across * side), "white")
    missing = 0
    for place, tile in enumerate(pool().map(lambda uri: _tile(uri, side), uris)):
        missing += tile is None
        corner = (place % across * side, place // across * side)
        sheet.paste(tile or Pillow.new("RGB", (side, side), _MISSING), corner)
    return sheet, missing


def _tile(uri: str, side: int) -> Pillow.Image | None:
    content = read_content(Image(uri, uri, uri), DEFAULT_LIMITS)
    if isinstance(content, Reject):
        return None
    try:
        return Pillow.fromarray(decode_apart(content[1], PixelRecipe(side, side)).pixels)
    except ImageError:
        return None
