"""Joins backbone and head in TensorFlow functions, and writes them as a SavedModel.

A SavedModel decodes JPEG and PNG files in TensorFlow operations alone. The rules are those of
`beam_flowers.images.decode`, with these differences:

- Pillow rounds and clips between its two passes, and composites at the end: ±1 level, and ±5
  at hard edges where bicubic or lanczos overshoot.
- Big JPEGs are decoded in full; Pillow decodes them at 1/2, 1/4 or 1/8 by DCT scaling.
- The orientation is read from a JPEG's EXIF only, not from XMP or a PNG.
- PNGs of 16 bits lose their low byte, grey ones their transparent colour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from beam_flowers.backbones.graph import constant_graph
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.backbones.tf_runtime import tensorflow
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


# ScaleAndTranslate's names of Pillow's filters; bicubic is Keys' with a = -0.5 in both.
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic", "lanczos": "lanczos3"}

_EXIF_BYTES = 65_535
"""Largest JPEG segment (ITU T.81, B.1.1.4); EXIF is in the first or second one."""


def pixels_of(content: Any, recipe: PixelRecipe) -> Any:
    """Decodes a string scalar, a JPEG or PNG file, to uint8 [height, width, 3]."""
    tf = tensorflow()
    is_jpeg = tf.io.is_jpeg(content)

    def decode_jpeg() -> Any:
        # The accurate transform is Pillow's; TensorFlow's default is off by up to 16 levels.
        pixels = tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.cast(pixels, tf.float32)

    image = tf.cond(is_jpeg, decode_jpeg, lambda: _decode_png(content))
    turn = tf.cond(is_jpeg, lambda: _orientation(content), lambda: tf.constant(1))
    target = tf.constant([recipe.height, recipe.width])
    size = tf.where(turn >= 5, target[::-1], target)
    upright = _upright(_resize(image, size, recipe, turn), turn)
    whole = tf.cast(tf.clip_by_value(tf.round(upright), 0, 255), tf.uint8)
    return tf.ensure_shape(whole, [recipe.height, recipe.width, 3])


def _decode_png(content: Any) -> Any:
    """Decodes a PNG to float32 [h, w, 3], on white."""
    tf = tensorflow()
    # With four channels, TensorFlow 2.21 gives palettes of 16 colours a wrong alpha.
    pixels = tf.cast(tf.io.decode_png(content, channels=0), tf.float32)
    channels = tf.shape(pixels)[2]
    alpha = tf.where(channels % 2 == 0, pixels[..., -1:] / 255, 1.0)
    colours = tf.gather(pixels, tf.where(channels < 3, [0, 0, 0], [0, 1, 2]), axis=2)
    return colours * alpha + 255 * (1 - alpha)


def _resize(image: Any, size: Any, recipe: PixelRecipe, turn: Any) -> Any:
    """Scales float32 [h, w, 3] to float32 [*size, 3], by Pillow's antialiased filter.

    `tf.image.resize` does not serve: it cannot crop at fractions of a pixel.
    """
    tf = tensorflow()
    pixels = tf.shape(image)[:2]
    extent = tf.cast(pixels, tf.float32)
    out = tf.cast(size, tf.float32)
    box = extent
    if recipe.crop is not None:
        wanted = out * recipe.crop * tf.reduce_min(extent / out)
        box = tf.minimum(extent, tf.maximum(1.0, wanted))
    scale = out / box
    translation = -scale * (extent - box) / 2
    if recipe.resize is not None:
        whole = recipe.resize * pixels // tf.reduce_min(pixels)
        scale = tf.cast(whole, tf.float32) / extent
        # Half a pixel is rounded in the upright image, of which this may be a mirror image.
        mirrored = tf.where(turn >= 5, _mirrored(turn)[::-1], _mirrored(turn))
        before = (whole - size + tf.cast(mirrored, tf.int32)) // 2
        translation = -tf.cast(before, tf.float32)
    return tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],
        size=size,
        scale=scale,
        translation=translation,
        kernel_type=_KERNELS[recipe.resample],
        antialias=True,
    )[0]


def _orientation(content: Any) -> Any:
    """Reads the first orientation tag after a JPEG's EXIF marker: int32 scalar, 1..8; else 1.

    An entry is 12 bytes (EXIF 2.32, tag 0x0112, type 3, count 1), in either byte order. It is
    searched for and not parsed: its eight fixed bytes hardly occur by chance.
    """
    tf = tensorflow()
    head = tf.strings.substr(content, 0, 2 * _EXIF_BYTES)
    behind = tf.strings.split(head, b"Exif\0\0", maxsplit=1)[1:2]
    orientation = tf.constant(1)
    for entry in (b"\x12\x01\x03\x00\x01\x00\x00\x00", b"\x01\x12\x00\x03\x00\x00\x00\x01"):
        value = tf.strings.split(behind, entry, maxsplit=1).flat_values[1:2]
        two = tf.strings.substr(tf.strings.join([value, b"\0\0"]), 0, 2)
        number = tf.reduce_sum(tf.cast(tf.io.decode_raw(two, tf.uint8), tf.int32))
        orientation = tf.where((number >= 1) & (number <= 8), number, orientation)
    return orientation


def _upright(image: Any, turn: Any) -> Any:
    """Turns and mirrors [h, w, 3] by an EXIF orientation."""
    tf = tensorflow()
    image = tf.cond(turn >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    rows, columns = tf.unstack(_mirrored(turn))
    image = tf.where(columns, image[:, ::-1], image)
    return tf.where(rows, image[::-1], image)


def _mirrored(turn: Any) -> Any:
    """Tells if an orientation mirrors rows, and columns, after it has swapped them: bool [2]."""
    tf = tensorflow()
    return tf.reduce_any(turn == tf.constant([[3, 4, 7, 8], [2, 3, 6, 7]]), axis=1)
