"""Writes TFLite and ONNX models, which take pixels at the backbone's size."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.backbones.tf_runtime import tensorflow
from beam_flowers.errors import ModelError
from beam_flowers.export.graph import classifier
from beam_flowers.head.bundle import Bundle

Pixels = npt.NDArray[np.uint8]

_OPSET = 17
"""Operator set of ONNX 1.12, which runtimes support since 2022."""


def write_tflite(path: str, bundle: Bundle, backbone: ResolvedBackbone) -> None:
    """Writes a float TFLite model: uint8 [1, height, width, 3] RGB → float32 [1, C] scores."""
    converter = _lite_converter(classifier(bundle, backbone))
    Path(path).write_bytes(_converted(converter))


def write_tflite_int8(
    path: str, bundle: Bundle, backbone: ResolvedBackbone, calibration: Pixels
) -> None:
    """Writes a TFLite model of 8-bit integers, with the input and output of `write_tflite`.

    Args:
        path: file to write.
        bundle: the model.
        backbone: its backbone.
        calibration: uint8 [N, height, width, 3], images that the ranges are taken from.
    """
    tf = tensorflow()
    pixels = calibration.astype(np.float32)
    # With black and white among them the input's scale is exactly 1: bytes go in as they are.
    pixels[0, 0, 0], pixels[0, 0, 1] = 0, 255
    converter = _lite_converter(classifier(bundle, backbone, "float32"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[np.newaxis]] for image in pixels)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    Path(path).write_bytes(_converted(converter))


def write_onnx(path: str, bundle: Bundle, backbone: ResolvedBackbone) -> None:
    """Writes an ONNX model: `pixels`, uint8 [1, height, width, 3] RGB → float32 [1, C] `scores`.

    Raises:
        ModelError: if the converter is not installed.
    """
    require_onnx("tf2onnx")
    import tf2onnx

    tf = tensorflow()
    function = classifier(bundle, backbone)
    signature = [tf.TensorSpec(function.inputs[0].shape, tf.uint8, "pixels")]
    named = tf.function(lambda pixels: {"scores": function(pixels)}, input_signature=signature)
    model, _ = tf2onnx.convert.from_function(named, input_signature=signature, opset=_OPSET)
    Path(path).write_bytes(model.SerializeToString())


def require_onnx(library: str = "onnx") -> None:
    """Checks that a library that writes ONNX models is here, and the runtime that compares them.

    Raises:
        ModelError: one is missing.
    """
    missing = [name for name in (library, "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"an ONNX model needs {' and '.join(missing)}: pip install 'beam-flowers[onnx]'; "
            "--to savedmodel, tflite and keras need nothing more"
        )


def _lite_converter(function: Any) -> Any:
    tf = tensorflow()
    lite = getattr(tf, "lite", None)
    if lite is None or not hasattr(lite, "TFLiteConverter"):
        raise ModelError(
            f"TensorFlow {tf.__version__} has no TFLite converter any more: TensorFlow 2.21 has; "
            "or use --to savedmodel"
        )
    return lite.TFLiteConverter.from_concrete_functions([function], tf.Module())


def _converted(converter: Any) -> bytes:
    # The converter prints names of inputs and outputs, and warns of normal conversions.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: bytes = converter.convert()
    return model
