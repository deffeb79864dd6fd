"""Runs backbones on OpenVINO: the same float32 networks, faster on CPUs than with TensorFlow.

EfficientNet-Lite is built from its arrays, and ONNX networks are read. TensorFlow reads the weights
of other networks once; they are kept in OpenVINO's form in the user's cache, so that later runs
start without TensorFlow.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones import cache, openvino_lite, openvino_onnx, quantised
from beam_flowers.backbones.graph import constant_graph
from beam_flowers.backbones.hardware import cores
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BackboneError

_NETWORK = "network.xml"
_TELEMETRY = "openvino_telemetry"
_BATCH = 4
"""Images at a time. Against one, from disk to Parquet on two cores, EfficientNet-Lite0 is an eighth
faster in bfloat16. In float32 it is as fast, and so is Inception v3. Eight are as fast as four."""


class Compiled(NamedTuple):
    """Holds a network compiled by OpenVINO.

    Attributes:
        run: uint8 [N, height, width, 3] → float32 [N, D], N being 1 or `batch`; safe to call
            from many threads.
        height: pixels of the input down.
        width: pixels of the input across.
        vector_length: D, numbers in an embedding.
        batch: number of images at a time whose vectors equal, to the bit, those computed alone.
    """

    run: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
    height: int
    width: int
    vector_length: int
    batch: int


def is_installed() -> bool:
    """Tells if OpenVINO can be imported, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def _version() -> str:
    """Returns OpenVINO's version, without importing it if pip installed it."""
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return str(library().__version__)


@lru_cache(maxsize=1)
def library() -> Any:
    """Imports OpenVINO without its telemetry."""
    with without_telemetry():
        import openvino
    return openvino


@contextlib.contextmanager
def without_telemetry() -> Iterator[None]:
    """Keeps imports of the block, of OpenVINO or NNCF, from reporting to anybody.

    They would report to Google Analytics from a fork of this process, which has threads. Without
    the telemetry package they do not.
    """
    telemetry = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if telemetry:
            sys.modules[_TELEMETRY] = telemetry
        else:
            del sys.modules[_TELEMETRY]


def starts_alone(backbone: ResolvedBackbone) -> bool:
    """Tells if the network starts without TensorFlow.

    It does so from the arrays of EfficientNet-Lite, in ONNX's form, quantised, and once the cache
    has it.
    """
    alone = backbone.kind in ("efficientnet-lite", "onnx") or backbone.precision == "int8"
    return is_installed() and (alone or cache.is_whole(_kept_in(backbone)))


def compile_network(backbone: ResolvedBackbone) -> Compiled:
    """Reads and compiles a backbone for this machine's CPU."""
    core = library().Core()
    model = read_model(core, backbone)
    if model.is_dynamic():
        several = _compile(core, model, backbone, _BATCH)
        if _is_even(several):
            return several
        model.reshape([1, several.height, several.width, 3])
    return _compile(core, model, backbone, 1)


def read_model(core: Any, backbone: ResolvedBackbone) -> Any:
    """Returns a backbone as an OpenVINO model, not compiled yet: uint8 [N, h, w, 3] → [N, D]."""
    if backbone.precision == "int8":
        folder = backbone.quantised_place
        quantised.require_unchanged(backbone.row.name, folder, backbone.quantised_sha256)
        return core.read_model(Path(folder, quantised.NETWORK))
    if backbone.kind == "efficientnet-lite":
        return openvino_lite.build(library(), backbone)
    if backbone.kind == "onnx":
        return openvino_onnx.build(library(), core, backbone)
    return _read_kept(core, backbone) or _convert(core, backbone)


def _compile(core: Any, model: Any, backbone: ResolvedBackbone, batch: int) -> Compiled:
    compiled = core.compile_model(model, "CPU", _settings(backbone))
    height, width = (model.input(0).partial_shape[axis].get_length() for axis in (1, 2))
    local = threading.local()

    def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        # Each thread needs its own request; all requests share the weights.
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return np.array(local.request.infer([pixels])[0])

    # The first inference initialises NumPy in the binding; from several threads at once that can
    # deadlock (5 of 40 starts with eight threads, OpenVINO 2026.4).
    run(np.zeros((1, height, width, 3), np.uint8))
    return Compiled(run, height, width, model.output(0).partial_shape[1].get_length(), batch)


def _is_even(network: Compiled) -> bool:
    """Tells if vectors are the same to the bit in a batch and alone.

    Only the order of sums could differ. Shapes decide it and not values, so that one try suffices.
    """
    shape = (network.batch, network.height, network.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    alone = [network.run(image[np.newaxis]) for image in noise]
    try:
        return np.array_equal(network.run(noise), np.concatenate(alone))
    except RuntimeError:  # A shape inside the network is fixed to one image.
        return False


def _settings(backbone: ResolvedBackbone) -> dict[str, Any]:
    """Returns settings for one image a thread, and for the precision of the backbone.

    OpenVINO would choose its own precision.
    """
    return {
        # In int8 too: what is not quantised would be bfloat16 on processors that have it, and
        # the vectors others than elsewhere.
        "INFERENCE_PRECISION_HINT": "bf16" if backbone.precision == "bfloat16" else "f32",
        "NUM_STREAMS": str(cores()),
        "INFERENCE_NUM_THREADS": str(cores()),
        # With pinning, several workers of one host would all use its first cores.
        "ENABLE_CPU_PINNING": False,
    }


def _convert(core: Any, backbone: ResolvedBackbone) -> Any:
    """Converts a backbone to OpenVINO's form, and keeps that in the cache if possible."""
    with tempfile.TemporaryDirectory(prefix="beam-flowers-") as folder:
        frozen = Path(folder, "network.pb")
        frozen.write_bytes(_graph(backbone).graph.as_graph_def().SerializeToString())
        model = core.read_model(frozen)

        def save(folder: Path) -> None:
            library().save_model(model, folder / _NETWORK, compress_to_fp16=False)

        cache.keep(_kept_in(backbone), save)
        # Reading is lazy: the file must last until the weights are in memory.
        return model.clone()


def _graph(backbone: ResolvedBackbone) -> Any:
    with contextlib.suppress(BackboneError):
        return constant_graph(backbone, count=None)
    # A SavedModel may accept only one image. Any other error comes again here.
    return constant_graph(backbone)


def _kept_in(backbone: ResolvedBackbone) -> Path:
    return cache.place(backbone, "openvino", _version())


def _read_kept(core: Any, backbone: ResolvedBackbone) -> Any:
    """Reads the network in the cache; None if it is missing or damaged."""
    folder = _kept_in(backbone)
    return core.read_model(folder / _NETWORK) if cache.is_whole(folder) else None
