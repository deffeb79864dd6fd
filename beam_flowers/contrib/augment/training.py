"""Reads the distorted copies of a store's images for training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from beam_flowers import files
from beam_flowers.contrib.augment.features import CopyFeatures, find_copies, read_copies
from beam_flowers.errors import StoreError
from beam_flowers.head.examples import Examples
from beam_flowers.head.softmax import Indices
from beam_flowers.head.store_examples import JOIN, StoredExamples, concatenate
from beam_flowers.store.commits import Section
from beam_flowers.store.features import open_store
from beam_flowers.store.vectors import Stacked


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
    copies = [find_copies(root, section) for section in _sections(root, fingerprint)]
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
