"""Finds, classifies, hashes and copies the weights of backbones."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from beam_flowers import files
from beam_flowers.backbones import onnx_folder
from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.backbones.onnx_file import data_files, read_graph
from beam_flowers.errors import BackboneError
from beam_flowers.files.paths import cache

PLACES_VARIABLE = "BEAM_FLOWERS_BACKBONES"
"""Environment variable: a folder of weights files and SavedModel folders."""

Kind = Literal["efficientnet-lite", "keras-weights", "saved-model", "keras-file", "onnx"]

BLOCKS = "architecture.json"
"""File of blocks beside the arrays of an EfficientNet-Lite."""

_MODEL = "saved_model.pb"
_PIECE = 2**20


def places(row: Backbone) -> list[str]:
    """Returns the paths at which a row's weights are searched, in order."""
    if row.in_package:
        folder = Path(__file__).parents[1] / "data" / "backbones" / row.architecture
        return [str(folder / row.weights_file)]
    if row.loader == "efficientnet-lite":
        names, last = [f"{row.name}/{row.weights_file}"], cache("backbones")
    else:
        keras = os.environ.get("KERAS_HOME", "~/.keras")
        names, last = [row.weights_file, row.name], f"{keras}/models"
    folder_given = os.environ.get(PLACES_VARIABLE)
    own = [files.join(folder_given, name) for name in names] if folder_given else []
    return [files.absolute(path) for path in (*own, f"{last}/{names[0]}")]


def find(row: Backbone) -> str | None:
    """Returns the first existing path of a row's weights, or None."""
    return next((path for path in places(row) if files.exists(path)), None)


def kind_of(path: str, row: Backbone) -> Kind:
    """Returns the format of the weights of `row` at `path`.

    Raises:
        BackboneError: the path does not exist, or its format is not safe to load.
    """
    if row.in_package or (row.loader == "efficientnet-lite" and path.endswith(".npz")):
        return "efficientnet-lite"
    if not files.exists(path):
        raise BackboneError(f"{path!r} is not there: no weights for {row.name!r}")
    if files.is_folder(path):
        if files.exists(files.join(path, _MODEL)):
            return "saved-model"
        if onnx_folder.find_graph(path):
            return "onnx"
        raise BackboneError(
            f"the folder {path!r} has no network: neither a SavedModel's {_MODEL} nor one of "
            f"{', '.join(onnx_folder.GRAPHS)}"
        )
    if path.endswith(".keras"):
        return "keras-file"
    if path.endswith(onnx_folder.SUFFIX):
        return "onnx"
    if path.endswith(".h5"):
        if row.loader == "keras-application":
            return "keras-weights"
        raise BackboneError(
            f"{path!r}: a .h5 file can hold code, so it is taken only as weights of a backbone "
            "known by name; save the model as .keras or as a SavedModel instead"
        )
    raise BackboneError(
        f"{path!r} is not a kind of file that is taken as a network (pickles never are, they "
        "are code): give a SavedModel folder, a .keras file, or an .onnx file or its folder"
    )


def sha256(path: str, kind: Kind) -> str:
    """Returns the hex digest of a weights file, or of the files of a network.

    That of a SavedModel hashes the lines of `sha256sum` for `saved_model.pb` and all files below
    `assets` and `variables`, sorted by path:
    `find assets saved_model.pb variables -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`.
    That of an ONNX graph with external data likewise hashes the lines for the graph and then for
    its data files, sorted, by their paths from the graph's folder.
    """
    if kind == "onnx":
        with local_copy(path, kind) as local:
            return _onnx_digest(local)
    if kind != "saved-model":
        return file_digest(path, "sha256")
    names = model_files(path)
    return listed_digest({name: file_digest(files.join(path, name), "sha256") for name in names})


def _onnx_digest(path: str) -> str:
    folder, graph = os.path.split(path)
    if not (names := data_files(read_graph(path), path)):
        return file_digest(path, "sha256")
    digests = (file_digest(os.path.join(folder, name), "sha256") for name in (graph, *names))
    lines = (f"{one}  {name}\n" for one, name in zip(digests, (graph, *names), strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def listed_digest(digests: Mapping[str, str]) -> str:
    """Returns the digest of a SavedModel by those of its files; ignores other files."""
    parts = (_MODEL, "assets", "variables")
    names = sorted((n for n in digests if n.partition("/")[0] in parts), key=os.fsencode)
    lines = [f"{digests[name]}  {name}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def model_files(folder: str) -> list[str]:
    """Returns the relative paths of a SavedModel's files, sorted as bytes."""
    names = [_MODEL]
    for part in ("assets", "variables"):
        below = files.join(folder, part)
        if files.is_folder(below):
            names.extend(files.relative(entry.uri, folder) for entry in files.walk(below))
    return sorted(names, key=os.fsencode)


def file_digest(path: str, algorithm: str) -> str:
    """Returns the hex digest of a file's bytes, read piece by piece."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with files.open_read(path) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def require_pinned(path: str, row: Backbone) -> None:
    """Checks a weights file against the digest of its row.

    Raises:
        BackboneError: the digest differs.
    """
    algorithm, _, expected = row.digest.partition(":")
    digest = file_digest(path, algorithm)
    if digest == expected:
        return
    cure = (
        "install the package again"
        if row.in_package
        else f"get it again from {row.source}, or, for weights of your own, give their "
        "--backbone-sha256"
    )
    raise BackboneError(
        f"{path!r} is not the weights file of {row.name!r}: its {algorithm} is {digest}, not "
        f"{expected}; {cure}"
    )


@contextmanager
def local_copy(path: str, kind: Kind) -> Iterator[str]:
    """Yields a local path of the weights; copies remote ones, and deletes the copy afterwards."""
    if files.is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="beam-flowers-") as folder:
        copy = os.path.join(folder, path.rpartition("/")[2])
        if kind == "saved-model":
            for name in model_files(path):
                _copy(files.join(path, name), os.path.join(copy, name))
        else:
            _copy(path, copy)
        if kind == "onnx":
            for name in data_files(read_graph(copy), path):
                _copy(files.join(files.parent(path), name), os.path.join(folder, name))
        if kind == "efficientnet-lite":
            _copy(files.join(files.parent(path), BLOCKS), os.path.join(folder, BLOCKS))
        yield copy


def _copy(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with files.open_read(source) as remote, open(target, "wb") as local:
        shutil.copyfileobj(remote, local, _PIECE)
