"""The labelled vectors of one backbone, read from the store for training and scoring."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_flowers.errors import StoreError
from beam_flowers.store.commits import Manifest, Section, open_table
from beam_flowers.store.parts import Place, read_part
from beam_flowers.store.schema import vectors_of

_IN_MEMORY = 1 << 30
"""Bytes of vectors above which they are mapped from a temporary file instead of held."""


@dataclass(frozen=True)
class Features:
    """Rows of the store in the order of their uris.

    Attributes:
        uris: [N].
        sha256: [N], hex digests of the files' contents.
        labels: [N], None where a file has no label.
        splits: [N], `training`, `validation`, `testing` or None.
        vectors: float32 [N, D]; a `np.memmap` where they are many.
    """

    uris: list[str]
    sha256: list[str]
    labels: list[str | None]
    splits: list[str | None]
    vectors: npt.NDArray[np.float32]


def section_name(backbone: str, fingerprint: str) -> str:
    """Folder of a backbone's rows: `backbone=<name>-<first 8 of the fingerprint>`."""
    return f"backbone={backbone}-{fingerprint[:8]}"


def choose_section(root: str, manifest: Manifest, backbone: str | None) -> tuple[str, Section]:
    """The section to read: the one named, or the only one.

    Raises:
        StoreError: if it is absent or if several would do; they are listed.
    """
    names = {key: str(s.about.get("name", "")) for key, s in manifest.sections.items()}
    fitting = [
        key for key, name in names.items() if backbone in (None, name, key.partition("=")[2])
    ]
    held = ", ".join(key.partition("=")[2] for key in names) or "none"
    if not fitting:
        raise StoreError(f"{root} has no vectors of {backbone!r}; it holds: {held}")
    if len(fitting) > 1:
        raise StoreError(f"{root} holds several backbones; choose one with --backbone: {held}")
    return fitting[0], manifest.sections[fitting[0]]


def read_features(root: str, backbone: str | None = None) -> tuple[Section, Features]:
    """The vectors that the store's newest commit names, and the section they are of."""
    key, section = choose_section(root, open_table(root), backbone)
    place = Place(root, key, section.fingerprint)
    if not section.rows:
        raise StoreError(f"{root} holds no vectors; every file was rejected: see {root}/__rejects")
    columns = ["uri", "sha256", "label", "split"]
    rows = pa.concat_tables([read_part(place, p.name, columns) for p in section.rows])
    order = np.array(rows.column("uri").to_pylist(), dtype=object).argsort(kind="stable")
    ordered = rows.take(order)
    return section, Features(
        *(ordered[name].to_pylist() for name in columns), _read_vectors(place, section, order)
    )


def _read_vectors(
    place: Place, section: Section, order: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    target = np.empty_like(order)
    target[order] = np.arange(len(order))
    vectors: npt.NDArray[np.float32] | None = None
    start = 0
    for part in section.rows:
        block = vectors_of(read_part(place, part.name, ["vector"]))
        if vectors is None:
            vectors = _allocate(len(order), block.shape[1])
        vectors[target[start : start + len(block)]] = block
        start += len(block)
    assert vectors is not None
    return vectors


def _allocate(rows: int, length: int) -> npt.NDArray[np.float32]:
    if rows * length * 4 <= _IN_MEMORY:
        return np.empty((rows, length), np.float32)
    # The file has no name any more once it is mapped: it goes with the process.
    with tempfile.TemporaryDirectory() as folder:
        return np.memmap(Path(folder, "vectors"), np.float32, "w+", shape=(rows, length))
