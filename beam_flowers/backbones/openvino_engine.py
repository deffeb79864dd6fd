"""OpenVINO in place of TensorFlow: the same float32 network, faster on CPUs.

Optional: `pip install "beam-flowers[openvino]"`. TensorFlow is needed once, to read the weights;
the network as OpenVINO read it is kept in the user's cache, so that later starts go without.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones import cache
from beam_flowers.backbones.graph import constant_graph
from beam_flowers.backbones.hardware import cores
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BackboneError

_NETWORK = "network.xml"
_TELEMETRY = "openvino_telemetry"
_BATCH = 4
"""Pictures at a time. Against one, from disk to Parquet on two cores: EfficientNet-Lite0 an eighth
faster in bfloat16, as fast in float32, as Inception v3 is. Eight are no faster than four."""


class Compiled(NamedTuple):
    """A network on OpenVINO.

    Attributes:
        run: uint8 [N, height, width, 3] → float32 [N, D], N being 1 or `batch`; safe to call
            from many threads.
        height: of the pixels.
        width: of the pixels.
        vector_length: D.
        batch: how many pictures at a time give, to the bit, what each gives alone.
    """

    run: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
    height: int
    width: int
    vector_length: int
    batch: int


def is_installed() -> bool:
    """Whether OpenVINO can be imported; without importing it."""
    return importlib.util.find_spec("openvino") is not None


def _version() -> str:
    """Of OpenVINO; without importing it, where it was installed as a package of that name."""
    try:
        return metadata.version("openvino")
    except metadata.PackageNotFoundError:
        return str(_library().__version__)


@lru_cache(maxsize=1)
def _library() -> Any:
    """OpenVINO, which sends nothing to anybody."""
    # Its import would report itself to Google Analytics, from a process that it forks off beside
    # our threads; without that package it doesn't.
    telemetry = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        if telemetry:
            sys.modules[_TELEMETRY] = telemetry
        else:
            del sys.modules[_TELEMETRY]
    return openvino


def is_kept(backbone: ResolvedBackbone) -> bool:
    """Whether the network starts without TensorFlow."""
    return is_installed() and cache.is_whole(_kept_in(backbone))


def compile_network(backbone: ResolvedBackbone) -> Compiled:
    """Reads and compiles a backbone's network for this machine's CPU."""
    core = _library().Core()
    model = _read_kept(core, backbone) or _convert(core, backbone)
    if model.is_dynamic():
        several = _compile(core, model, backbone, _BATCH)
        if _is_even(several):
            return several
        model.reshape([1, several.height, several.width, 3])
    return _compile(core, model, backbone, 1)


def _compile(core: Any, model: Any, backbone: ResolvedBackbone, batch: int) -> Compiled:
    compiled = core.compile_model(model, "CPU", _settings(backbone))
    height, width = (model.input(0).partial_shape[axis].get_length() for axis in (1, 2))
    local = threading.local()

    def run(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        # A request is one thread's own; all of them share the weights.
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return np.array(local.request.infer([pixels])[0])

    # Its first inference sets up the binding's NumPy; from several threads at once that can
    # deadlock (5 of 40 starts with eight threads, OpenVINO 2026.4).
    run(np.zeros((1, height, width, 3), np.uint8))
    return Compiled(run, height, width, model.output(0).partial_shape[1].get_length(), batch)


def _is_even(network: Compiled) -> bool:
    """Whether a picture's vector depends neither on its place in a batch nor on the others.

    Only the order of sums can tell, which the shapes decide and not the values: so one try does.
    """
    shape = (network.batch, network.height, network.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    alone = [network.run(picture[np.newaxis]) for picture in noise]
    try:
        return np.array_equal(network.run(noise), np.concatenate(alone))
    except RuntimeError:  # A shape inside of the network is that of one picture.
        return False


def _settings(backbone: ResolvedBackbone) -> dict[str, Any]:
    """One picture a thread; and the precision asked for, where OpenVINO would choose its own."""
    return {
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[backbone.precision],
        "NUM_STREAMS": str(cores()),
        "INFERENCE_NUM_THREADS": str(cores()),
        # Several workers of one host would all sit on its first cores.
        "ENABLE_CPU_PINNING": False,
    }


def _convert(core: Any, backbone: ResolvedBackbone) -> Any:
    """OpenVINO's form of the network; kept for the next time, if the cache can be written."""
    with tempfile.TemporaryDirectory(prefix="beam-flowers-") as folder:
        frozen = Path(folder, "network.pb")
        frozen.write_bytes(_graph(backbone).graph.as_graph_def().SerializeToString())
        model = core.read_model(frozen)

        def save(folder: Path) -> None:
            _library().save_model(model, folder / _NETWORK, compress_to_fp16=False)

        cache.keep(_kept_in(backbone), save)
        # Reading is lazy: the file must last until the weights are in memory.
        return model.clone()


def _graph(backbone: ResolvedBackbone) -> Any:
    with contextlib.suppress(BackboneError):
        return constant_graph(backbone, count=None)
    # A SavedModel may insist on one picture. Whatever else is wrong comes again.
    return constant_graph(backbone)


def _kept_in(backbone: ResolvedBackbone) -> Path:
    return cache.place(backbone, "openvino", _version())


def _read_kept(core: Any, backbone: ResolvedBackbone) -> Any:
    """The kept network, or None where there is none or it is damaged."""
    folder = _kept_in(backbone)
    return core.read_model(folder / _NETWORK) if cache.is_whole(folder) else None
