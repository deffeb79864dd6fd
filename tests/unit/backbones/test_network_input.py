"""The values that a network gets of its pixels."""

import numpy as np
import pytest

from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.backbones.network_input import network_input

ROWS = {
    "tf": Backbone("any", 8, 1),
    "torch": Backbone(
        "any", 8, 1, (0.0, 1.0), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    "caffe": Backbone("any", 8, 1, (0.0, 255.0), mean=(103.939, 116.779, 123.68), channels="bgr"),
}


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)


def test_a_network_that_scales_itself_gets_the_pixels_as_they_are(pixels):
    row = Backbone("any", 8, 1, (0.0, 255.0))
    np.testing.assert_array_equal(network_input(pixels, row), pixels)


@pytest.mark.parametrize("mode", ROWS)
@pytest.mark.parametrize("graph", [False, True])
def test_each_mode_of_keras_gives_its_bits(pixels, mode, graph):
    from beam_flowers.backbones.keras_models import keras_library

    keras_library()
    from keras.src.applications.imagenet_utils import preprocess_input

    found, expected = pixels, preprocess_input(pixels.copy(), mode=mode)
    if graph:
        import tensorflow as tf

        found = tf.constant(pixels)
    np.testing.assert_array_equal(network_input(found, ROWS[mode]), expected)
