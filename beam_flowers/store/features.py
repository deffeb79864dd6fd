"""The labelled vectors of one backbone, read from the store for training and scoring."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_flowers.errors import PartLostError, StoreError
from beam_flowers.store.commits import Manifest, Section, latest, open_table
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


def open_store(root: str) -> Manifest:
    """The newest version of a feature store.

    Raises:
        StoreError: if there is none at `root`, or a table of scores.
    """
    manifest = open_table(root)
    if "" in manifest.sections:
        raise StoreError(f"{root} is a table of scores; name the feature store they were made from")
    return manifest


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
    while True:
        manifest = open_store(root)
        try:
            return _read(root, *choose_section(root, manifest, backbone))
        except PartLostError:
            # Another run may have replaced the part: then there is a newer version to read.
            if latest(root).version == manifest.version:
                raise


def _read(root: str, key: str, section: Section) -> tuple[Section, Features]:
    place = Place(root, key, section.fingerprint)
    if not section.rows:
        raise StoreError(f"{root} holds no vectors; every file was rejected: see {root}/__rejects")
    columns = ["uri", "sha256", "label", "split"]
    rows = pa.concat_tables([read_part(place, p.name, columns) for p in section.rows])
    order = np.array(rows.column("uri").to_pylist(), dtype=object).argsort(kind="stable")
    ordered = rows.take(order)
    uris, sha256, labels, splits = (ordered[name].to_pylist() for name in columns)
    vectors = _read_vectors(place, section, order)
    return section, Features(uris, sha256, labels, splits, vectors)


def _read_vectors(
    place: Place, section: Section, order: npt.NDArray[np.intp]
) -> npt.NDArray[np.float32]:
    target = np.empty_like(order)
    target[order] = np.arange(len(order))
    blocks = (vectors_of(read_part(place, part.name, ["vector"])) for part in section.rows)
    first = next(blocks)
    vectors = allocate(len(order), first.shape[1])
    start = 0
    for block in chain([first], blocks):
        vectors[target[start : start + len(block)]] = block
        start += len(block)
    return vectors


def allocate(rows: int, length: int) -> npt.NDArray[np.float32]:
    """Room for float32 [rows, length] vectors: in memory, or mapped where that is too much."""
    if rows * length * 4 <= _IN_MEMORY:
        return np.empty((rows, length), np.float32)
    # The file has no name any more once it is mapped: it goes with the process.
    with tempfile.TemporaryDirectory() as folder:
        return np.memmap(Path(folder, "vectors"), np.float32, "w+", shape=(rows, length))
