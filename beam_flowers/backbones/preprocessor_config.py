"""Reads and writes the recipe of a network as `preprocessor_config.json`.

The form is that of Hugging Face's image processors ViT, CLIP, Bit, Siglip and ConvNext. Keys of our
own say what they cannot: `pixel_range` [low, high] in place of `rescale_factor`, and
`crop_fraction`, the box that is cut out before the image is scaled.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, TypedDict

import msgspec

from beam_flowers import files
from beam_flowers.backbones.catalogue import Backbone, Channels
from beam_flowers.errors import BackboneError, BackboneFieldError
from beam_flowers.files.typed import Form
from beam_flowers.images.recipe import Resample

CONFIG_FILE = "preprocessor_config.json"

OWN_TYPE = "BeamFlowersImageProcessor"
"""Processor named in the files that this package writes."""

_SQUASH, _CUT, _CONVNEXT = ("ViT", "Siglip"), ("CLIP", "Bit"), "ConvNext"

# Pillow's numbers of its filters.
_FILTERS: dict[int, Resample] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}

_Side = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
_Sides = _Side | dict[str, _Side]
_Three = Annotated[list[float], msgspec.Meta(min_length=3, max_length=3)]


class RecipeFields(TypedDict, total=False):
    """Holds the fields of a `Backbone` that a file says."""

    input_size: int | None
    pixel_range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Channels
    crop: float | None
    resize: int | None
    resample: Resample
    output: str


class _Config(msgspec.Struct):
    """Holds the keys of `preprocessor_config.json` that are read."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    size: _Sides | None = None
    crop_size: _Sides | None = None
    crop_pct: float | None = None
    crop_fraction: float | None = None
    resample: int | str | None = None
    pixel_range: Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)] | None = None
    rescale_factor: float | None = None
    image_mean: _Three | None = None
    image_std: _Three | None = None
    do_resize: bool = True
    do_center_crop: bool | None = None
    do_rescale: bool = True
    rescale_offset: bool = False
    do_normalize: bool | None = None
    do_flip_channel_order: bool = False
    do_pad: bool = False


_FORM = Form(_Config, BackboneFieldError, "get it again, or write it anew", most=1 << 20)


def read_config(path: str) -> RecipeFields:
    """Reads the recipe of a file in the form of `preprocessor_config.json`.

    Raises:
        BackboneError: the file is missing, damaged, or asks for what is not done here.
    """
    try:
        data = files.read_bytes(path, _FORM.most + 1)
    except OSError as error:
        raise BackboneError(f"the recipe {path!r} cannot be read: {error}") from error
    config = _FORM.read(data, path)
    values = _values(config, path)
    fit = _fit(config, path)
    return {**values, **fit}


def _values(config: _Config, path: str) -> RecipeFields:
    """Returns how pixels become values."""
    if config.pixel_range is not None:
        low, high = config.pixel_range
    else:
        factor = config.rescale_factor
        low, high = 0.0, 255.0 * (1 / 255 if factor is None else factor)
        if not config.do_rescale:
            high = 255.0
        if config.rescale_offset:
            low, high = low - 1, high - 1
    mean, std = config.image_mean, config.image_std
    if config.do_normalize is False:
        mean = std = None
    elif config.do_normalize and (mean is None or std is None):
        raise _unclear(path, "image_mean and image_std, by which it normalizes")
    # One notation of equal channels, so that equal recipes have equal fingerprints.
    if _is_even(mean) and _is_even(std) and (mean or std):
        shift, divisor = (mean or [0.0])[0], (std or [1.0])[0]
        if divisor > 0:
            low, high = (low - shift) / divisor, (high - shift) / divisor
            mean = std = None
    return {
        # 255 times a factor with 16 digits is off in the last one.
        "pixel_range": (round(low, 12), round(high, 12)),
        "mean": tuple(mean or ()),
        "std": tuple(std or ()),
        "channels": "bgr" if config.do_flip_channel_order else "rgb",
    }


def _is_even(values: list[float] | None) -> bool:
    return len(set(values or ())) < 2


def _fit(config: _Config, path: str) -> RecipeFields:
    """Returns how an image becomes height x width pixels."""
    if config.do_pad or not config.do_resize:
        wish = "do_pad" if config.do_pad else "do_resize: false"
        raise BackboneError(
            f"{path!r} asks for {wish}, which is not done here: images are scaled to the size of "
            "the network, and nothing is added at their edges"
        )
    sides = config.size
    size = _square(sides, "size", path)
    fit: RecipeFields = {"input_size": size, "crop": config.crop_fraction, "resize": None}
    fit["resample"] = _filter(config.resample, path)
    kind = _kind(config, path)
    is_shortest = isinstance(sides, dict) and "shortest_edge" in sides
    cuts = config.crop_size is not None if config.do_center_crop is None else config.do_center_crop
    if kind == _CONVNEXT and size is not None:
        # Its code squashes images of 384 pixels and more, and cuts smaller ones.
        if size < 384:
            fit["resize"] = int(size / (config.crop_pct or 224 / 256))
    elif cuts and size is not None:
        fit["input_size"] = _square(config.crop_size, "crop_size", path) or size
        fit["resize"] = size if is_shortest or isinstance(sides, int) else None
        if fit["resize"] is None and fit["input_size"] != size:
            raise BackboneError(
                f"{path!r} squashes an image to {size} pixels and cuts {fit['input_size']} out of "
                "it, which is not done here: give size as {'shortest_edge': ...}"
            )
    elif is_shortest:
        raise _unclear(path, "do_center_crop and crop_size: else images have different sizes")
    return fit


def _kind(config: _Config, path: str) -> str:
    """Returns the processor's name without its ending, or an empty one."""
    named = config.image_processor_type or config.feature_extractor_type or ""
    if named in ("", OWN_TYPE):
        return ""
    kind = named
    for ending in ("Fast", "ImageProcessor", "FeatureExtractor"):
        kind = kind.removesuffix(ending)
    if kind in (*_SQUASH, *_CUT, _CONVNEXT):
        return kind
    supported = ", ".join((*_SQUASH, *_CUT, _CONVNEXT))
    raise BackboneError(
        f"{path!r} is for the image processor {named!r}, whose rules are not known here "
        f"(known: {supported}); if it does no more than scale, cut and normalize, say so in a "
        "file without image_processor_type, as --backbone-config"
    )


def _square(sides: _Sides | None, key: str, path: str) -> int | None:
    if sides is None or isinstance(sides, int):
        return sides
    known = {"height", "width"}, {"shortest_edge"}
    if set(sides) not in known or len(set(sides.values())) > 1:
        raise BackboneError(
            f"{path!r} has {key} {json.dumps(sides)}: only squares are taken, as a number, as "
            "equal height and width, or as shortest_edge"
        )
    return next(iter(sides.values()))


def _filter(resample: int | str | None, path: str) -> Resample:
    if resample is None:
        return Backbone.resample
    for number, name in _FILTERS.items():
        if resample in (number, name):
            return name
    names = ", ".join(f"{number} or {name!r}" for number, name in _FILTERS.items())
    raise BackboneError(f"{path!r} has resample {resample!r}, which is not done here: {names}")


def _unclear(path: str, missing: str) -> BackboneError:
    return BackboneError(f"{path!r} does not say {missing}: add that to it")


def config_of(row: Backbone) -> dict[str, Any]:
    """Returns the recipe of a backbone as a document that `read_config` reads back exactly."""
    side = row.input_size
    sized: dict[str, Any] = {}
    if side is not None:
        sized = {"size": {"height": side, "width": side}}
        if row.resize is not None:
            sized = {"size": {"shortest_edge": row.resize}, "crop_size": side}
    optional = {
        "crop_fraction": row.crop,
        "image_mean": list(row.mean) or None,
        "image_std": list(row.std) or None,
        "do_flip_channel_order": row.channels == "bgr" or None,
    }
    return {
        "image_processor_type": OWN_TYPE,
        **sized,
        "resample": row.resample,
        "pixel_range": list(row.pixel_range),
        **{key: value for key, value in optional.items() if value is not None},
    }
