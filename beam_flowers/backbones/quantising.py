"""Quantises a backbone to weights of 8 bits, by NNCF's post-training quantisation."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from beam_flowers.backbones import openvino_engine
from beam_flowers.backbones.quantised import ABOUT, NETWORK, About, digest
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BackboneError

_LIBRARIES = ("nncf", "openvino")


def require_nncf() -> None:
    """Checks that NNCF and OpenVINO are installed, without importing them.

    Raises:
        BackboneError: one is missing.
    """
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise BackboneError(
            f"{' and '.join(missing)} is not installed, which quantises networks: pip install "
            "'beam-flowers[quantize]'"
        )


def write_quantised(
    backbone: ResolvedBackbone,
    pixels: Sequence[npt.NDArray[np.uint8]],
    sha256: Sequence[str],
    folder: str,
) -> None:
    """Writes the quantised network of a float32 backbone into a folder.

    Weights have 7 bits ("overflow fix"): sums of two products of 8 and 7 bits fit into the 16 bits
    of `vpmaddubsw`, which saturates on processors without VNNI, so that all processors compute
    the same numbers (microsoft/onnxruntime#14642). One scale a channel of the weights; activations
    in 8 bits, without a sign where they have none.

    Args:
        backbone: in float32.
        pixels: images to calibrate the ranges of activations on, uint8 [height, width, 3] each.
        sha256: hex digests of their files.
        folder: local, made if absent.

    Raises:
        BackboneError: NNCF does not take the network.
    """
    require_nncf()
    library = openvino_engine.library()
    with openvino_engine.without_telemetry():
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters

    nncf.set_log_level(40)
    model = openvino_engine.read_model(library.Core(), backbone)
    try:
        made = nncf.quantize(
            model,
            nncf.Dataset([image[np.newaxis] for image in pixels]),
            subset_size=len(pixels),
            preset=nncf.QuantizationPreset.MIXED,
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE
            ),
        )
    except (RuntimeError, nncf.errors.InternalError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(f"NNCF cannot quantise {backbone.row.name!r}: {reason}") from error
    Path(folder).mkdir(parents=True, exist_ok=True)
    _forget_origin(made)
    library.save_model(made, Path(folder, NETWORK), compress_to_fp16=False)
    about = About(
        of=backbone.fingerprint,
        images=len(pixels),
        sha256=digest(folder),
        images_sha256=hashlib.sha256("\n".join(sorted(sha256)).encode()).hexdigest(),
        made_with={name: metadata.version(name) for name in _LIBRARIES},
    )
    data = msgspec.json.format(msgspec.json.encode(about), indent=1)
    Path(folder, ABOUT).write_bytes(data + b"\n")


def _forget_origin(model: Any) -> None:
    """Takes out settings that NNCF notes in the file, which name folders of this machine."""
    if model.has_rt_info("nncf"):
        model.set_rt_info("", "nncf")
