"""Builds an ONNX network in OpenVINO, with the steps from pixels to its input and to its vector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from beam_flowers.backbones.graph import loaded_weights, require_length, require_size
from beam_flowers.backbones.network_input import openvino_input
from beam_flowers.backbones.onnx_check import (
    MOST_TENSOR_BYTES,
    TRUST_FLAG,
    image_of,
    is_channels_last,
)
from beam_flowers.backbones.onnx_file import read_graph
from beam_flowers.backbones.onnx_output import Output, parse_output, pooled_axes
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BackboneError


def build(library: Any, core: Any, backbone: ResolvedBackbone) -> Any:
    """Returns an ONNX network as an OpenVINO model: uint8 [N, height, width, 3] → float32 [N, D].

    N is open unless the network fixes it.

    Args:
        library: the imported `openvino`.
        core: its `Core`.
        backbone: of the kind `onnx`.

    Raises:
        BackboneError: the file is missing or has changed, OpenVINO does not take it, or it does not
            fit the backbone.
    """
    ops, output = library.opset13, parse_output(backbone.row.output)
    with loaded_weights(backbone) as path:
        image = image_of(read_graph(path), path)
        is_last = bool(is_channels_last(image))
        model = core.read_model(path)
        count, *sides = model.input(0).partial_shape
        height, width = _size(sides[:2] if is_last else sides[1:], backbone)
        model.reshape([1, height, width, 3] if is_last else [1, 3, height, width])
        _require_small(model, path, backbone.trusted)
        several = count.get_length() if count.is_static else -1
        shape = [several, height, width, 3] if is_last else [several, 3, height, width]
        model.reshape(library.PartialShape(shape))
        pixels = ops.parameter([several, height, width, 3], np.uint8, name="pixels")
        wanted = openvino_input(ops, pixels, backbone.row)
        if not is_last:
            wanted = ops.transpose(wanted, np.array([0, 3, 1, 2]))
        if image.data_type != 1:
            wanted = ops.convert(wanted, "f16")
        vectors = _vectors(ops, _find(model, output.tensor, path), output, is_last, path)
        model.input(0).get_node().output(0).replace(wanted.output(0))
        made = library.Model([ops.result(vectors)], [pixels], backbone.row.name)
        length = made.output(0).partial_shape[1]
        if length.is_dynamic:
            raise BackboneError(f"{path!r}: {output.tensor!r} has vectors of no fixed length")
        require_length(length.get_length(), backbone)
    return made


def _size(sides: Any, backbone: ResolvedBackbone) -> tuple[int, int]:
    side = backbone.row.input_size
    if all(one.is_static for one in sides):
        height, width = (one.get_length() for one in sides)
        require_size((height, width), backbone)
        return height, width
    if side is None:
        raise BackboneError(f"{backbone.place!r} leaves the size of its images open")
    return side, side


def _require_small(model: Any, path: str, trusted: bool) -> None:
    """Checks the sizes of all that is computed from one image, before anything is."""
    for operation in model.get_ops():
        name = operation.get_friendly_name()
        for sizes, kind in (
            (o.get_partial_shape(), o.get_element_type()) for o in operation.outputs()
        ):
            if sizes.is_static:
                size = math.prod([kind.size, *(one.get_length() for one in sizes)])
                if size > MOST_TENSOR_BYTES:
                    raise BackboneError(
                        f"{path!r}: {name!r} would make {size:,} bytes of one image, and more than "
                        f"{MOST_TENSOR_BYTES:,} are not taken"
                    )
            elif not trusted:
                raise BackboneError(
                    f"{path!r}: the size of what {name!r} makes depends on the image, so that one "
                    f"image may take all memory: export it without that, or insist with "
                    f"{TRUST_FLAG} if you trust the network"
                )


def _find(model: Any, tensor: str, path: str) -> Any:
    for operation in model.get_ordered_ops():
        if operation.get_type_name() != "Result":
            for made in operation.outputs():
                if tensor in made.get_names():
                    return made
    raise BackboneError(
        f"{path!r}: OpenVINO merges the tensor {tensor!r} into others: give one beside it as "
        "--backbone-output, or --engine onnxruntime"
    )


def _vectors(ops: Any, found: Any, output: Output, is_last: bool, path: str) -> Any:
    rank = found.get_partial_shape().rank
    if rank.is_dynamic:
        raise BackboneError(f"{path!r}: {output.tensor!r} has no fixed rank, so is no vector")
    axes = pooled_axes(output, rank.get_length(), is_last, path)
    values = ops.convert(found, "f32")
    if output.pooling == "class":
        values = ops.gather(values, np.array(0), np.array(1))
    elif axes:
        values = ops.reduce_mean(values, np.array(axes), False)
    return values
