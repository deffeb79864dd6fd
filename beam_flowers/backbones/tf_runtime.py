"""Imports TensorFlow, sets its precision, and finds the embedding among a network's outputs."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.abc import MetaPathFinder
from typing import Any, NamedTuple

from beam_flowers.backbones.hardware import Precision, cores
from beam_flowers.errors import BackboneError

Size = tuple[int, int]


class Network(NamedTuple):
    """Holds a loaded network before it is compiled.

    Attributes:
        call: float32 tensor [1, height, width, 3] in the network's pixel range → tensors, in
            any structure; one of them is the vector.
        size: (height, width) of the input in pixels, or None if it is open.
        takes_bytes: True for an input of uint8, 0..255.
    """

    call: Callable[[Any], Any]
    size: Size | None
    takes_bytes: bool = False


@lru_cache(maxsize=1)
def tensorflow() -> Any:
    """Imports TensorFlow, set up to run one image on one thread; all other code calls this.

    Keras is not imported with it, and comes at its first use.
    """
    # Level 3 hides lines about missing graphics cards; real errors are raised.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _without_keras():
        import tensorflow as tf

    # Many images at a time, each on one core, are faster than one on all cores. The other
    # pool, which runs the images, has a thread for each core that this process may use. If a
    # user's program has started TensorFlow before, these settings fail and runs are slower.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(cores())
    # Graphics cards would round the factors of float32 products to 10 bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return tf


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Keeps this thread from importing Keras.

    TensorFlow imports Keras last and works without it; `tf.keras` imports it at its first use.
    Only Keras backbones need it, and it takes two of five seconds and 190 of 820 MB, with the
    scikit-learn, matplotlib and pandas that it finds.
    """
    finder = _NoKeras(threading.get_ident())
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _NoKeras(MetaPathFinder):
    def __init__(self, thread: int) -> None:
        self._thread = thread

    def find_spec(self, name: str, *_: Any) -> None:
        # TensorFlow only locates `keras` itself, which must succeed.
        if name == "keras.src" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is left for its first use", name=name)


_precisions: set[Precision] = set()


def set_precision(precision: Precision) -> None:
    """Makes TensorFlow compute in a precision, for the whole process.

    Raises:
        BackboneError: it computes in another precision already.
    """
    if _precisions - {precision}:
        raise BackboneError(
            f"TensorFlow computes in {min(_precisions)} in this process and cannot change to "
            f"{precision}: use one precision a process, or --engine openvino"
        )
    if precision == "bfloat16":
        # It affects the operations on oneDNN's list of those that lose nothing; sums stay float32.
        options = {"auto_mixed_precision_onednn_bfloat16": True}
        tensorflow().config.optimizer.set_experimental_options(options)
    _precisions.add(precision)


def static_size(shape: Any, what: str) -> Size | None:
    """Returns (height, width) of an input [N, height, width, 3], None if they are open.

    Raises:
        BackboneError: the input has another shape.
    """
    dimensions = list(shape) if shape is not None else []
    if len(dimensions) != 4 or dimensions[3] not in (3, None):
        raise BackboneError(
            f"{what} takes an input of shape {tuple(dimensions)}, not images as "
            "[batch, height, width, 3]"
        )
    height, width = dimensions[1:3]
    return None if height is None or width is None else (int(height), int(width))


def named_outputs(outputs: Any) -> dict[Any, Any]:
    """Returns the outputs of a network by their names, or by numbers if they have none."""
    if isinstance(outputs, dict):
        return outputs
    return dict(enumerate(tensorflow().nest.flatten(outputs)))


def vector_of(outputs: Any, what: str, count: int = 1, output: str = "") -> Any:
    """Returns the embedding among the outputs, float32 [N, D].

    An output is [N, D], or [N, h, w, D], which is averaged over h and w. Of several the one named
    `default` counts, by TF-Hub's convention, and [N, D] and [N, 1, 1, D] count before others.

    Args:
        outputs: tensors in any structure.
        what: the network, for errors.
        count: N images, -1 if it is open.
        output: name of the output that is asked for; empty for the only one.

    Raises:
        BackboneError: no output is a vector, or several are.
    """
    tf = tensorflow()
    named = named_outputs(outputs)
    if output:
        named = {output: named[output]}
    vectors = {name: tensor for name, tensor in named.items() if _is_vector(tensor)}
    if not vectors:
        maps = {name: tensor for name, tensor in named.items() if _is_map(tensor)}
        vectors = {name: tf.reduce_mean(tensor, [1, 2]) for name, tensor in maps.items()}
    if "default" in vectors:
        vectors = {"default": vectors["default"]}
    if len(vectors) != 1:
        # A SavedModel's dictionary comes back in another order each time.
        every = ", ".join(sorted(f"{name!r} {_described(named[name])}" for name in named))
        raise BackboneError(
            f"{what} must give one float32 vector an image, [batch, length], and gives "
            f"{len(vectors)} among its outputs: {every}; name one as --backbone-output (in Python "
            "output)"
        )
    (vector,) = vectors.values()
    return tf.reshape(vector, [count, vector.shape[-1]])


def _is_vector(tensor: Any) -> bool:
    return _is_map(tensor, (2, 4)) and tensor.shape[1:-1] in ([], [1, 1])


def _is_map(tensor: Any, ranks: tuple[int, ...] = (4,)) -> bool:
    shape = getattr(tensor, "shape", None)
    if shape is None or shape.rank not in ranks or shape[-1] is None:
        return False
    return bool(tensor.dtype.is_floating) and tensor.dtype.size == 4


def _described(tensor: Any) -> str:
    dtype = getattr(getattr(tensor, "dtype", None), "name", type(tensor).__name__)
    return f"{dtype} {list(getattr(tensor, 'shape', []))}"
