"""Runs ONNX networks on ONNX Runtime, where OpenVINO has no wheels or does not take a network."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones.graph import loaded_weights, require_length, require_size
from beam_flowers.backbones.network_input import network_input
from beam_flowers.backbones.onnx_check import FLOAT, image_of, is_channels_last, sides_of
from beam_flowers.backbones.onnx_file import read_graph
from beam_flowers.backbones.onnx_output import parse_output, pooled_axes
from beam_flowers.backbones.openvino_engine import Compiled
from beam_flowers.backbones.resolve import ResolvedBackbone

_NOTHING_BUT_FATAL = 4


def is_installed() -> bool:
    """Tells if ONNX Runtime can be imported, without importing it."""
    return importlib.util.find_spec("onnxruntime") is not None


def compile_network(backbone: ResolvedBackbone) -> Compiled:
    """Reads a backbone of the kind `onnx` for this machine's CPU; it takes one image at a time.

    Raises:
        BackboneError: the file is missing or has changed, the runtime does not take it, or it does
            not fit the backbone.
    """
    with loaded_weights(backbone) as path:
        graph = read_graph(path)
        image, row = image_of(graph, path), backbone.row
        output = parse_output(row.output)
        session = _session(path, output.tensor, {value.name for value in graph.outputs})
        if sides := sides_of(image):
            require_size(sides, backbone)
        height, width = sides or (row.input_size or 0,) * 2
        is_last = bool(is_channels_last(image))
        dtype = np.float32 if image.data_type == FLOAT else np.float16

        def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            wanted = network_input(pixels.astype(np.float32), row)
            wanted = wanted if is_last else wanted.transpose(0, 3, 1, 2)
            taken = np.ascontiguousarray(wanted, dtype)
            values = session.run([output.tensor], {image.name: taken})[0]
            axes = pooled_axes(output, values.ndim, is_last, path)
            values = values.astype(np.float32)
            if output.pooling == "class":
                return values[:, 0]
            return values.mean(axes) if axes else values

        # The first run shows if the network takes one image, and what it gives.
        length = run(np.zeros((1, height, width, 3), np.uint8)).shape[1]
        require_length(length, backbone)
    return Compiled(run, height, width, length, 1)


def _session(path: str, tensor: str, outputs: set[str]) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # A thread computes an image: those of the pool are as many as there are cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = _NOTHING_BUT_FATAL
    providers = ["CPUExecutionProvider"]
    if tensor in outputs:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    folder = path.rpartition("/")[0] or "."
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    with open(path, "rb") as file:
        model = file.read() + _one_more_output(tensor)
    return onnxruntime.InferenceSession(model, options, providers=providers)


def _one_more_output(tensor: str) -> bytes:
    """Returns bytes that give a graph an output: parsers merge messages that come in pieces.

    They are `ModelProto.graph` (field 7) with a `GraphProto.output` (12) of that `name` (1).
    """
    piece = tensor.encode()
    for number in (1, 12, 7):
        piece = bytes([number << 3 | 2]) + _varint(len(piece)) + piece
    return piece


def _varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])
