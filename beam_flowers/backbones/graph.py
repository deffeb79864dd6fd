"""Builds the TensorFlow function without variables from which every engine starts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from beam_flowers.backbones import cache, efficientnet_lite, keras_models, saved_model, weights
from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.backbones.network_input import network_input
from beam_flowers.backbones.outputs import cut_graph, inlined, of_graph
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.backbones.tf_runtime import Network, Size, named_outputs, tensorflow, vector_of
from beam_flowers.errors import BackboneError

_GRAPH, _TENSORS = "network.pb", "tensors"


def kept_graph(backbone: ResolvedBackbone) -> Any:
    """Returns the constant graph of one uint8 image, from the cache if it was made before.

    Reading it from there needs neither the weights nor Keras.

    Raises:
        BackboneError: in the cases of `constant_graph`.
    """
    folder = cache.place(backbone, "tensorflow", tensorflow().__version__)
    if cache.is_whole(folder):
        return _read_graph(folder)
    function = constant_graph(backbone)

    def save(made: Path) -> None:
        (made / _GRAPH).write_bytes(function.graph.as_graph_def().SerializeToString())
        (made / _TENSORS).write_text(f"{function.inputs[0].name} {function.outputs[0].name}")

    cache.keep(folder, save)
    return function


def _read_graph(folder: Path) -> Any:
    tf = tensorflow()
    graph = tf.compat.v1.GraphDef.FromString((folder / _GRAPH).read_bytes())
    pixels, vectors = (folder / _TENSORS).read_text().split()
    (placeholder,) = (node for node in graph.node if f"{node.name}:0" == pixels)
    specified = tf.TensorSpec(tf.TensorShape(placeholder.attr["shape"].shape), tf.uint8)

    def network(values: Any) -> Any:
        (output,) = tf.graph_util.import_graph_def(
            graph, input_map={pixels: values}, return_elements=[vectors], name=""
        )
        return output

    # `tf.function` would merge the frames of loops inside the network.
    return tf.compat.v1.wrap_function(network, [specified])


def constant_graph(backbone: ResolvedBackbone, dtype: str = "uint8", count: int | None = 1) -> Any:
    """Returns a backbone with its weights as constants, to run it or to export it.

    Args:
        backbone: result of `resolve`.
        dtype: type of the pixels, which are 0..255 in any type.
        count: N, images at a time; None leaves it open, which not every backbone allows.

    Returns:
        A concrete function: `dtype` [N, height, width, 3] → float32 [N, D].

    Raises:
        BackboneError: the weights are missing, have changed, or do not fit the backbone.
    """
    path = backbone.place
    with loaded_weights(backbone) as local:
        network = _read(local, backbone)
        _require_bytes(network, backbone.row, path)
        size = _input_size(network, backbone)
        pixels = tensorflow().TensorSpec([count, *size, 3], dtype)
        function = _freeze(network, pixels, backbone, path)
        if backbone.kind == "saved-model":
            function = of_graph(function, path, backbone)
    require_length(function.outputs[0].shape[-1], backbone)
    return function


@contextlib.contextmanager
def loaded_weights(backbone: ResolvedBackbone) -> Iterator[str]:
    """Yields a local path of a backbone's weights; errors of the block name the backbone.

    Raises:
        BackboneError: the weights are missing or have changed, or the block cannot load them.
    """
    path = backbone.place
    try:
        with weights.local_copy(path, backbone.kind) as local:
            _require_unchanged(local, path, backbone)
            yield local
    except BackboneError:
        raise
    except Exception as error:  # Errors of Keras, TensorFlow and h5py have no common base.
        reason = " ".join(str(error).split())[:500]
        raise BackboneError(
            f"{path!r} cannot be loaded as {backbone.row.name!r}: {type(error).__name__}: {reason}"
        ) from error


def require_length(length: int, backbone: ResolvedBackbone) -> None:
    """Checks the length of a network's vectors against the row of its backbone.

    Raises:
        BackboneError: the row has another length.
    """
    if backbone.row.vector_length not in (None, length):
        raise BackboneError(
            f"{backbone.place!r} gives vectors of {length} numbers, {backbone.row.name!r} has "
            f"{backbone.row.vector_length}: it is another network, or one with its classifier"
        )


def _require_unchanged(local: str, path: str, backbone: ResolvedBackbone) -> None:
    digest = weights.sha256(local, backbone.kind)
    if digest != backbone.weights_sha256:
        raise BackboneError(
            f"the weights of {backbone.row.name!r} at {path!r} are not those that the run began "
            f"with: sha256 {digest}, not {backbone.weights_sha256}; every worker needs the same"
        )


def _read(local: str, backbone: ResolvedBackbone) -> Network:
    if backbone.kind == "efficientnet-lite":
        return efficientnet_lite.load(local)
    if backbone.kind == "keras-weights":
        return keras_models.load_application(local, backbone.row)
    if backbone.kind == "keras-file":
        return keras_models.load_file(local, backbone)
    return saved_model.load(local, backbone.trusted)


def _require_bytes(network: Network, row: Backbone, path: str) -> None:
    if network.takes_bytes and (row.pixel_range != (0, 255) or row.mean or row.std):
        raise BackboneError(
            f"{path!r} takes uint8, 0..255, and scales by itself: leave --pixel-range out, or give "
            "0,255 without mean and deviation"
        )


def _input_size(network: Network, backbone: ResolvedBackbone) -> Size:
    row = backbone.row
    if network.size:
        require_size(network.size, backbone)
    size = (row.input_size, row.input_size) if row.input_size is not None else network.size
    if size is None:
        raise BackboneError(
            f"{backbone.place!r} leaves the size of its images open: give the one that it was "
            "trained with as --input-size (in Python input_size), or export it with a fixed height "
            "and width, such as [None, 224, 224, 3]"
        )
    return size


def require_size(size: Size, backbone: ResolvedBackbone) -> None:
    """Checks (height, width) of a network's input against the row of its backbone.

    Raises:
        BackboneError: the row has another size.
    """
    side = backbone.row.input_size
    if side is not None and size != (side, side):
        raise BackboneError(
            f"{backbone.place!r} takes images of {size[0]} x {size[1]} pixels, "
            f"{backbone.row.name!r} has {side} x {side}: it is another network"
        )


def _freeze(network: Network, pixels: Any, backbone: ResolvedBackbone, path: str) -> Any:
    """Returns a function of pixels to float32 [N, D], without variables.

    TensorFlow folds batch norms into kernels only if both are constants.
    """
    tf = tensorflow()
    count = pixels.shape[0] or -1
    # Keras models end in the layer asked for already.
    output = backbone.row.output if backbone.kind == "saved-model" else ""
    is_inside = False

    def vectors(values: Any) -> Any:
        nonlocal is_inside
        outputs = network.call(network_input(tf.cast(values, tf.float32), backbone.row))
        is_inside = bool(output) and output not in named_outputs(outputs)
        if is_inside:
            return tf.nest.flatten(outputs)
        return vector_of(outputs, repr(path), count, output)

    function = tf.function(vectors, autograph=False).get_concrete_function(pixels)
    if is_inside:
        return cut_graph(function, path, output, count)
    if not function.captured_inputs:
        return function
    frozen = inlined(function)
    if len(frozen.inputs) > 1:
        raise BackboneError(
            f"{path!r} holds more than weights, such as a table to look things up in: export the "
            "network without it"
        )
    return frozen
