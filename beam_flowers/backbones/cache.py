"""Keeps built networks in the user's cache: later runs need neither Keras nor the weights."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path

from beam_flowers import files
from beam_flowers.backbones import weights
from beam_flowers.backbones.catalogue import VECTORS
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.files.private import private_folder

_DIGEST = "sha256"
_FOR_PEOPLE = {"licence", "source"}
"""Fields of a backbone that do not change its network; a source may be a path on one machine."""
_LIBRARIES = ("tensorflow", "keras")


def sources_digest(folder: Path) -> str | None:
    """Hashes the modules in a folder by name; returns None if it has none, as in a zip."""
    modules = sorted(folder.glob("*.py"))
    lines = [f"{hashlib.sha256(m.read_bytes()).hexdigest()}  {m.name}\n" for m in modules]
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None


# Hashed at import: files that are edited later do not describe the imported code.
_SOURCES = sources_digest(Path(__file__).parent)


def place(backbone: ResolvedBackbone, engine: str, version: str) -> Path:
    """Returns the folder of a backbone as compiled for one version of an engine.

    Its name changes with all that decides the network: the modules that build it and choose its
    output (`tf_runtime.vector_of`), the libraries, the weights, the recipe, the precision.
    """
    row = {key: value for key, value in asdict(backbone.row).items() if key not in _FOR_PEOPLE}
    made_of = {
        "sources": _SOURCES,
        "architecture": _architecture_digest(backbone),
        "engine": [engine, version],
        "libraries": [_version(name) for name in _LIBRARIES],
        "kind": backbone.kind,
        "row": row,
        # Vectors are rounded after the network has run, so that rounding shares one network.
        "recipe": replace(backbone, vectors=VECTORS[0]).about(),
    }
    name = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]
    folder = private_folder(engine) if _SOURCES else None
    # Without a private folder nothing is kept: /dev/null cannot hold a folder.
    return folder / name if folder else Path(os.devnull, name)


def _architecture_digest(backbone: ResolvedBackbone) -> str | None:
    """Hashes the file of blocks beside EfficientNet-Lite's arrays; None for other backbones."""
    if backbone.kind != "efficientnet-lite":
        return None
    path = files.join(files.parent(backbone.place), weights.BLOCKS)
    # If the file is missing, building the network raises the error.
    with contextlib.suppress(OSError):
        return weights.file_digest(path, "sha256")
    return None


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def keep(folder: Path, save: Callable[[Path], None]) -> None:
    """Calls `save` to write a network's files into a new folder, and renames that to `folder`.

    Keeps nothing if the cache cannot be written.
    """
    with contextlib.suppress(OSError):
        folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as made:
            network = Path(made, "network")
            network.mkdir()
            save(network)
            (network / _DIGEST).write_text(_digest(network))
            # Another process may have been faster, and others may already read its files.
            if not is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                network.rename(folder)


def is_whole(folder: Path) -> bool:
    """Tells if a folder holds a network that is unchanged since it was written."""
    try:
        # One byte more is read, so that a longer file is not taken for the digest.
        expected = _digest(folder).encode()
        return files.read_bytes(str(folder / _DIGEST), len(expected) + 1) == expected
    except OSError:
        return False


def _digest(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.name != _DIGEST)
    return "".join(weights.file_digest(str(folder / name), "sha256") for name in names)
