"""Reads the vectors of the distorted copies of a backbone's images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers.contrib.augment.table import augmented_root
from beam_flowers.errors import StoreError
from beam_flowers.head.softmax import Indices
from beam_flowers.store.commits import Manifest, Section, latest, read_steadily
from beam_flowers.store.features import read_vectors, section_name
from beam_flowers.store.parts import Place, read_part
from beam_flowers.store.vectors import Vectors

_MOST_ABSENT = 10_000
"""Copies that may be said to be there for each that is. They take memory, and some may be rejects,
or of images that came later."""


@dataclass(frozen=True)
class CopyFeatures:
    """Distorted copies of N images.

    Attributes:
        section: section of their table; its `about` names the distortions.
        rows: intp [K, N], row in `vectors` of each copy of each image; -1 for a missing one.
        vectors: float32 [M, D].
    """

    section: Section
    rows: Indices
    vectors: Vectors


def find_copies(root: str, plain: Section) -> tuple[Place, Section] | None:
    """Finds the place and the section of the copies of a store's section, if there are any."""
    table = augmented_root(root)
    return _find(table, latest(table), plain)


def _find(table: str, manifest: Manifest, plain: Section) -> tuple[Place, Section] | None:
    name = section_name(str(plain.about["name"]), plain.fingerprint)
    section = manifest.sections.get(name)
    if section is None or not section.rows or section.about.get("backbone") != plain.fingerprint:
        return None
    if missing := [key for key in ("copies", "distortions") if key not in section.about]:
        raise StoreError(
            f"{table}: version {manifest.version} does not say of {name} what this program always "
            f"does ({missing[0]}); embed the images again with --augment"
        )
    return Place(table, name, section.fingerprint), section


def read_copies(root: str, plain: Section, sha256: Sequence[str]) -> CopyFeatures:
    """Reads the newest copies of images.

    Args:
        root: folder of the store.
        plain: section of the images.
        sha256: N digests of the images' contents; several may be equal.

    Raises:
        StoreError: if the store has no copies of this backbone's images.
    """
    table = augmented_root(root)

    def read(manifest: Manifest) -> CopyFeatures:
        found = _find(table, manifest, plain)
        if found is None:
            raise StoreError(
                f"{root} has no distorted copies for {plain.about['name']!r}; make them with"
                " embed IMAGES --augment K, or train without --augmented"
            )
        return _read(*found, sha256)

    return read_steadily(lambda: latest(table), read)


def _read(place: Place, section: Section, sha256: Sequence[str]) -> CopyFeatures:
    keys = [read_part(place, part, ["sha256", "k"]) for part in section.rows]
    rows = pa.concat_tables(keys)
    # In the order of training, so that vectors in a file are read in one direction.
    order = pc.sort_indices(rows, [("k", "ascending"), ("sha256", "ascending")]).to_numpy()
    rows = rows.take(order)
    contents = pc.unique(pa.array(sha256, pa.string()))
    content = pc.index_in(rows["sha256"], value_set=contents).fill_null(-1).to_numpy()
    k = rows["k"].fill_null(0).to_numpy()
    copies = int(section.about["copies"])
    if copies * len(contents) > _MOST_ABSENT * (len(rows) + 1):
        raise StoreError(
            f"{place.root}: there are {len(rows)} copies, not {copies} of each image as its "
            "newest version says; embed the images again with --augment"
        )
    known = np.full((copies, len(contents)), -1, np.intp)
    # Of equal ones, under several names, any will do.
    used = (content >= 0) & (k >= 1) & (k <= len(known))
    known[k[used] - 1, content[used]] = np.flatnonzero(used)
    of_image = pc.index_in(pa.array(sha256, pa.string()), value_set=contents).to_numpy()
    vectors = read_vectors(place, section, order, np.arange(len(order)))
    return CopyFeatures(section, known[:, of_image], vectors)
