"""The distorted copies that a store has of its pictures, for training on them as well."""

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
from beam_flowers.head.store_examples import JOIN, Stored, concatenate
from beam_flowers.store.commits import Section
from beam_flowers.store.features import open_store
from beam_flowers.store.vectors import Stacked


def with_copies(root: str, stored: Stored) -> Stored:
    """Rows of a store with the distorted copies of their pictures behind them.

    A copy belongs to every picture of its content, whatever that is called or labelled. Of
    several backbones the copies stand side by side as the pictures' vectors do: the copies of
    one number show the same part of a picture, turned alike.

    Raises:
        StoreError: if a backbone has no copies, or two have them by different distortions.
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
    """A line about the labelled pictures that lack a copy which others have."""
    lacking = np.flatnonzero((rows < 0).any(axis=0)).tolist()
    uris = [examples.uris[row] for row in lacking if examples.labels[row] is not None]
    if not uris:
        return []
    return [
        f"{len(uris)} labelled pictures have not all distorted copies, such as {uris[0]!r}; embed"
        " them with --augment"
    ]


def copies_held(root: str, fingerprint: str) -> int:
    """How many copies of each picture a store has of the backbone, or of all of several."""
    root = files.absolute(root)
    found = [find_copies(root, section) for section in _sections(root, fingerprint)]
    return min(0 if place is None else int(place[1].about["copies"]) for place in found)


def _sections(root: str, fingerprint: str) -> list[Section]:
    sections = {s.fingerprint: s for s in open_store(root).sections.values()}
    return [sections[found] for found in fingerprint.split(JOIN)]


def _require_alike(names: str, blocks: Sequence[CopyFeatures]) -> None:
    first, *others = (block.section.about["distortions"] for block in blocks)
    if any(other != first for other in others):
        raise StoreError(
            f"the copies for {names} were made with different distortions; embed with the same"
            " --augment and flags of distortions for each"
        )


def _common(blocks: Sequence[CopyFeatures]) -> tuple[Indices, list[Indices]]:
    """(intp [K, N] as in `CopyFeatures`, of the joined copies; the rows of these in each block)."""
    fewest = min(len(block.rows) for block in blocks)
    rows = np.stack([block.rows[:fewest] for block in blocks])
    there = (rows >= 0).all(axis=0)
    joined = np.full(there.shape, -1, np.intp)
    joined[there] = np.arange(np.count_nonzero(there))
    return joined, [own[there] for own in rows]


def _describe(sections: Sequence[Section]) -> dict[str, Any]:
    """What a model bundle says of the copies: JSON, their hash included."""
    hashes = JOIN.join(section.dataset_hash for section in sections)
    one = len(sections) == 1
    return {
        "copies": min(int(section.about["copies"]) for section in sections),
        "distortions": sections[0].about["distortions"],
        "dataset_hash": hashes if one else hashlib.sha256(hashes.encode()).hexdigest(),
    }
