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
from beam_flowers.head.store_examples import JOIN, Stored, concatenate
from beam_flowers.store.commits import Manifest, Section, latest, read_steadily
from beam_flowers.store.features import open_store, read_vectors, section_name
from beam_flowers.store.parts import Place, read_part
from beam_flowers.store.vectors import Stacked, Vectors


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


def with_copies(root: str, stored: Stored) -> Stored:
    """Appends the distorted copies of the images to rows of a store.

    A copy belongs to every image of its content, of any name or label. For several backbones
    vectors of copies are set side by side, as those of images: copies of one number have the same
    distortions for each.

    Raises:
        StoreError: if a backbone has no copies, or two backbones have different distortions.
    """
    sections = _sections(root, stored.fingerprint)
    blocks = [_read_copies(root, section, stored.examples.sha256) for section in sections]
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
        f"{len(uris)} labelled pictures have not all distorted copies, such as {uris[0]!r}; embed"
        " them with --augment"
    ]


def copies_held(root: str, fingerprint: str) -> int:
    """Returns how many copies of each image a store has for all backbones of a fingerprint."""
    root = files.absolute(root)
    manifest = latest(augmented_root(root))
    copies = [_section_of(manifest, plain) for plain in _sections(root, fingerprint)]
    return min(0 if section is None else int(section.about["copies"]) for section in copies)


def _sections(root: str, fingerprint: str) -> list[Section]:
    sections = {s.fingerprint: s for s in open_store(root).sections.values()}
    return [sections[own] for own in fingerprint.split(JOIN)]


def _section_of(manifest: Manifest, plain: Section) -> Section | None:
    """Returns the section of the copies of a store's section, if there are any."""
    section = manifest.sections.get(section_name(str(plain.about["name"]), plain.fingerprint))
    is_there = section and section.rows and section.about["backbone"] == plain.fingerprint
    return section if is_there else None


def _read_copies(root: str, plain: Section, sha256: Sequence[str]) -> CopyFeatures:
    """Reads the newest copies of images.

    Args:
        root: folder of the store.
        plain: section of the images.
        sha256: N digests of the images' contents, in any order, maybe equal ones.

    Raises:
        StoreError: if the store has no copies of this backbone's images.
    """
    table = augmented_root(root)

    def read(manifest: Manifest) -> CopyFeatures:
        section = _section_of(manifest, plain)
        if section is None:
            raise StoreError(
                f"{root} has no distorted copies for {plain.about['name']!r}; make them with"
                " embed IMAGES --augment K, or train without --augmented"
            )
        name = section_name(str(plain.about["name"]), plain.fingerprint)
        return _read(Place(table, name, section.fingerprint), section, sha256)

    return read_steadily(lambda: latest(table), read)


def _read(place: Place, section: Section, sha256: Sequence[str]) -> CopyFeatures:
    keys = pa.concat_tables([read_part(place, part.name, ["sha256", "k"]) for part in section.rows])
    # In the order of training, so that vectors in a file are read in one direction.
    order = pc.sort_indices(keys, [("k", "ascending"), ("sha256", "ascending")]).to_numpy()
    keys = keys.take(order)
    contents = pc.unique(pa.array(sha256, pa.string()))
    content = pc.index_in(keys["sha256"], value_set=contents).fill_null(-1).to_numpy()
    k = keys["k"].to_numpy()
    known = np.full((int(section.about["copies"]), len(contents)), -1, np.intp)
    # Files of one content have equal copies: any of them will do.
    used = (content >= 0) & (k <= len(known))
    known[k[used] - 1, content[used]] = np.flatnonzero(used)
    of_image = pc.index_in(pa.array(sha256, pa.string()), value_set=contents).to_numpy()
    vectors = read_vectors(place, section, order, np.arange(len(order)))
    return CopyFeatures(section, known[:, of_image], vectors)


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
