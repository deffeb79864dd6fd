"""Loads the engine of a resolved backbone, once a process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones import hardware, onnxruntime_engine, openvino_engine
from beam_flowers.backbones.catalogue import VECTORS
from beam_flowers.backbones.graph import kept_graph
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.backbones.tf_runtime import Size, set_precision, tensorflow
from beam_flowers.errors import BackboneError
from beam_flowers.images.recipe import PixelRecipe

_LOADING = threading.Lock()


@dataclass(frozen=True)
class Engine:
    """Holds a compiled backbone; safe to use from many threads at a time.

    Attributes:
        recipe: crop, size and filter of its images.
        vector_length: D, numbers in an embedding.
        run: uint8 [N, height, width, 3] → float32 [N, D], N being 1 or `batch`.
        batch: images that it computes at a time. One with TensorFlow, where the last bits of a
            vector depend on the image's place in a batch, so that the same files would not give
            the same store.
        vectors: one of `VECTORS`, to which the numbers are rounded; numbers beyond its range
            become infinite.
    """

    recipe: PixelRecipe
    vector_length: int
    run: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
    batch: int = 1
    vectors: str = VECTORS[0]

    @property
    def input_size(self) -> Size:
        """(height, width) of the input in pixels."""
        return self.recipe.height, self.recipe.width

    def embed(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Computes embeddings of images, each to the bit as if computed alone.

        Args:
            pixels: uint8 [N, height, width, 3], RGB.

        Returns:
            float32 [N, D].
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (*self.input_size, 3):
            raise BackboneError(
                f"pixels of {pixels.dtype} {list(pixels.shape)} do not fit: the network takes "
                f"uint8 [N, {self.recipe.height}, {self.recipe.width}, 3]"
            )
        vectors = np.empty((len(pixels), self.vector_length), np.float32)
        whole = len(pixels) - len(pixels) % self.batch
        # The rest of a batch is computed one by one: the network takes 1 or `batch` images only.
        bounds = [*range(0, whole, self.batch), *range(whole, len(pixels) + 1)]
        for begin, end in pairwise(bounds):
            vectors[begin:end] = self.run(pixels[begin:end])
        with np.errstate(over="ignore"):
            return vectors.astype(self.vectors, copy=False).astype(np.float32, copy=False)


def load(backbone: ResolvedBackbone) -> Engine:
    """Returns the engine of a backbone, made once a process for all threads.

    Raises:
        BackboneError: the weights are missing, have changed, or do not fit the backbone; or this
            machine lacks the engine or the precision.
    """
    with _LOADING:
        engine = _load(replace(backbone, vectors=VECTORS[0]))
    same = engine.vectors == backbone.vectors
    return engine if same else replace(engine, vectors=backbone.vectors)


@lru_cache(maxsize=4)
def _load(backbone: ResolvedBackbone) -> Engine:
    require_runnable(backbone)
    if backbone.engine == "tensorflow":
        return _tensorflow(backbone)
    return _openvino(backbone) if backbone.engine == "openvino" else _onnxruntime(backbone)


def require_runnable(backbone: ResolvedBackbone) -> None:
    """Checks, without loading it, that this machine can run a resolved backbone.

    Raises:
        BackboneError: the machine lacks the engine or the precision.
    """
    hardware.require(backbone.precision)
    if backbone.precision == "int8" and backbone.engine != "openvino":
        raise BackboneError(
            f"{backbone.row.name!r} in int8 runs on OpenVINO only: leave --engine tensorflow out "
            "(pip install openvino, where it is not installed)"
        )
    other = "onnxruntime" if backbone.kind == "onnx" else "tensorflow"
    if backbone.engine == "openvino" and not openvino_engine.is_installed():
        raise BackboneError(
            f"OpenVINO is not installed on {socket.gethostname()}: pip install openvino there, or "
            f"run with --engine {other}; every worker needs the engine that the run began with"
        )
    if backbone.engine != "onnxruntime":
        return
    if backbone.precision != "float32":
        raise BackboneError(
            f"ONNX Runtime runs {backbone.row.name!r} as it is, not in {backbone.precision}: leave "
            "--precision or --engine out, or give another file of the network, as model_fp16.onnx"
        )
    if not onnxruntime_engine.is_installed():
        raise BackboneError(
            f"ONNX Runtime is not installed on {socket.gethostname()}: pip install "
            "'beam-flowers[onnx]' there, or openvino and run with --engine openvino"
        )


def _openvino(backbone: ResolvedBackbone) -> Engine:
    try:
        network = openvino_engine.compile_network(backbone)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        other, engine = "TensorFlow", "tensorflow"
        if backbone.kind == "onnx":
            other, engine = "ONNX Runtime", "onnxruntime"
        raise BackboneError(
            f"OpenVINO does not take {backbone.row.name!r}, {other} may: use --engine {engine} "
            f"({reason})"
        ) from error
    recipe = backbone.row.recipe(network.height, network.width)
    return Engine(recipe, network.vector_length, network.run, network.batch)


def _onnxruntime(backbone: ResolvedBackbone) -> Engine:
    network = onnxruntime_engine.compile_network(backbone)
    recipe = backbone.row.recipe(network.height, network.width)
    return Engine(recipe, network.vector_length, network.run)


def _tensorflow(backbone: ResolvedBackbone) -> Engine:
    set_precision(backbone.precision)
    function = kept_graph(backbone)
    _, height, width, _ = function.inputs[0].shape
    tf = tensorflow()

    def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        (vector,) = tf.nest.flatten(function(tf.constant(pixels)))
        return np.asarray(vector.numpy(), np.float32)

    # The first call optimises the graph. Threads that make it at the same time would each do so:
    # twice the memory and the seconds for Inception v3 and four threads.
    run(np.zeros((1, height, width, 3), np.uint8))
    return Engine(backbone.row.recipe(height, width), function.outputs[0].shape[-1], run)
