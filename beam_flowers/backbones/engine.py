"""A resolved backbone → the one thing of a process that computes vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones import efficientnet_lite, keras_models, saved_model, weights
from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.backbones.network import Network, Size, tensorflow, vector_of
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
    """

    recipe: PixelRecipe
    vector_length: int
    run: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
    batch: int = 1

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
        return vectors


def load(backbone: ResolvedBackbone) -> Engine:
    """The engine of a backbone; made once a process, however many threads ask.

    Raises:
        BackboneError: the weights are gone, have changed, or are no network as described.
    """
    with _LOADING:
        return _load(backbone)


@lru_cache(maxsize=4)
def _load(backbone: ResolvedBackbone) -> Engine:
    path = backbone.place
    try:
        with weights.local_copy(path, backbone.kind) as local:
            _require_unchanged(local, path, backbone)
            return _compile(_read(local, backbone), backbone.row, path)
    except BackboneError:
        raise
    except Exception as error:  # Of Keras, TensorFlow and h5py, with no common base.
        reason = " ".join(str(error).split())[:500]
        raise BackboneError(
            f"{path!r} cannot be loaded as {backbone.row.name!r}: {type(error).__name__}: {reason}"
        ) from error


def constant_graph(backbone: ResolvedBackbone, dtype: str = "uint8") -> Any:
    """The network as a TensorFlow function without variables, to be built into other graphs.

    Args:
        backbone: from `resolve`.
        dtype: of the pixels, which are 0..255 in any case.

    Returns:
        A concrete function: `dtype` [1, height, width, 3] → float32 [1, D].
    """
    size = load(backbone).input_size
    path = backbone.place
    with weights.local_copy(path, backbone.kind) as local:
        network = _read(local, backbone)
        return _constant_graph(network, size, backbone.row.pixel_range, path, dtype)


def _require_unchanged(local: str, path: str, backbone: ResolvedBackbone) -> None:
    found = weights.sha256(local, backbone.kind)
    if found != backbone.weights_sha256:
        raise BackboneError(
            f"the weights of {backbone.row.name!r} at {path!r} are not those that the run began "
            f"with: sha256 {found}, not {backbone.weights_sha256}; every worker needs the same"
        )


def _read(local: str, backbone: ResolvedBackbone) -> Network:
    if backbone.kind == "efficientnet-lite":
        return efficientnet_lite.load(local)
    if backbone.kind == "keras-weights":
        return keras_models.load_application(local, backbone.row)
    if backbone.kind == "keras-file":
        return keras_models.load_file(local)
    return saved_model.load(local)


def _compile(network: Network, row: Backbone, path: str) -> Engine:
    height, width = _input_size(network, row, path)
    function = _constant_graph(network, (height, width), row.pixel_range, path)
    length = function.outputs[0].shape[-1]
    if row.vector_length not in (None, length):
        raise BackboneError(
            f"{path!r} gives vectors of {length} numbers, {row.name!r} has {row.vector_length}: "
            "it is another network, or one with its classifier"
        )
    tf = tensorflow()

    def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        (vector,) = tf.nest.flatten(function(tf.constant(pixels)))
        return np.asarray(vector.numpy(), np.float32)

    return Engine(row.recipe(height, width), length, run)


def _input_size(network: Network, row: Backbone, path: str) -> Size:
    wanted = (row.input_size, row.input_size) if row.input_size is not None else None
    if network.size and wanted and network.size != wanted:
        raise BackboneError(
            f"{path!r} takes pictures of {network.size[0]} x {network.size[1]} pixels, "
            f"{row.name!r} has {wanted[0]} x {wanted[1]}: it is another network"
        )
    size = wanted or network.size
    if size is None:
        raise BackboneError(
            f"{path!r} leaves the size of its pictures open: export it with a fixed height and "
            "width, such as [None, 224, 224, 3]"
        )
    return size


def _constant_graph(
    network: Network,
    size: Size,
    pixel_range: tuple[float, float],
    path: str,
    dtype: str = "uint8",
) -> Any:
    """`dtype` [1, height, width, 3] → float32 [1, D], without variables.

    Only with constants does TensorFlow fold batch norms into kernels.
    """
    tf = tensorflow()
    low, high = pixel_range

    def vectors(pixels: Any) -> Any:
        scaled = tf.cast(pixels, tf.float32) / (255 / (high - low)) + low
        return vector_of(network.call(scaled), repr(path))

    signature = tf.TensorSpec([1, *size, 3], dtype)
    function = tf.function(vectors, autograph=False).get_concrete_function(signature)
    if not function.captured_inputs:
        return function
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return convert_variables_to_constants_v2(function)
