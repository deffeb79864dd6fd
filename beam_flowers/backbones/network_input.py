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
