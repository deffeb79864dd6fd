"""Finds in the first layers of a `.keras` file which pixels it takes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from typing import Any

from beam_flowers import files
from beam_flowers.backbones.preprocessor_config import RecipeFields

_PASSING = {
    "InputLayer",
    "Identity",
    "ZeroPadding2D",
    "Resizing",
    "CenterCrop",
    "Cropping2D",
    "GaussianNoise",
    "Dropout",
    "GetItem",
    "Stack",
    "Flip",
    "Cast",
}
"""Layers that leave values as they are."""

_NESTED = {"Functional", "Model", "Sequential"}


def keras_recipe(path: str) -> tuple[RecipeFields, str] | None:
    """Returns the pixel range by the first layer that scales, and the reason in words.

    A network that scales by itself takes 0..255, or 0..1. Returns None if no layer before the
    first other one scales: the pixels were scaled by somebody's own code.
    """
    with files.open_read(path) as file, zipfile.ZipFile(file) as archive:
        model = json.loads(archive.read("config.json"))
    # The file is checked by then, but not each of its fields.
    try:
        for layer in _first_layers(model):
            name = layer["class_name"]
            if name in _PASSING or name.startswith("Random"):
                continue
            pixel_range = _range_by(name, layer)
            if pixel_range is None:
                return None
            label = f"by its layer {str(layer['config'].get('name', name))[:100]!r}"
            return {"pixel_range": pixel_range}, label
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return None


def _first_layers(model: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the layers from the input to the first that has several followers."""
    layers = model["config"]["layers"]
    if model["class_name"] == "Sequential":
        chain = iter(layers)
    else:
        chain = _chain(layers, _name_of(model["config"]["input_layers"]))
    for layer in chain:
        if layer["class_name"] in _NESTED:
            yield from _first_layers(layer)
            return
        yield layer


def _name_of(inputs: Any) -> str:
    """Returns the name of the only input: [name, 0, 0], or a list of that."""
    first = inputs[0]
    return str(first if isinstance(first, str) else first[0])


def _chain(layers: list[dict[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    by_name = {layer["config"]["name"]: layer for layer in layers}
    followers: dict[str, set[str]] = {}
    for follower, layer in by_name.items():
        for source in _sources(layer.get("inbound_nodes", [])):
            followers.setdefault(source, set()).add(follower)
    # No layer comes twice, also in a file that describes a circle.
    for _ in layers:
        yield by_name[name]
        following = followers.get(name, set())
        if all(by_name[one]["class_name"] == "GetItem" for one in following):
            # The channels are taken apart, and stacked in another order.
            following = set().union(*(followers.get(one, ()) for one in following))
        if len(following) != 1:
            return
        (name,) = following


def _sources(nodes: Any) -> Iterator[str]:
    """Yields the names of the layers whose tensors a layer takes."""
    left = [nodes]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if value.get("class_name") == "__keras_tensor__":
                yield value["config"]["keras_history"][0]
            else:
                left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


_BYTES, _UNIT = (0.0, 255.0), (0.0, 1.0)


def _range_by(name: str, layer: dict[str, Any]) -> tuple[float, float] | None:
    """Returns the range that a first layer takes, if its constants tell."""
    config = layer["config"]
    if name == "Rescaling":
        return _by_scale(_largest(config["scale"]), _largest(config["offset"]))
    if name == "Normalization":
        return _by_shift(_largest(config["mean"]))
    constants = list(_constants(layer.get("inbound_nodes", [])))
    if len(constants) != 1:
        return None
    if name in ("Divide", "TrueDivide"):
        return _by_scale(1 / constants[0], 0.0)
    if name == "Multiply":
        return _by_scale(constants[0], 0.0)
    if name == "Add":
        return _by_shift(-constants[0])
    return _by_shift(constants[0]) if name == "Subtract" else None


def _by_scale(scale: float, offset: float) -> tuple[float, float] | None:
    """Returns the range of x by what x * scale + offset makes of it."""
    if 0 < scale <= 0.1:
        return _BYTES
    if scale >= 16:
        # The result is 0..255 then.
        return (0 - offset) / scale, (255 - offset) / scale
    return _UNIT if (scale, offset) == (2, -1) else None


def _by_shift(mean: float) -> tuple[float, float] | None:
    """Returns the range of x by the mean that is subtracted."""
    if mean > 2:
        return _BYTES
    return _UNIT if mean > 0.2 else None


def _largest(values: Any) -> float:
    left, numbers = [values], []
    while left:
        value = left.pop()
        if isinstance(value, dict):
            # Keras writes arrays as {"class_name": "__numpy__", "config": {"value": [...]}}.
            value = value["config"]["value"]
        if isinstance(value, list):
            left.extend(value)
        else:
            numbers.append(float(value))
    return max(numbers)


def _constants(nodes: Any) -> Iterator[float]:
    """Yields the numbers beside the tensor among an operation's arguments."""
    for node in nodes:
        for value in [*node["args"], *node["kwargs"].values()]:
            if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
                continue
            if value is not None:
                yield _largest(value)
