"""A resolved backbone → the one thing of a process that computes vectors."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones import openvino_engine, processor
from beam_flowers.backbones.catalogue import VECTORS
from beam_flowers.backbones.graph import constant_graph
from beam_flowers.backbones.network import Size, set_precision, tensorflow
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BackboneError
from beam_flowers.images.recipe import PixelRecipe

_LOADING = threading.Lock()


@dataclass(frozen=True)
class Engine:
    """A compiled network; safe to use from many threads at a time.

    Attributes:
        recipe: how pictures become pixels for it.
        vector_length: D, numbers in a vector.
        run: uint8 [1, height, width, 3] → float32 [1, D].
        batch: pictures that the network sees at a time. One, for two reasons. On CPUs, one
            thread a picture, more were not faster (2 cores: EfficientNet-Lite0 and Inception
            v3 within 15 % for 1, 2 and 4). And in a batch the last bits of a vector depend on
            the picture's place, so that the same files would not give the same store.
        vectors: one of `VECTORS`, what the numbers are rounded to; beyond its range they become
            infinite.
    """

    recipe: PixelRecipe
    vector_length: int
    run: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
    batch: int = 1
    vectors: str = VECTORS[0]

    @property
    def input_size(self) -> Size:
        """(height, width) in pixels."""
        return self.recipe.height, self.recipe.width

    def embed(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Vectors of pictures, each bit for bit what it would be alone.

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
        for picture, vector in zip(pixels, vectors, strict=True):
            vector[:] = self.run(picture[np.newaxis])[0]
        with np.errstate(over="ignore"):
            return vectors.astype(self.vectors, copy=False).astype(np.float32, copy=False)


def load(backbone: ResolvedBackbone) -> Engine:
    """The engine of a backbone; made once a process, however many threads ask.

    Raises:
        BackboneError: the weights are gone, have changed, or are no network as described; or
            this machine lacks the engine or the precision asked for.
    """
    with _LOADING:
        engine = _load(replace(backbone, vectors=VECTORS[0]))
    same = engine.vectors == backbone.vectors
    return engine if same else replace(engine, vectors=backbone.vectors)


@lru_cache(maxsize=4)
def _load(backbone: ResolvedBackbone) -> Engine:
    require_runnable(backbone)
    return _openvino(backbone) if backbone.engine == "openvino" else _tensorflow(backbone)


def require_runnable(backbone: ResolvedBackbone) -> None:
    """Checks, without loading anything, that this machine can run a backbone as resolved.

    Raises:
        BackboneError: it lacks the engine or the precision.
    """
    processor.require(backbone.precision)
    if backbone.engine == "openvino" and not openvino_engine.is_installed():
        raise BackboneError(
            f"OpenVINO is not installed on {socket.gethostname()}: pip install "
            "'beam-flowers[openvino]' there, or run with --engine tensorflow; every worker needs "
            "the engine that the run began with"
        )


def _openvino(backbone: ResolvedBackbone) -> Engine:
    try:
        network = openvino_engine.compile_network(backbone)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(
            f"OpenVINO does not take {backbone.row.name!r}, TensorFlow may: use --engine "
            f"tensorflow ({reason})"
        ) from error
    recipe = backbone.row.recipe(network.height, network.width)
    return Engine(recipe, network.vector_length, network.run)


def _tensorflow(backbone: ResolvedBackbone) -> Engine:
    set_precision(backbone.precision)
    function = constant_graph(backbone)
    _, height, width, _ = function.inputs[0].shape
    tf = tensorflow()

    def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        (vector,) = tf.nest.flatten(function(tf.constant(pixels)))
        return np.asarray(vector.numpy(), np.float32)

    return Engine(backbone.row.recipe(height, width), function.outputs[0].shape[-1], run)
