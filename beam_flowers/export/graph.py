"""Joins backbone and head in TensorFlow functions, and writes them as a SavedModel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from beam_flowers.backbones.graph import constant_graph
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.backbones.tf_runtime import tensorflow
from beam_flowers.export.decoding import pixels_of
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.softmax import Floats, Head
from beam_flowers.images.recipe import PixelRecipe
from beam_flowers.scoring.ranking import TOP_K

Layer = tuple[Floats, Floats]


def layers(head: Head) -> list[Layer]:
    """Returns (weights [in, out], bias [out]) of each layer, float32.

    The last layer is divided by the temperature.
    """
    weights, bias = (array / np.float64(head.temperature) for array in (head.weights, head.bias))
    last = (weights.astype(np.float32), bias.astype(np.float32))
    if head.hidden_weights is None or head.hidden_bias is None:
        return [last]
    return [(head.hidden_weights, head.hidden_bias), last]


def scores_of(vectors: Any, head: Head) -> Any:
    """Computes float32 [N, C] scores of float32 [N, D] embeddings."""
    tf = tensorflow()
    *hidden, (weights, bias) = layers(head)
    for hidden_weights, hidden_bias in hidden:
        vectors = tf.nn.relu(vectors @ hidden_weights + hidden_bias)
    logits = vectors @ weights + bias
    return tf.sigmoid(logits) if head.multi_label else tf.nn.softmax(logits)


def classifier(bundle: Bundle, backbone: ResolvedBackbone, dtype: str = "uint8") -> Any:
    """Returns a concrete function of `pixels` [1, height, width, 3] → float32 [1, C] scores."""
    tf = tensorflow()
    graph = constant_graph(backbone, dtype)

    def scores(pixels: Any) -> Any:
        (vectors,) = tf.nest.flatten(graph(pixels))
        return scores_of(vectors, bundle.head)

    signature = tf.TensorSpec(graph.inputs[0].shape, dtype, "pixels")
    return tf.function(scores, autograph=False).get_concrete_function(signature)


def write_saved_model(
    folder: str, bundle: Bundle, backbone: ResolvedBackbone, recipe: PixelRecipe
) -> None:
    """Writes a SavedModel with two signatures.

    `serving_default`: `image_bytes`, string [N], JPEG or PNG files → `label` string [N], `score`
    float32 [N], `labels` string [N, k], `scores` float32 [N, k], best first, k = 5 or all.
    `vectors`: `pixels`, uint8 [N, height, width, 3] → `vectors` float32 [N, D].
    """
    tf = tensorflow()
    graph = constant_graph(backbone)
    length = graph.outputs[0].shape[-1]
    size = [recipe.height, recipe.width, 3]

    def vector(pixels: Any) -> Any:
        (vectors,) = tf.nest.flatten(graph(pixels[tf.newaxis]))
        return vectors[0]

    def each(function: Callable[[Any], Any], batch: Any) -> Any:
        # Image by image, as `embed` does: the bits of a vector must not depend on its batch.
        spec = tf.TensorSpec([length], tf.float32)
        return tf.map_fn(function, batch, fn_output_signature=spec)

    def serve(image_bytes: Any) -> dict[str, Any]:
        vectors = each(lambda content: vector(pixels_of(content, recipe)), image_bytes)
        scores = scores_of(vectors, bundle.head)
        best, order = tf.math.top_k(scores, min(TOP_K, len(bundle.labels)))
        names = tf.gather(tf.constant(bundle.labels), order)
        return {"label": names[:, 0], "score": best[:, 0], "labels": names, "scores": best}

    def vectors(pixels: Any) -> dict[str, Any]:
        return {"vectors": each(vector, pixels)}

    def function(run: Callable[[Any], Any], shape: list[int | None], dtype: Any, name: str) -> Any:
        return tf.function(run, [tf.TensorSpec(shape, dtype, name)], autograph=False)

    module = tf.Module()
    module.serve = function(serve, [None], tf.string, "image_bytes")
    module.vectors = function(vectors, [None, *size], tf.uint8, "pixels")
    signatures = {"serving_default": module.serve, "vectors": module.vectors}
    tf.saved_model.save(module, folder, signatures=signatures)
