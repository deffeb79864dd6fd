"""Networks as engines read them, kept in the user's cache: later starts go without their origin."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import beam_flowers
from beam_flowers.backbones import weights
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.paths import cache

_DIGEST = "sha256"


def place(backbone: ResolvedBackbone, engine: str, version: str) -> Path:
    """The folder for a network as that version of an engine reads it, in any precision."""
    row = backbone.row
    network = (row.name, backbone.weights_sha256, repr(row.pixel_range), str(row.input_size))
    # The precision is not among them: it is chosen when the network is compiled.
    made_by = (version, beam_flowers.__version__)
    name = hashlib.sha256(repr((network, made_by)).encode()).hexdigest()[:32]
    try:
        return Path(cache(engine)).expanduser() / name
    except RuntimeError:  # Somebody without a home, as in some containers: nothing can be kept.
        return Path(os.devnull, name)


def keep(folder: Path, save: Callable[[Path], None]) -> None:
    """Has `save` write a network's files into a folder, which then becomes `folder`.

    Where the cache can't be written, nothing is kept.
    """
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
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
        return (folder / _DIGEST).read_text() == _digest(folder)
    except OSError:
        return False


def _digest(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.name != _DIGEST)
    return "".join(weights.file_digest(str(folder / name), "sha256") for name in names)
