"""Builds EfficientNet-Lite in plain TensorFlow operations from its arrays.

The architecture is that of Tan & Le 2019, arXiv:1905.11946, in the Lite variant of the
TensorFlow TPU repository: no squeeze-and-excitation, ReLU6 for swish.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from beam_flowers import files
from beam_flowers.backbones.tf_runtime import Network, tensorflow
from beam_flowers.errors import BackboneFieldError
from beam_flowers.files.typed import Form

Arrays = dict[str, npt.NDArray[np.float32]]


class _Block(msgspec.Struct):
    """Holds the fields of a block in `architecture.json` that are read."""

    stride: Annotated[int, msgspec.Meta(ge=1, le=8)]
    expand_ratio: Annotated[int, msgspec.Meta(ge=1, le=64)]
    residual: bool


class _Architecture(msgspec.Struct):
    """Holds the fields of `architecture.json` that are read."""

    input_size: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    batch_norm_epsilon: Annotated[float, msgspec.Meta(gt=0, le=1)]
    blocks: Annotated[list[_Block], msgspec.Meta(max_length=1000)]


_ADVICE = "get it again from where the weights came from"
_FORM = Form(_Architecture, BackboneFieldError, _ADVICE, most=1 << 20)


def load(weights_file: str) -> Network:
    """Reads the network of an `.npz` file and the `architecture.json` beside it."""
    architecture, arrays = read(weights_file)
    size = architecture["input_size"]
    return Network(lambda pixels: vectors(pixels, architecture["blocks"], arrays), (size, size))


def read(weights_file: str) -> tuple[dict[str, Any], Arrays]:
    """Reads the architecture as in its JSON, and the arrays as `fold` returns them."""
    path = str(Path(weights_file).with_name("architecture.json"))
    data = files.read_document(path, _FORM)
    _FORM.read(data, path)
    try:
        architecture = json.loads(data)
    except (ValueError, RecursionError) as error:  # Fields that the form skips are read here.
        raise _FORM.wrong(path, "", str(error)) from error
    with np.load(weights_file, allow_pickle=False) as stored:
        return architecture, fold(dict(stored), architecture["batch_norm_epsilon"])


def fold(stored: Arrays, epsilon: float) -> Arrays:
    """Folds each batch norm into the convolution before it.

    gamma * (conv(x, k) - mean) / sqrt(variance + epsilon) + beta
    = conv(x, k * s) + (beta - mean * s) with s = gamma / sqrt(variance + epsilon).

    Args:
        stored: `<layer>_conv/kernel` [h, w, in, out] or `<layer>/depthwise_kernel` [h, w, in, 1],
            `<layer>_bn/{gamma, beta, moving_mean, moving_variance}`.
        epsilon: constant of the batch norms.

    Returns:
        `<layer>/kernel` and `<layer>/bias` of each layer, computed in float64.
    """
    folded: Arrays = {}
    for name, kernel in stored.items():
        if not name.endswith("kernel"):
            continue
        layer = name.rpartition("/")[0].removesuffix("_conv")
        norm = {k: stored[f"{layer}_bn/{k}"].astype(np.float64) for k in _NORM}
        scale = norm["gamma"] / np.sqrt(norm["moving_variance"] + epsilon)
        shaped = scale[:, np.newaxis] if name.endswith("depthwise_kernel") else scale
        folded[f"{layer}/kernel"] = (kernel * shaped).astype(np.float32)
        folded[f"{layer}/bias"] = (norm["beta"] - norm["moving_mean"] * scale).astype(np.float32)
    return folded


_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def vectors(pixels: Any, blocks: list[dict[str, Any]], arrays: dict[str, Any]) -> Any:
    """Computes float32 [N, height, width, 3] pixels → [N, 1280]; the arrays may be variables."""
    tf = tensorflow()
    x = tf.nn.relu6(_convolve(pixels, "stem", arrays, stride=2))
    for number, block in enumerate(blocks):
        x = _block(x, f"block{number:02d}", block, arrays)
    x = tf.nn.relu6(_convolve(x, "head", arrays))
    return tf.reduce_mean(x, axis=[1, 2])


def _block(x: Any, name: str, block: dict[str, Any], arrays: Arrays) -> Any:
    """Computes expansion, depthwise convolution and projection: MobileNetV2's inverted residual."""
    tf = tensorflow()
    inside = x
    if block["expand_ratio"] != 1:
        inside = tf.nn.relu6(_convolve(x, f"{name}_expand", arrays))
    layer, stride = f"{name}_depthwise", block["stride"]
    kernel, bias = arrays[f"{layer}/kernel"], arrays[f"{layer}/bias"]
    inside = tf.nn.depthwise_conv2d(inside, kernel, [1, stride, stride, 1], "SAME")
    inside = tf.nn.relu6(tf.nn.bias_add(inside, bias))
    projected = _convolve(inside, f"{name}_project", arrays)
    return projected + x if block["residual"] else projected


def _convolve(x: Any, layer: str, arrays: Arrays, stride: int = 1) -> Any:
    tf = tensorflow()
    convolved = tf.nn.conv2d(x, arrays[f"{layer}/kernel"], stride, "SAME")
    return tf.nn.bias_add(convolved, arrays[f"{layer}/bias"])
