"""Reads the distorted copies of a store's images for training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers import files
from beam_flowers.contrib.augment.table import augmented_root
from beam_flowers.errors import StoreError
from beam_flowers.head.examples import Examples
from beam_flowers.head.softmax import Indices
from beam_flowers.head.store_examples import JOIN, StoredExamples, concatenate
from beam_flowers.store.commits import Manifest, Section, latest, read_steadily
from beam_flowers.store.features import open_store, read_vectors, section_name
from beam_flowers.store.parts import Place, read_part
from beam_flowers.store.vectors import Stacked, Vectors


def with_copies(root: str, stored: StoredExamples) -> StoredExamples:
    """Appends the distorted copies of the images to rows of a store.

    A copy belongs to every image of its content, of any name or label. For several backbones
    vectors of copies are set side by side, as those of images: copies of one number have the same
    distortions for each.

    Raises:
        StoreError: if a backbone has no copies, or two backbones have different distortions.
    """
    sections = _sections(root, stored.fingerprint)
    blocks = [read_copies(root, section, stored.examples.sha256) for section in sections]
    examples = stored.examples
    if stored.factor is None:
        rows, vectors = blocks[0].rows, blocks[0].vectors
    else:
        _require_alike(stored.backbone, blocks)
        rows, each = _common(blocks)
        order = np.arange(len(each[0]))
        vectors = concatenate([block.vectors for block in blocks], each, order, stored.factor)
    return replace(
        stored,
        examples=replace(
            examples,
            vectors=Stacked(examples.vectors, vectors),
            copies=np.where(rows < 0, -1, rows + len(examples.uris)),
        ),
        augmentation=_describe([block.section for block in blocks]),
        notes=(*stored.notes, *_lacking(examples, rows)),
    )


def _lacking(examples: Examples, rows: Indices) -> list[str]:
    """Returns a warning of the labelled images that lack a copy, if there are any."""
    lacking = np.flatnonzero((rows < 0).any(axis=0)).tolist()
    uris = [examples.uris[row] for row in lacking if examples.labels[row] is not None]
    if not uris:
        return []
    return [
        f"{len(uris)} labelled images have not all distorted copies, such as {uris[0]!r}; embed"
        " them with --augment"
    ]


def copies_held(root: str, fingerprint: str) -> int:
    """Returns how many copies of each image a store has for all backbones of a fingerprint."""
    root = files.absolute(root)
    table = augmented_root(root)
    sections, newest = _sections(root, fingerprint), latest(table)
    copies = [_find(table, newest, section) for section in sections]
    return min(0 if found is None else int(found[1].about["copies"]) for found in copies)


def _sections(root: str, fingerprint: str) -> list[Section]:
    sections = {s.fingerprint: s for s in open_store(root).sections.values()}
    return [sections[own] for own in fingerprint.split(JOIN)]


def _require_alike(names: str, blocks: Sequence[CopyFeatures]) -> None:
    first, *others = (block.section.about["distortions"] for block in blocks)
    if any(other != first for other in others):
        raise StoreError(
            f"the copies for {names} were made with different distortions; embed with the same"
            " --augment and flags of distortions for each"
        )


def _common(blocks: Sequence[CopyFeatures]) -> tuple[Indices, list[Indices]]:
    """Returns the rows of joined copies, intp [K, N] as in `CopyFeatures`, and their block rows."""
    fewest = min(len(block.rows) for block in blocks)
    rows = np.stack([block.rows[:fewest] for block in blocks])
    is_there = (rows >= 0).all(axis=0)
    joined = np.full(is_there.shape, -1, np.intp)
    joined[is_there] = np.arange(np.count_nonzero(is_there))
    return joined, [own[is_there] for own in rows]


def _describe(sections: Sequence[Section]) -> dict[str, Any]:
    """Describes the copies and their hash for a model bundle, JSON."""
    hashes = JOIN.join(section.dataset_hash for section in sections)
    one = len(sections) == 1
    return {
        "copies": min(int(section.about["copies"]) for section in sections),
        "distortions": sections[0].about["distortions"],
        "dataset_hash": hashes if one else hashlib.sha256(hashes.encode()).hexdigest(),
    }


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


def _find(table: str, manifest: Manifest, plain: Section) -> tuple[Place, Section] | None:
    """Finds the place and the section of the copies of a store's section, if there are any."""
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
