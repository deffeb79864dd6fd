"""Reads and writes model bundles: folders of arrays and JSON that describe a trained head."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from beam_flowers import files
from beam_flowers.errors import ModelError, ModelFieldError
from beam_flowers.files.text import MOST_SHOWN
from beam_flowers.files.typed import Form
from beam_flowers.head.held_out import HELD_OUT, HeldOut
from beam_flowers.head.softmax import Head
from beam_flowers.images.outputs import Writing

FORMAT = "beam-flowers model 1"
FORMAT_2 = "beam-flowers model 2"
"""Format of models that hold what the first has no place for, such as choices of cross-fitting."""
MODEL_FILE = "model.json"
_LABELS = "labels.txt"
_ARRAYS = ("weights", "bias", "hidden_weights", "hidden_bias")
_HELD_OUT = "held_out.npy"
_NAMES = (MODEL_FILE, _LABELS, _HELD_OUT, *(f"{name}.npy" for name in _ARRAYS))
_UNFINISHED = ".unfinished-model"
"""Present while a bundle is written: it marks the rest of a killed write as ours."""

_OF_THE_HEAD = ("temperature", "multi_label")
_IN_FILES = ("head", "held_out")
_OF_FORMAT_2 = ("choices",)
_LATER = ("augmentation", *_OF_FORMAT_2)
"""Fields that older models lack. They are left out where None, so that old ids stay the same."""


class _Format(msgspec.Struct):
    format: str = ""


class _Fields(msgspec.Struct, forbid_unknown_fields=True):
    """Types of the fields in `model.json`, which may come from a stranger; see `Bundle`."""

    format: str
    model_id: str
    files: dict[str, str]
    labels: list[str]
    backbone: str
    fingerprint: str
    pixels: dict[str, Any]
    recipe: dict[str, Any]
    split: dict[str, Any]
    seed: int
    dataset_hash: str
    metrics: dict[str, Any]
    versions: dict[str, str]
    temperature: float
    multi_label: bool = False
    calibration: dict[str, Any] | None = None
    sweep: list[dict[str, Any]] = []
    thresholds: list[float] = []
    label_separator: str | None = None
    augmentation: dict[str, Any] | None = None
    choices: dict[str, Any] | None = None


_ADVICE = "train the model again, or copy it again from where it came from"
_FORMAT = Form(_Format, ModelFieldError, _ADVICE)
_FORM = Form(_Fields, ModelFieldError, _ADVICE, most=64 << 20)
_ARRAY = Form(bytes, ModelFieldError, _ADVICE, most=4 << 30)
"""Bounds the bytes of an array's file; a head of 100,000 labels has half a gigabyte."""


@dataclass(frozen=True)
class Bundle:
    """A trained head and its origin. No field holds a time, a host or a path: ids must not vary.

    Attributes:
        head: the trained layers, their temperature and whether it is multi-label.
        labels: class names, verbatim, in class order.
        backbone: name of the backbone whose vectors the head was trained on; several names, with
            `+` between them, for vectors side by side.
        fingerprint: fingerprint of that backbone and its pixel recipe; several likewise.
        pixels: the pixel recipe, JSON; of several backbones, by their names.
        recipe: the training recipe and its settings, JSON.
        split: the split rule and its settings, JSON.
        seed: of the split and the training.
        dataset_hash: hash of the rows trained on.
        metrics: measures by split, JSON.
        versions: package name -> version.
        calibration: fit of the head's temperature, JSON, or None.
        sweep: settings that were tried in a sweep, one JSON row each.
        thresholds: of a multi-label head, least score of each label, 0..1.
        label_separator: text between several labels of an image; None for one label each.
        augmentation: distorted copies that it was also trained on, JSON, or None.
        held_out: scores of images that the head was not trained on, see `HELD_OUT`; None in
            older models.
        choices: how settings were chosen by cross-fitting, see `TrainResult.choices`; None in
            models of format 1.
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
    calibration: Mapping[str, Any] | None = None
    sweep: Sequence[Mapping[str, Any]] = ()
    thresholds: Sequence[float] = ()
    label_separator: str | None = None
    held_out: HeldOut | None = None
    augmentation: Mapping[str, Any] | None = None
    choices: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        classes = len(self.labels)
        if len(set(self.labels)) != classes:
            raise ModelError(f"labels are not unique: {self.labels!r}")
        if self.thresholds and len(self.thresholds) != classes:
            raise ModelError(f"{len(self.thresholds)} thresholds for {classes} labels")
        if not 0 < self.head.temperature < np.inf:
            raise ModelError(f"temperature must be > 0, got {self.head.temperature!r}")
        _check_shapes(self.head, classes)
        if self.held_out is not None and self.held_out.dtype != HELD_OUT:
            raise ModelError(f"held_out is {self.held_out.dtype}, expected {HELD_OUT}")
        for name, array in self.head.parameters.items():
            if array.dtype != np.float32:
                raise ModelError(f"{name} are {array.dtype}, expected float32")
            if not np.isfinite(array).all():
                raise ModelError(f"{name} hold numbers that are not finite; train the model again")

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Fingerprints of the backbones whose vectors the head takes, in their order."""
        return tuple(self.fingerprint.split("+"))


def _check_shapes(head: Head, classes: int) -> None:
    weights, bias, hidden = head.weights, head.bias, head.hidden_weights
    if weights.ndim != 2 or weights.shape[1] != classes:
        raise ModelError(f"weights are {weights.shape}, expected [D, {classes}], by the labels")
    if bias.shape != (classes,):
        raise ModelError(f"bias is {bias.shape}, expected ({classes},), by the labels")
    if (hidden is None) != (head.hidden_bias is None):
        raise ModelError("a hidden layer needs both hidden_weights and hidden_bias")
    if hidden is None or head.hidden_bias is None:
        return
    width = len(weights)
    if hidden.ndim != 2 or hidden.shape[1] != width or head.hidden_bias.shape != (width,):
        raise ModelError(
            f"hidden_weights are {hidden.shape} and hidden_bias {head.hidden_bias.shape},"
            f" expected [D, {width}] and ({width},), by the weights"
        )


def model_id(bundle: Bundle) -> str:
    """Returns the hex sha256 of the bundle's whole content, wherever it is stored."""
    return _identify(_description(bundle, _side_files(bundle)))


def write_bundle(folder: str, bundle: Bundle, writing: Writing | None = None) -> str:
    """Writes a bundle, over an older one if there is one; equal bundles give equal bytes.

    `model.json` is written last and holds the hashes of the other files, so that the rest of a
    killed write never reads as a model.

    Returns:
        The model's id.

    Raises:
        OutputError: if the folder holds other things, see `check_model_folder`.
    """
    check_model_folder(folder, writing or Writing())
    older = _names_of_older(folder)
    side_files = _side_files(bundle)
    description = _description(bundle, side_files)
    identity = _identify(description)
    files.make_folder(folder)
    files.write_atomic(files.join(folder, _UNFINISHED), b"")
    for name, data in side_files.items():
        files.write_atomic(files.join(folder, name), data)
    text = _to_json({**description, "model_id": identity}, indent=1) + "\n"
    files.write_atomic(files.join(folder, MODEL_FILE), text.encode())
    # An older bundle may have had a hidden layer.
    for name in (_UNFINISHED, *sorted(older.difference(side_files))):
        files.delete(files.join(folder, name))
    return identity


def read_bundle(folder: str) -> Bundle:
    """Reads a bundle and checks every byte of it.

    Raises:
        ModelError: if it is missing or not whole; names the file and the mismatch.
    """
    described = _read_description(folder)
    hashes = described["files"]
    stored = [name for name in _ARRAYS if f"{name}.npy" in hashes or not name.startswith("hidden")]
    arrays: dict[str, Any] = {n: _read_array(folder, f"{n}.npy", hashes) for n in stored}
    _read_checked(folder, _LABELS, hashes)
    head = {key: described[key] for key in _OF_THE_HEAD if key in described}
    other = ("format", "files", "model_id", *_OF_THE_HEAD)
    fields = {key: value for key, value in described.items() if key not in other}
    fields["labels"] = tuple(described["labels"])
    if _HELD_OUT in hashes:
        fields["held_out"] = _read_array(folder, _HELD_OUT, hashes)
    try:
        return Bundle(head=Head(**arrays, **head), **fields)
    except (ModelError, TypeError) as error:
        raise ModelError(f"the model {folder!r} does not fit together: {error}") from error


def require_backbone(
    bundle: Bundle, name: str, fingerprint: str, pixels: Mapping[str, Any] | None = None
) -> None:
    """Checks that vectors come from the backbone that the head was trained on.

    Args:
        bundle: the model.
        name: name of the vectors' backbone.
        fingerprint: its fingerprint.
        pixels: its pixel recipe, for the error.

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
    absent = {*_IN_FILES, *(key for key in _LATER if getattr(bundle, key) is None)}
    fields = {key: value for key, value in vars(bundle).items() if key not in absent}
    hashes = {name: _sha256(data) for name, data in side_files.items()}
    head = {key: getattr(bundle.head, key) for key in _OF_THE_HEAD}
    is_later = any(getattr(bundle, key) is not None for key in _OF_FORMAT_2)
    return {"format": FORMAT_2 if is_later else FORMAT, **fields, **head, "files": hashes}


def _identify(description: Mapping[str, Any]) -> str:
    return _sha256(_to_json(description).encode())


def _to_json(value: Mapping[str, Any], indent: int | None = None) -> str:
    try:
        return json.dumps(value, sort_keys=True, indent=indent, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model's description cannot be written as JSON: {error}") from error


def _side_files(bundle: Bundle) -> dict[str, bytes]:
    arrays = {f"{name}.npy": _npy(array) for name, array in bundle.head.parameters.items()}
    # One label a line, with line breaks escaped; the JSON has the labels verbatim.
    lines = [label.replace("\r", "\\r").replace("\n", "\\n") for label in bundle.labels]
    if bundle.held_out is not None:
        arrays[_HELD_OUT] = _npy(bundle.held_out)
    return {**arrays, _LABELS: "".join(f"{line}\n" for line in lines).encode()}


def _npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    # The same bytes on every machine: the model's id is their digest.
    little_endian = array.dtype.newbyteorder("<")
    np.save(buffer, np.ascontiguousarray(array, dtype=little_endian), allow_pickle=False)
    return buffer.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check_model_folder(folder: str, writing: Writing | None = None) -> None:
    """Checks that a model may be written into a folder.

    The folder has to be new, empty, a bundle or the beginning of one. With `writing.overwrite` it
    may hold other things, which stay.

    Raises:
        OutputError: if the folder holds things that must stay.
    """
    (writing or Writing()).check_folder(folder, "a model", _NAMES.__contains__, _is_bundle)


def _is_bundle(folder: str) -> bool:
    return files.exists(files.join(folder, _UNFINISHED)) or bool(_read_description(folder))


def _names_of_older(folder: str) -> set[str]:
    """Returns the names of the files of a folder's bundle, if it holds one."""
    try:
        return set(_NAMES).intersection(_read_description(folder)["files"])
    except (ModelError, OSError):
        return set()


def _read(folder: str, name: str, form: Form[Any]) -> bytes:
    uri = files.join(folder, name)
    try:
        return files.read_document(uri, form)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(
            f"no whole model in {folder!r}: {name} cannot be read ({reason}); `beam-flowers train "
            f"STORE --model {folder}` makes one"
        ) from error


def _read_description(folder: str) -> dict[str, Any]:
    where = files.join(folder, MODEL_FILE)
    data = _read(folder, MODEL_FILE, _FORM)
    found = _FORMAT.read(data, where).format
    form, _, number = found.rpartition(" ")
    is_known = found in (FORMAT, FORMAT_2)
    if form == FORMAT.rpartition(" ")[0] and number.isdecimal() and not is_known:
        raise ModelError(
            f"{where!r} has the format {found[:MOST_SHOWN]!r}, this version of beam-flowers reads"
            f" {FORMAT!r} and {FORMAT_2!r}: a newer one wrote it; update beam-flowers"
        )
    if not is_known:
        raise _FORM.wrong(where, "format", f"{found!r}, not {FORMAT!r} or {FORMAT_2!r}")
    _FORM.read(data, where)
    try:
        # By Python's own reader and writer: the id is the digest of what they give.
        described: dict[str, Any] = json.loads(data)
        identity = _identify({k: v for k, v in described.items() if k != "model_id"})
    except (ValueError, RecursionError) as error:
        raise _FORM.wrong(where, "", str(error)) from error
    if identity != described.get("model_id"):
        raise ModelError(
            f"{where!r} was changed: its content has the id {identity},"
            f" it says {str(described.get('model_id'))[:MOST_SHOWN]!r}"
        )
    return described


def _read_checked(folder: str, name: str, hashes: Mapping[str, str]) -> bytes:
    data = _read(folder, name, _ARRAY)
    if _sha256(data) != hashes.get(name):
        said = str(hashes.get(name))[:MOST_SHOWN]
        raise ModelError(
            f"{files.join(folder, name)!r} was changed or only half written: its sha256 is"
            f" {_sha256(data)}, {MODEL_FILE} says {said}; train the model again"
        )
    return data


def _read_array(folder: str, name: str, hashes: Mapping[str, str]) -> npt.NDArray[Any]:
    data = _read_checked(folder, name, hashes)
    try:
        array: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # NumPy parses headers as Python: any of its errors may come.
        raise ModelError(f"{files.join(folder, name)!r} is no array: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ModelError(f"{files.join(folder, name)!r} is no array, but an archive")
    return array
