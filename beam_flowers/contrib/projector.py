"""Writes vectors for TensorBoard's embedding projector (https://projector.tensorflow.org)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

import numpy as np
from PIL import Image as Pillow

from beam_flowers.backbones.compute import read_content
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.errors import ImageError
from beam_flowers.files.text import guarded, visible
from beam_flowers.images.recipe import DEFAULT_LIMITS, PixelRecipe
from beam_flowers.records import Image, Reject

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
    folder: str,
    vectors: np.ndarray,
    columns: Mapping[str, Sequence[object]],
    uris: Sequence[str],
    threads: Executor,
) -> int:
    """Writes `tensors.tsv`, `metadata.tsv`, `sprite.png` and `projector_config.pbtxt`.

    Args:
        folder: an existing local folder.
        vectors: float32 [N, D], N <= `MOST_POINTS`.
        columns: metadata by name, each [N]; two or more, as a single one would have no header.
        uris: [N], addresses of the images; those that cannot be read are grey.
        threads: threads that decode.

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
    sprite, missing = _sprite(uris, threads)
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


def _sprite(uris: Sequence[str], threads: Executor) -> tuple[Pillow.Image, int]:
    across, side = _across(len(uris)), tile_side(len(uris))
    sheet = Pillow.new("RGB", (across * side, across * side), "white")
    missing = 0
    for place, tile in enumerate(threads.map(lambda uri: _tile(uri, side), uris)):
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
