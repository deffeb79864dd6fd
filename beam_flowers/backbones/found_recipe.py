"""Finds which pixels a network takes that has no name, or refuses with a guess."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from beam_flowers import files
from beam_flowers.backbones import onnx_folder
from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.backbones.keras_recipe import keras_recipe
from beam_flowers.backbones.preprocessor_config import CONFIG_FILE, RecipeFields, read_config
from beam_flowers.backbones.saved_model_check import signatures
from beam_flowers.backbones.weights import Kind
from beam_flowers.errors import BackboneError, BeamFlowersError

HUB_RANGE = (0.0, 1.0)
"""Black and white in the input of TF-Hub's image modules (its "common signatures: images").

Also the default for a named backbone that comes as a SavedModel and not as Keras weights.
"""

HUB_SIGNATURE = "image_feature_vector"
"""Signature by that convention, in modules of TensorFlow 1."""

_BYTES = (0.0, 255.0)
_UINT8 = 4


class KnownRecipe(NamedTuple):
    """Holds a recipe that a store or a model names.

    Attributes:
        fingerprint: of the backbone that made the vectors there.
        pixels: `Backbone.about_pixels` of it.
    """

    fingerprint: str
    pixels: Mapping[str, Any]


class Found(NamedTuple):
    """Holds what the files of a network say of its recipe.

    Attributes:
        fields: of the recipe.
        by: the place that says it, in words.
    """

    fields: RecipeFields
    by: str


def find_recipe(path: str, kind: Kind, is_handle: bool) -> Found | None:
    """Looks for the recipe of a network in its files, and beside them.

    Raises:
        BackboneError: the file beside it is damaged, or asks for what is not done here.
    """
    folder = path if kind == "saved-model" else onnx_folder.folder_of(path)
    beside = files.join(folder, CONFIG_FILE)
    # Beside a `.keras` file it may belong to another network of the same folder.
    if kind in ("saved-model", "onnx") and files.exists(beside):
        return Found(read_config(beside), f"by {beside}")
    if kind == "onnx":
        return None
    if kind == "keras-file":
        by_layers = keras_recipe(path)
        return Found(*by_layers) if by_layers else None
    try:
        named = signatures(path)
    except BackboneError:
        # One that the user trusts may be too large to be read here.
        named = {}
    if any(types == {_UINT8} for types in named.values()):
        return Found({"pixel_range": _BYTES}, "by its signature, which takes uint8")
    if is_handle or HUB_SIGNATURE in named:
        return Found({"pixel_range": HUB_RANGE}, "by TF-Hub's convention")
    return None


def fields_of(pixels: Mapping[str, Any]) -> RecipeFields:
    """Returns the fields of `Backbone.about_pixels` that a store or a model holds.

    Raises:
        KeyError, TypeError: they are not what this package writes.
    """
    return {
        "input_size": pixels["height"],
        "pixel_range": (float(pixels["low"]), float(pixels["high"])),
        "crop": pixels["crop"],
        "resample": pixels["resample"],
        "resize": pixels.get("resize"),
        "mean": tuple(map(float, pixels.get("mean", ()))),
        "std": tuple(map(float, pixels.get("std", ()))),
        "channels": pixels.get("channels", "rgb"),
        "output": str(pixels.get("output", "")),
    }


def rows_of(row: Backbone, known: Sequence[KnownRecipe]) -> list[tuple[Backbone, str]]:
    """Returns a backbone with each recipe that is known, and the fingerprint to prove it by."""
    rows = []
    for one in known:
        # Another program, or a stranger, may have written them: nothing is proved by such.
        try:
            rows.append((replace(row, **fields_of(one.pixels)), one.fingerprint))
        except (BeamFlowersError, KeyError, TypeError, ValueError):
            continue
    return rows


_GUESSES = {
    "mobilenet-?v3|efficientnet|convnext|regnet": "0,255",
    "mobilenet|inception|xception|nasnet|resnet.*v2": "-1,1",
    "densenet|dino|clip|vit|swin|torch": "0,1",
    "resnet|vgg": "0,255",
}
_HABIT = "-1,1"


def untold(path: str) -> BackboneError:
    """Returns the refusal of a network that nothing describes, with what would be a guess."""
    name = re.split(r"[/\\]", path.rstrip("/"))[-1].lower()
    guess, because = _HABIT, "as this program took before"
    for pattern, pixel_range in _GUESSES.items():
        if re.search(pattern, name):
            guess, because = pixel_range, "by its name"
            break
    example = {"pixel_range": [float(value) for value in guess.split(",")], "size": 224}
    return BackboneError(
        f"nothing says which pixels {path!r} takes: it has no layer that scales, no signature that "
        f"tells, and no {CONFIG_FILE}. Wrong ones give vectors of little use, and no error. Give "
        "what black and white are as --pixel-range LOW,HIGH (in Python pixel_range), or all of it "
        f"as --backbone-config FILE, such as {json.dumps(example)}. A guess, {because}, would be "
        f"--pixel-range={guess}"
    )
