"""Loads backbones of Keras 3: weights of one of its applications, or a whole `.keras` file."""

from __future__ import annotations

import os
from typing import Any

from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.backbones.keras_check import require_no_code, require_safe_keras
from beam_flowers.backbones.outputs import of_keras
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.backbones.tf_runtime import Network, static_size, tensorflow
from beam_flowers.errors import BackboneError


def load_application(weights_file: str, row: Backbone) -> Network:
    """Loads a Keras application as a network; see `read_application`."""
    return _network(read_application(weights_file, row), weights_file)


def load_file(path: str, backbone: ResolvedBackbone) -> Network:
    """Loads a `.keras` file as a network; see `read_file`."""
    return _network(read_file(path, backbone), path)


def read_application(weights_file: str, row: Backbone) -> Any:
    """Builds `keras.applications.<row.architecture>` without classifier, averaged, with weights."""
    applications = keras_library().applications
    build = getattr(applications, row.architecture)
    shape = (row.input_size, row.input_size, 3)
    model = build(include_top=False, weights=None, pooling="avg", input_shape=shape)
    model.load_weights(weights_file)
    return model


def read_file(path: str, backbone: ResolvedBackbone) -> Any:
    """Reads the model of a `.keras` file in Keras' safe mode, up to the output asked for.

    Raises:
        BackboneError: it names a class that could run code, or Keras' safe mode has a bypass; or
            it ends in classes, or lacks the layer asked for.
    """
    require_safe_keras(path)
    require_no_code(path)
    model = keras_library().models.load_model(path, compile=False, safe_mode=True)
    return of_keras(model, backbone.path, backbone)


def keras_library() -> Any:
    """Imports Keras 3 on TensorFlow.

    Raises:
        BackboneError: Keras is set to another backend.
    """
    tensorflow()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    if keras.backend.backend() != "tensorflow":
        raise BackboneError(
            f"Keras is set to the backend {keras.backend.backend()!r}: unset KERAS_BACKEND, or "
            "set it to 'tensorflow'"
        )
    return keras


def _network(model: Any, path: str) -> Network:
    if len(model.inputs) != 1:
        raise BackboneError(f"{path!r} has {len(model.inputs)} inputs; one, an image, is wanted")
    # Arrays become constants of the graph at once, so that it need not be frozen: that saves more
    # than half of the loading time of Inception v3.
    trainable = [variable.value.numpy() for variable in model.trainable_variables]
    others = [variable.value.numpy() for variable in model.non_trainable_variables]

    def call(pixels: Any) -> Any:
        return model.stateless_call(trainable, others, pixels, training=False)[0]

    return Network(call, static_size(model.inputs[0].shape, repr(path)))
