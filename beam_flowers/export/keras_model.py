"""Writes backbone and head as one Keras model of plain layers, which loads with Keras alone."""

from __future__ import annotations

from typing import Any

from beam_flowers.backbones import efficientnet_lite, keras_models, weights
from beam_flowers.backbones.efficientnet_lite import Arrays
from beam_flowers.backbones.keras_models import keras_library
from beam_flowers.backbones.network_input import network_input
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import ModelError
from beam_flowers.export.graph import layers
from beam_flowers.head.bundle import Bundle
from beam_flowers.images.recipe import PixelRecipe


def write_keras(path: str, bundle: Bundle, backbone: ResolvedBackbone, recipe: PixelRecipe) -> None:
    """Writes a `.keras` file: [N, height, width, 3] pixels, 0..255, RGB → float32 [N, C] scores.

    Raises:
        ModelError: if the backbone is a SavedModel, which has no layers.
    """
    keras, head = keras_library(), bundle.head
    vectors = vectors_model(backbone, recipe)
    x = vectors.output
    *hidden, last = layers(head)
    for kernel, bias in hidden:
        x = _add(keras.layers.Dense(len(bias), "relu", name="hidden"), x, kernel, bias)
    activation = "sigmoid" if head.multi_label else "softmax"
    scores = _add(keras.layers.Dense(len(last[1]), activation, name="scores"), x, *last)
    keras.Model(vectors.input, scores, name="beam_flowers").save(path)


def vectors_model(backbone: ResolvedBackbone, recipe: PixelRecipe) -> Any:
    """Returns a Keras model of [N, height, width, 3] pixels, 0..255, RGB → float32 [N, D] vectors.

    Raises:
        ModelError: if the backbone is a SavedModel, which has no layers.
    """
    keras = keras_library()
    pixels = keras.Input((recipe.height, recipe.width, 3), name="pixels")
    wanted = network_input(pixels, backbone.row)
    vectors = keras.layers.Flatten(name="vectors")(_backbone(wanted, backbone))
    return keras.Model(pixels, vectors, name=backbone.row.name.replace("/", "_"))


def _backbone(x: Any, backbone: ResolvedBackbone) -> Any:
    if backbone.kind == "saved-model":
        raise ModelError(
            f"the backbone {backbone.row.name!r} is a SavedModel, which has no Keras layers: "
            "use --to savedmodel, tflite or onnx"
        )
    if backbone.kind == "efficientnet-lite":
        with weights.local_copy(backbone.place, backbone.kind) as local:
            architecture, arrays = efficientnet_lite.read(local)
        return _efficientnet_lite(x, architecture["blocks"], arrays)
    with weights.local_copy(backbone.path, backbone.kind) as local:
        if backbone.kind == "keras-file":
            model = keras_models.read_file(local, backbone)
        else:
            model = keras_models.read_application(local, backbone.row)
    outputs = model(x, training=False)
    if isinstance(outputs, list | tuple | dict):
        raise ModelError(
            f"the backbone {backbone.row.name!r} has {len(outputs)} outputs: use --to savedmodel"
        )
    if outputs.ndim == 4:
        return keras_library().layers.GlobalAveragePooling2D()(outputs)
    return outputs


def _efficientnet_lite(x: Any, blocks: list[dict[str, Any]], arrays: Arrays) -> Any:
    """Builds the architecture of `efficientnet_lite.load` in layers."""
    x = _relu6(_convolve(x, "stem", arrays, stride=2))
    for number, block in enumerate(blocks):
        x = _block(x, f"block{number:02d}", block, arrays)
    x = _relu6(_convolve(x, "head", arrays))
    return keras_library().layers.GlobalAveragePooling2D()(x)


def _block(x: Any, name: str, block: dict[str, Any], arrays: Arrays) -> Any:
    keras = keras_library()
    inside = x
    if block["expand_ratio"] != 1:
        inside = _relu6(_convolve(x, f"{name}_expand", arrays))
    layer = f"{name}_depthwise"
    kernel, bias = arrays[f"{layer}/kernel"], arrays[f"{layer}/bias"]
    depthwise = keras.layers.DepthwiseConv2D(kernel.shape[:2], block["stride"], "same", name=layer)
    inside = _relu6(_add(depthwise, inside, kernel, bias))
    projected = _convolve(inside, f"{name}_project", arrays)
    return keras.layers.Add()([projected, x]) if block["residual"] else projected


def _convolve(x: Any, layer: str, arrays: Arrays, *, stride: int = 1) -> Any:
    kernel, bias = arrays[f"{layer}/kernel"], arrays[f"{layer}/bias"]
    convolution = keras_library().layers.Conv2D(
        len(bias), kernel.shape[:2], stride, "same", name=layer
    )
    return _add(convolution, x, kernel, bias)


def _add(layer: Any, x: Any, kernel: Any, bias: Any) -> Any:
    """Applies a layer to `x`, which builds it, then sets its weights."""
    x = layer(x)
    layer.set_weights([kernel, bias])
    return x


def _relu6(x: Any) -> Any:
    return keras_library().layers.ReLU(6.0)(x)
