"""Networks as engines read them, kept in the user's cache: later starts go without their origin."""

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
"""Fields of a backbone that no network is built from; a source may be a path on one machine."""
_LIBRARIES = ("tensorflow", "keras")


def sources_digest(folder: Path) -> str | None:
    """Hashes the modules in a folder by name; returns None for a folder without, as in a zip."""
    modules = sorted(folder.glob("*.py"))
    lines = [f"{hashlib.sha256(m.read_bytes()).hexdigest()}  {m.name}\n" for m in modules]
    return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else None


# Taken when the modules are imported: an edit after that makes another network than they do.
_SOURCES = sources_digest(Path(__file__).parent)


def place(backbone: ResolvedBackbone, engine: str, version: str) -> Path:
    """Names the folder for a network as that version of an engine reads it.

    The name changes with all that the network is made of: the modules that build it and choose
    its output (`tf_runtime.vector_of`), the libraries, the weights, the recipe, the precision.
    """
    row = {key: value for key, value in asdict(backbone.row).items() if key not in _FOR_PEOPLE}
    made_of = {
        "sources": _SOURCES,
        "architecture": _architecture_digest(backbone),
        "engine": [engine, version],
        "libraries": [_version(name) for name in _LIBRARIES],
        "kind": backbone.kind,
        "row": row,
        # Vectors are rounded after the network has run.
        "recipe": replace(backbone, vectors=VECTORS[0]).about(),
    }
    name = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]
    folder = private_folder(engine) if _SOURCES else None
    # Without a folder of one's own nothing can be kept.
    return folder / name if folder else Path(os.devnull, name)


def _architecture_digest(backbone: ResolvedBackbone) -> str | None:
    """Hashes the file of the blocks that lies beside EfficientNet-Lite's arrays."""
    if backbone.kind != "efficientnet-lite":
        return None
    path = files.join(files.parent(backbone.place), weights.BLOCKS)
    # Where it is gone no network can be built, which says so itself.
    with contextlib.suppress(OSError):
        return weights.file_digest(path, "sha256")
    return None


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def keep(folder: Path, save: Callable[[Path], None]) -> None:
    """Has `save` write a network's files into a folder, which then becomes `folder`.

    Where the cache can't be written, nothing is kept.
    """
    with contextlib.suppress(OSError):
        folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as made:
            network = Path(made, "network")
            network.mkdir()
            save(network)
            (network / _DIGEST).write_text(_digest(network))
            # Another process may have been faster; others may read already what it kept.
            if not is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                network.rename(folder)


def is_whole(folder: Path) -> bool:
    """Whether a network is kept there, as it was written."""
    try:
        # A file of any length is no digest, whatever it begins with.
        expected = _digest(folder).encode()
        return files.read_bytes(str(folder / _DIGEST), len(expected) + 1) == expected
    except OSError:
        return False


def _digest(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.name != _DIGEST)
    return "".join(weights.file_digest(str(folder / name), "sha256") for name in names)
