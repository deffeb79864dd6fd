"""Computes what a network takes from the pixels of an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from beam_flowers.backbones.catalogue import Backbone


def network_input(pixels: Any, row: Backbone) -> Any:
    """Computes the input of a network: embedding, fine-tuning and exports call this alone.

    Only operators are used, so that tensors of TensorFlow and of Keras and arrays are taken alike.
    In float32 the results equal those of Keras' `preprocess_input` to the bit.

    Args:
        pixels: float32 [N, height, width, 3], RGB, 0..255.
        row: the backbone, which says range, mean, deviation and order of the channels.

    Returns:
        float32 [N, height, width, 3].
    """
    low, high = row.pixel_range
    ordered = pixels[..., ::-1] if row.channels == "bgr" else pixels
    values = ordered / (255 / (high - low)) + low
    if row.mean:
        values = values - np.array(row.mean, np.float32)
    if row.std:
        values = values / np.array(row.std, np.float32)
    return values


def openvino_input(ops: Any, pixels: Any, row: Backbone) -> Any:
    """Computes `network_input` in OpenVINO, by the same steps: another order would round otherwise.

    Args:
        ops: an opset of OpenVINO.
        pixels: node, uint8 [N, height, width, 3], RGB.
        row: see `network_input`.

    Returns:
        A node, float32 [N, height, width, 3].
    """
    low, high = row.pixel_range
    values = ops.convert(pixels, "f32")
    if row.channels == "bgr":
        values = ops.gather(values, np.array([2, 1, 0]), np.array(3))
    values = ops.add(ops.divide(values, np.float32(255 / (high - low))), np.float32(low))
    if row.mean:
        values = ops.subtract(values, np.array(row.mean, np.float32))
    return ops.divide(values, np.array(row.std, np.float32)) if row.std else values
