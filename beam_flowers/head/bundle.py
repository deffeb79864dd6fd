"""The model bundle: a folder of arrays and JSON that says all there is to know about a head."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers import files
from beam_flowers.errors import ModelError
from beam_flowers.head.softmax import Head

FORMAT = "beam-flowers model 1"
_MODEL = "model.json"
_ARRAYS = ("weights", "bias")
_NAMES = (_MODEL, "labels.txt", *(f"{name}.npy" for name in _ARRAYS))


@dataclass(frozen=True)
class Bundle:
    """A trained head and where it comes from. No time, host or path belongs in any field.

    Attributes:
        head: the softmax layer.
        labels: class names, verbatim, in class order.
        backbone: name of the network whose vectors the head was trained on.
        fingerprint: of that backbone and its pixel recipe.
        pixels: the pixel recipe, JSON.
        recipe: the training recipe and its settings, JSON.
        split: the split rule and its settings, JSON.
        seed: of the split and the training.
        dataset_hash: of the rows trained on.
        metrics: what was measured, by split, JSON.
        versions: package name -> version.
    """

    head: Head
    labels: tuple[str, ...]
    backbone: str
    fingerprint: str
    pixels: Mapping[str, Any]
    recipe: Mapping[str, Any]
    split: Mapping[str, Any]
    seed: int
    dataset_hash: str
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]

    def __post_init__(self) -> None:
        weights, bias, classes = self.head.weights, self.head.bias, len(self.labels)
        if len(set(self.labels)) != classes:
            raise ModelError(f"labels are not unique: {self.labels!r}")
        if weights.ndim != 2 or weights.shape[1] != classes:
            raise ModelError(f"weights are {weights.shape}, expected [D, {classes}], by the labels")
        if bias.shape != (classes,):
            raise ModelError(f"bias is {bias.shape}, expected ({classes},), by the labels")
        for name, array in (("weights", weights), ("bias", bias)):
            if array.dtype != np.float32:
                raise ModelError(f"{name} are {array.dtype}, expected float32")
            if not np.isfinite(array).all():
                raise ModelError(f"{name} hold numbers that are not finite; train the model again")


def model_id(bundle: Bundle) -> str:
    """Hex sha256 of the bundle's whole content: equal for equal models, wherever they lie."""
    return _identify(_description(bundle, _side_files(bundle)))


def write_bundle(folder: str, bundle: Bundle) -> str:
    """Writes a bundle, over an older one that may be there; equal bundles give equal bytes.

    `model.json` is written last and holds the hashes of the others, so that what a killed
    write leaves never reads as a model.

    Returns:
        The model's id.

    Raises:
        ModelError: if the folder holds something else.
    """
    _refuse_foreign(folder)
    side_files = _side_files(bundle)
    description = _description(bundle, side_files)
    identity = _identify(description)
    files.make_folder(folder)
    for name, data in side_files.items():
        files.write_atomic(files.join(folder, name), data)
    text = _to_json({**description, "model_id": identity}, indent=1) + "\n"
    files.write_atomic(files.join(folder, _MODEL), text.encode())
    return identity


def read_bundle(folder: str) -> Bundle:
    """Reads a bundle and checks every byte of it.

    Raises:
        ModelError: if there is none, or it is not whole; names the file and the mismatch.
    """
    described = _read_description(folder)
    hashes = described["files"]
    arrays = {name: _read_array(folder, f"{name}.npy", hashes) for name in _ARRAYS}
    _read_checked(folder, "labels.txt", hashes)
    fields = {k: v for k, v in described.items() if k not in ("format", "files", "model_id")}
    fields["labels"] = tuple(fields["labels"])
    try:
        return Bundle(head=Head(**arrays), **fields)
    except (ModelError, TypeError) as error:
        raise ModelError(f"the model {folder!r} does not fit together: {error}") from error


def require_backbone(
    bundle: Bundle, name: str, fingerprint: str, pixels: Mapping[str, Any] | None = None
) -> None:
    """Checks that vectors come from the backbone that the head was trained on.

    Args:
        bundle: the model.
        name: the vectors' backbone.
        fingerprint: its fingerprint.
        pixels: its pixel recipe, to name what differs.

    Raises:
        ModelError: names the difference.
    """
    if name != bundle.backbone:
        raise ModelError(
            f"the model was trained on vectors of the backbone {bundle.backbone!r}, these are of"
            f" {name!r}; use --backbone {bundle.backbone}, or train a model for {name!r}"
        )
    if fingerprint != bundle.fingerprint:
        raise ModelError(
            f"the backbone {name!r} is not as the model was trained on:"
            f" {_difference(bundle.pixels, pixels)}"
            f" (fingerprint {bundle.fingerprint}, now {fingerprint}); train the model again"
        )


def _difference(trained: Mapping[str, Any], now: Mapping[str, Any] | None) -> str:
    if now is None:
        return "other weights or another pixel recipe"
    keys = sorted(k for k in {**trained, **now} if trained.get(k) != now.get(k))
    changes = [f"{key} was {trained.get(key)!r} and is {now.get(key)!r}" for key in keys]
    return ", ".join(changes) or "same pixel recipe, but other weights"


def _description(bundle: Bundle, side_files: Mapping[str, bytes]) -> dict[str, Any]:
    fields = {key: value for key, value in vars(bundle).items() if key != "head"}
    hashes = {name: _sha256(data) for name, data in side_files.items()}
    return {"format": FORMAT, **fields, "files": hashes}


def _identify(description: Mapping[str, Any]) -> str:
    return _sha256(_to_json(description).encode())


def _to_json(value: Mapping[str, Any], indent: int | None = None) -> str:
    try:
        return json.dumps(value, sort_keys=True, indent=indent, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model's description cannot be written as JSON: {error}") from error


def _side_files(bundle: Bundle) -> dict[str, bytes]:
    arrays = {f"{name}.npy": _npy(getattr(bundle.head, name)) for name in _ARRAYS}
    # One label a line; the verbatim ones, should a label hold a line break, are in the JSON.
    lines = [label.replace("\r", "\\r").replace("\n", "\\n") for label in bundle.labels]
    return {**arrays, "labels.txt": "".join(f"{line}\n" for line in lines).encode()}


def _npy(array: npt.NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, dtype="<f4"), allow_pickle=False)
    return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refuse_foreign(folder: str) -> None:
    """Raises ModelError unless the folder is new, empty, a bundle or a bundle's beginning."""
    if not files.exists(folder):
        return
    if not files.is_folder(folder):
        raise ModelError(f"{folder!r} is a file; name a folder for the model")
    names = {entry.name for entry in files.list_folder(folder)}
    if _MODEL in names:
        _read_description(folder)
    foreign = sorted(name for name in names - {*_NAMES} if not name.startswith("."))
    if foreign and _MODEL not in names:
        raise ModelError(
            f"{folder!r} holds other things than a model ({foreign[0]!r}, {len(foreign)} in all);"
            " name a new or empty folder"
        )


def _read(folder: str, name: str) -> bytes:
    try:
        return files.read_bytes(files.join(folder, name))
    except OSError as error:
        raise ModelError(f"no whole model in {folder!r}: cannot read {name}: {error}") from error


def _read_description(folder: str) -> dict[str, Any]:
    where = files.join(folder, _MODEL)
    try:
        described = json.loads(_read(folder, _MODEL))
    except ValueError as error:
        raise ModelError(f"{where!r} is no JSON: {error}") from error
    found = described.get("format") if isinstance(described, dict) else None
    if found != FORMAT:
        raise ModelError(f"{where!r} is no model of ours: its format is {found!r}, not {FORMAT!r}")
    identity = _identify({k: v for k, v in described.items() if k != "model_id"})
    if identity != described.get("model_id"):
        raise ModelError(
            f"{where!r} was changed: its content has the id {identity},"
            f" it says {described.get('model_id')!r}"
        )
    return described


def _read_checked(folder: str, name: str, hashes: Mapping[str, str]) -> bytes:
    data = _read(folder, name)
    if _sha256(data) != hashes.get(name):
        raise ModelError(
            f"{files.join(folder, name)!r} was changed or only half written: its sha256 is"
            f" {_sha256(data)}, {_MODEL} says {hashes.get(name)}; train the model again"
        )
    return data


def _read_array(folder: str, name: str, hashes: Mapping[str, str]) -> npt.NDArray[np.float32]:
    try:
        array: npt.NDArray[np.float32] = np.load(
            io.BytesIO(_read_checked(folder, name, hashes)), allow_pickle=False
        )
    except ValueError as error:
        raise ModelError(f"{files.join(folder, name)!r} is no array: {error}") from error
    return array
