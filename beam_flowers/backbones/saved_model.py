"""Loads backbones from SavedModel folders, including TF-Hub modules."""

from __future__ import annotations

from typing import Any

from beam_flowers.backbones.found_recipe import HUB_SIGNATURE
from beam_flowers.backbones.saved_model_check import require_computing
from beam_flowers.backbones.tf_runtime import Network, static_size, tensorflow
from beam_flowers.errors import BackboneError

# Modules of TF-Hub that classify have their vector under the first name, and classes as `default`.
_SIGNATURES = (HUB_SIGNATURE, "serving_default", "default")


def load(folder: str, trusted: bool = False) -> Network:
    """Loads a SavedModel as a function: the object itself if it can be called, else a signature.

    Args:
        folder: local path of the SavedModel.
        trusted: accepts any operations.

    Raises:
        BackboneError: it holds operations that do more than compute, has no such function, or does
            not take one float32 image.
    """
    require_computing(folder, trusted)
    model = _read(folder)
    if callable(model):
        return _from_callable(model, folder)
    name = next((name for name in _SIGNATURES if name in model.signatures), None)
    if name is None:
        raise BackboneError(
            f"{folder!r} can't be called and has none of the signatures {', '.join(_SIGNATURES)}; "
            f"it has: {', '.join(model.signatures) or 'none'}"
        )
    return _from_signature(model, name, folder)


def _read(folder: str) -> Any:
    tf = tensorflow()
    try:
        return tf.saved_model.load(folder)
    except (ValueError, RuntimeError) as first:
        # Modules of TF 1 hold several graphs: the one without tags is for inference.
        try:
            return tf.saved_model.load(folder, tags=[])
        except (ValueError, RuntimeError):
            raise first from None


def _from_callable(model: Any, folder: str) -> Network:
    function = model.__call__
    (first, *_), _ = function.concrete_functions[0].structured_input_signature
    size = _image_size(first, f"the SavedModel {folder!r}")
    # Keras saves a function as two graphs, one for training and one for inference.
    use = {"training": False} if "training" in function.function_spec.arg_names else {}
    return Network(
        lambda pixels: model(tensorflow().cast(pixels, first.dtype), **use),
        size,
        _takes_bytes(first),
    )


def _from_signature(model: Any, name: str, folder: str) -> Network:
    _, inputs = model.signatures[name].structured_input_signature
    what = f"the signature {name!r} of {folder!r}"
    if len(inputs) != 1:
        raise BackboneError(f"{what} has the inputs {sorted(inputs)}; one, an image, is wanted")
    ((argument, spec),) = inputs.items()
    size = _image_size(spec, what)
    # The function holds the model: a signature has only weak references to its variables.
    run = lambda pixels: model.signatures[name](  # noqa: E731
        **{argument: tensorflow().cast(pixels, spec.dtype)}
    )
    return Network(run, size, _takes_bytes(spec))


def _takes_bytes(spec: Any) -> bool:
    return bool(spec.dtype.name == "uint8")


def _image_size(spec: Any, what: str) -> tuple[int, int] | None:
    dtype = getattr(getattr(spec, "dtype", None), "name", type(spec).__name__)
    if dtype not in ("float32", "uint8"):
        raise BackboneError(f"{what} takes {dtype}, not images as float32 or uint8")
    return static_size(spec.shape.as_list() if spec.shape.rank is not None else None, what)
