"""TensorFlow itself, and what a loader hands over: a network that can be called."""

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
    """A network that has been read but not yet compiled.

    Attributes:
        call: float32 tensor [1, height, width, 3] in the network's pixel range → tensors, in
            any structure; one of them is the vector.
        size: (height, width) in pixels that the network wants, or None if it says nothing.
    """

    call: Callable[[Any], Any]
    size: Size | None


@lru_cache(maxsize=1)
def tensorflow() -> Any:
    """TensorFlow, set up to run one picture on one thread; the only place that imports it."""
    # Level 3 hides lines about graphics cards that aren't there; real errors are raised.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _without_keras():
        import tensorflow as tf

    # Many pictures at a time, each on one core, are faster than one on all cores. The other
    # pool, which runs the pictures, has a thread for each core that this process may use. Where
    # TensorFlow runs already, in somebody's own program, this is slower, but not wrong.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(cores())
    # Graphics cards would round the factors of float32 products to 10 bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return tf


@contextlib.contextmanager
def _without_keras() -> Iterator[None]:
    """Keeps this thread from importing Keras.

    TensorFlow does so as its last act and goes without where that fails; `tf.keras` imports it
    when it is first used. Nothing here needs it but what is written for Keras, and it takes two
    of five seconds and 190 of 820 MB, with the scikit-learn, matplotlib and pandas that it finds.
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
        # Keras itself is looked for by TensorFlow, to know where it lies.
        if name == "keras.src" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is left for its first use", name=name)


_precisions: set[Precision] = set()


def set_precision(precision: Precision) -> None:
    """Makes TensorFlow compute in a precision, for all of the process.

    Raises:
        BackboneError: it computes in the other one already.
    """
    if _precisions - {precision}:
        raise BackboneError(
            f"TensorFlow computes in {min(_precisions)} in this process and cannot change to "
            f"{precision}: use one precision a process, or --engine openvino"
        )
    if precision == "bfloat16":
        # oneDNN's own list of the operations that lose nothing; sums stay float32.
        options = {"auto_mixed_precision_onednn_bfloat16": True}
        tensorflow().config.optimizer.set_experimental_options(options)
    _precisions.add(precision)


def static_size(shape: Any, what: str) -> Size | None:
    """(height, width) of an input's shape [N, height, width, 3], None where it leaves them open.

    Raises:
        BackboneError: the shape is not that of pictures.
    """
    dimensions = list(shape) if shape is not None else []
    if len(dimensions) != 4 or dimensions[3] not in (3, None):
        raise BackboneError(
            f"{what} takes an input of shape {tuple(dimensions)}, not pictures as "
            "[batch, height, width, 3]"
        )
    height, width = dimensions[1:3]
    return None if height is None or width is None else (int(height), int(width))


def vector_of(outputs: Any, what: str, count: int = 1) -> Any:
    """The one output that is a vector: float32 [N, D] or [N, 1, 1, D], given back as [N, D].

    Of several the one named `default` is taken, which is TF-Hub's convention. `count` is the
    number N of pictures, -1 where it is open.

    Raises:
        BackboneError: there is none, or there are several.
    """
    tf = tensorflow()
    named = outputs if isinstance(outputs, dict) else dict(enumerate(tf.nest.flatten(outputs)))
    vectors = {name: tensor for name, tensor in named.items() if _is_vector(tensor)}
    if "default" in vectors:
        vectors = {"default": vectors["default"]}
    if len(vectors) != 1:
        # A SavedModel's dictionary comes back in another order each time.
        every = ", ".join(sorted(f"{name!r} {_described(named[name])}" for name in named))
        raise BackboneError(
            f"{what} must give one float32 vector a picture, [batch, length], and gives "
            f"{len(vectors)} among its outputs: {every}; export it with that output alone"
        )
    (vector,) = vectors.values()
    return tf.reshape(vector, [count, vector.shape[-1]])


def _is_vector(tensor: Any) -> bool:
    shape = getattr(tensor, "shape", None)
    if shape is None or shape.rank not in (2, 4) or shape[-1] is None:
        return False
    return bool(tensor.dtype.is_floating) and tensor.dtype.size == 4 and shape[1:-1] in ([], [1, 1])


def _described(tensor: Any) -> str:
    dtype = getattr(getattr(tensor, "dtype", None), "name", type(tensor).__name__)
    return f"{dtype} {list(getattr(tensor, 'shape', []))}"
