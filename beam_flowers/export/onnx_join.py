"""Joins an ONNX network with a head, in one ONNX model that takes pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.backbones.graph import loaded_weights
from beam_flowers.backbones.onnx_check import FLOAT, image_of, is_channels_last
from beam_flowers.backbones.onnx_file import MOST_BYTES, read_graph
from beam_flowers.backbones.onnx_output import parse_output, pooled_axes
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import ModelError
from beam_flowers.export.converters import require_onnx
from beam_flowers.export.graph import layers
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.softmax import Head
from beam_flowers.images.recipe import PixelRecipe

_PREFIX = "backbone/"
_AXES_AS_INPUT = 18
"""Operator set from which on `ReduceMean` takes its axes as an input."""


class _Steps:
    """Collects operations with their constants."""

    def __init__(self, opset: int) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.opset = opset

    def add(self, operator: str, *inputs: Any, output: str = "", **attributes: Any) -> str:
        """Appends an operation on tensors, by name, and constants; returns its output's name."""
        from onnx import helper, numpy_helper

        names = []
        for value in inputs:
            if not isinstance(value, str):
                constant = numpy_helper.from_array(value, f"constant{len(self.constants)}")
                self.constants.append(constant)
                value = constant.name
            names.append(value)
        output = output or f"step{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], **attributes))
        return output


def write_joined(
    path: str, bundle: Bundle, backbone: ResolvedBackbone, recipe: PixelRecipe
) -> None:
    """Writes an ONNX model: `pixels`, uint8 [1, height, width, 3] RGB → float32 [1, C] `scores`.

    It has the operator set of the network, all of whose layers stay.

    Args:
        path: file to write.
        bundle: the model.
        backbone: its backbone, of the kind `onnx`.
        recipe: of the backbone's pixels.

    Raises:
        ModelError: libraries are missing, or the model is larger than a file of ONNX can be.
        BackboneError: the network is missing or has changed.
    """
    require_onnx()
    import onnx
    from onnx import helper

    with loaded_weights(backbone) as local:
        image = image_of(read_graph(local), local)
        model = onnx.compose.add_prefix(onnx.load(local), _PREFIX)
    versions = (one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    graph, steps = model.graph, _Steps(next(versions, 1))
    values = _network_input(steps, "pixels", backbone.row)
    is_last = bool(is_channels_last(image))
    if not is_last:
        values = steps.add("Transpose", values, perm=[0, 3, 1, 2])
    steps.add("Cast", values, output=_PREFIX + image.name, to=image.data_type)
    count = len(steps.nodes)
    vectors = _vectors(steps, model, backbone.row.output, is_last)
    _scores(steps, vectors, bundle.head)
    nodes = [*steps.nodes[:count], *graph.node, *steps.nodes[count:]]
    shape = [1, recipe.height, recipe.width, 3]
    pixels = helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, shape)
    scores = helper.make_tensor_value_info("scores", FLOAT, [1, len(bundle.labels)])
    for field, made in (("node", nodes), ("input", [pixels]), ("output", [scores])):
        graph.ClearField(field)
        getattr(graph, field).extend(made)
    graph.initializer.extend(steps.constants)
    if model.ByteSize() > MOST_BYTES:
        raise ModelError(
            f"{backbone.row.name!r} with its head is larger than 2 GiB, the most that an ONNX file "
            "holds: take a smaller network, or another file of it, as model_fp16.onnx"
        )
    onnx.checker.check_model(model)
    Path(path).write_bytes(model.SerializeToString())


def _network_input(steps: _Steps, pixels: str, row: Backbone) -> str:
    """Computes `network_input` in ONNX's operations."""
    low, high = row.pixel_range
    values = steps.add("Cast", pixels, to=FLOAT)
    if row.channels == "bgr":
        values = steps.add("Gather", values, np.array([2, 1, 0]), axis=3)
    values = steps.add("Div", values, np.float32(255 / (high - low)))
    values = steps.add("Add", values, np.float32(low))
    if row.mean:
        values = steps.add("Sub", values, np.array(row.mean, np.float32))
    if row.std:
        values = steps.add("Div", values, np.array(row.std, np.float32))
    return values


def _vectors(steps: _Steps, model: Any, named: str, is_last: bool) -> str:
    output = parse_output(named)
    tensor = _PREFIX + output.tensor
    values = steps.add("Cast", tensor, to=FLOAT)
    if output.pooling == "class":
        return steps.add("Gather", values, np.array(0), axis=1)
    axes = pooled_axes(output, _rank(model, tensor), is_last, output.tensor)
    if not axes:
        return values
    if steps.opset < _AXES_AS_INPUT:
        return steps.add("ReduceMean", values, axes=list(axes), keepdims=0)
    return steps.add("ReduceMean", values, np.array(axes), keepdims=0)


def _rank(model: Any, tensor: str) -> int:
    """Returns the number of a tensor's axes; 2, as of a batch of vectors, where nothing says it."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    for value in (*graph.output, *graph.value_info):
        if value.name == tensor and value.type.tensor_type.HasField("shape"):
            return len(value.type.tensor_type.shape.dim)
    return 2


def _scores(steps: _Steps, vectors: str, head: Head) -> None:
    """Computes `scores` of vectors."""
    *hidden, (weights, bias) = layers(head)
    for hidden_weights, hidden_bias in hidden:
        product = steps.add("MatMul", vectors, hidden_weights)
        vectors = steps.add("Relu", steps.add("Add", product, hidden_bias))
    logits = steps.add("Add", steps.add("MatMul", vectors, weights), bias)
    if head.multi_label:
        steps.add("Sigmoid", logits, output="scores")
    else:
        steps.add("Softmax", logits, output="scores", axis=1)
