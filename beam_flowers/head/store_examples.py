"""Reads the rows of a store for training: vectors of one backbone, or of several side by side."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from beam_flowers.errors import ModelError, StoreError
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.examples import Examples
from beam_flowers.head.objective import common_scaling
from beam_flowers.head.softmax import CHUNK_ROWS, Floats, Indices, Sample
from beam_flowers.records import OnProgress
from beam_flowers.store.commits import Section
from beam_flowers.store.features import Features, open_store, read_features
from beam_flowers.store.vectors import Vectors, allocate

JOIN = "+"
"""Sign between the names, and the fingerprints, of backbones whose vectors are joined."""


@dataclass(frozen=True)
class StoredExamples:
    """Rows of a store with their backbone and data set.

    Attributes:
        examples: the rows; joined vectors are scaled by `factor`.
        backbone: name of the backbone; names of several with `+` between them.
        fingerprint: fingerprint of the backbone; of several with `+` between them.
        pixels: the pixel recipe, JSON; of several backbones, by their names.
        dataset_hash: hash of the rows in the store.
        factor: float32 [D], factor of joined vectors; None for one backbone.
        left_out: uris of images that lack the vectors of one of several backbones.
        augmentation: origin of `Examples.copies`, JSON, for the model; None without copies.
        notes: more lines for the user.
    """

    examples: Examples
    backbone: str
    fingerprint: str
    pixels: Mapping[str, Any]
    dataset_hash: str
    factor: Floats | None = None
    left_out: tuple[str, ...] = ()
    augmentation: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lines for the user."""
        lines = []
        if self.left_out:
            lines.append(
                f"{len(self.left_out)} images lack the vectors of one of {self.backbone} and are"
                f" left out, such as {self.left_out[0]!r}; embed them with each"
            )
        return (*lines, *self.notes)


def read_examples(
    root: str, backbone: str | None = None, on_progress: OnProgress | None = None
) -> StoredExamples:
    """Reads the rows of one backbone, or of several: `a+b` sets their vectors side by side.

    Rows that all backbones have are joined by uri and content; labels are those of the first
    backbone. Each backbone's block is divided by the root mean square of its deviations from the
    feature means, as by `Scaling`, so that none outweighs the others by its units.

    Raises:
        StoreError: if a backbone is absent or has to be named, or no row has all.
    """
    names = _names(root, backbone)
    if len(names) > 1:
        return _join([read_features(root, name, on_progress) for name in names])
    section, features = read_features(root, names[0], on_progress)
    about = section.about
    return StoredExamples(
        _examples(features),
        str(about["name"]),
        section.fingerprint,
        about.get("pixels", {}),
        section.dataset_hash,
    )


def read_examples_of(
    root: str, bundle: Bundle, on_progress: OnProgress | None = None
) -> StoredExamples:
    """Reads the rows of the backbones that a model was trained on, joined but not scaled.

    Raises:
        ModelError: if the store lacks one of them.
    """
    keys = {s.fingerprint: key for key, s in open_store(root).sections.items()}
    missing = [fingerprint for fingerprint in bundle.fingerprints if fingerprint not in keys]
    if missing:
        held = ", ".join(key.partition("=")[2] for key in keys.values())
        raise ModelError(
            f"the model needs vectors of {bundle.backbone} (fingerprints {bundle.fingerprint}),"
            f" but {root} has none of {missing[0][:8]}; it holds {held}"
        )
    names = [keys[fingerprint].partition("=")[2] for fingerprint in bundle.fingerprints]
    if len(names) == 1:
        return read_examples(root, names[0], on_progress)
    return _join([read_features(root, name, on_progress) for name in names], scale=False)


def each_backbone(
    root: str, on_progress: OnProgress | None = None
) -> Iterator[tuple[str, StoredExamples]]:
    """Yields the rows of each backbone of a store, then of all joined if there are several."""
    names = [key.partition("=")[2] for key in sorted(open_store(root).sections)]
    for name in names if len(names) == 1 else [*names, JOIN.join(names)]:
        yield name, read_examples(root, name, on_progress)


def _names(root: str, backbone: str | None) -> list[str | None]:
    if backbone is None or JOIN not in backbone:
        return [backbone]
    sections = open_store(root).sections.items()
    # A single backbone's name may hold the sign, too.
    held = {name for key, s in sections for name in (s.about.get("name"), key.partition("=")[2])}
    names = backbone.split(JOIN)
    if backbone not in held and len(set(names)) < len(names):
        raise StoreError(f"{backbone!r} names a backbone twice")
    return [backbone] if backbone in held else [*names]


def _examples(
    features: Features, rows: Sequence[int] | None = None, vectors: Vectors | None = None
) -> Examples:
    """Makes examples of all rows, or of some rows with other vectors."""
    if rows is None or vectors is None:
        return Examples(
            features.uris, features.sha256, features.labels, features.splits, features.vectors
        )
    return Examples(
        [features.uris[row] for row in rows],
        [features.sha256[row] for row in rows],
        [features.labels[row] for row in rows],
        [features.splits[row] for row in rows],
        vectors,
    )


def _join(blocks: Sequence[tuple[Section, Features]], *, scale: bool = True) -> StoredExamples:
    sections = [section for section, _ in blocks]
    names = JOIN.join(str(section.about["name"]) for section in sections)
    rows = _common_rows([features for _, features in blocks])
    if not len(rows[0]):
        raise StoreError(f"no image has the vectors of all of {names}; embed it with each")
    first = blocks[0][1]
    order = np.argsort([first.sha256[row] for row in rows[0].tolist()], kind="stable")
    vectors, factor = _side_by_side([f.vectors for _, f in blocks], rows, order, scale=scale)
    examples = _examples(first, rows[0].tolist(), vectors)
    everywhere = set().union(*(features.uris for _, features in blocks))
    hashes = JOIN.join(section.dataset_hash for section in sections)
    return StoredExamples(
        examples,
        names,
        JOIN.join(section.fingerprint for section in sections),
        {str(s.about["name"]): s.about.get("pixels", {}) for s in sections},
        hashlib.sha256(hashes.encode()).hexdigest(),
        factor,
        tuple(sorted(everywhere - set(examples.uris))),
    )


def _common_rows(blocks: Sequence[Features]) -> list[Indices]:
    """Returns for each block its rows of the images that all blocks have, in one order."""
    row_of = [
        {key: row for row, key in enumerate(zip(block.uris, block.sha256, strict=True))}
        for block in blocks
    ]
    common = [key for key in row_of[0] if all(key in rows for rows in row_of)]
    return [np.array([rows[key] for key in common], dtype=np.intp) for rows in row_of]


def _side_by_side(
    blocks: Sequence[Vectors], rows: Sequence[Indices], order: Indices, *, scale: bool
) -> tuple[Vectors, Floats | None]:
    """Returns the joined vectors, float32 [N, D], and the factor that scaled them."""
    factors = []
    for block, block_rows in zip(blocks, rows, strict=True):
        # In the order of the contents: the sums must not depend on the places of the images.
        sample = Sample(block, np.zeros(len(block_rows), np.intp), block_rows[order])
        inverse = common_scaling(sample).inverse if scale else np.float32(1)
        factors.append(np.full(block.shape[1], inverse))
    factor = np.concatenate(factors)
    return concatenate(blocks, rows, order, factor), factor if scale else None


def concatenate(
    blocks: Sequence[Vectors], rows: Sequence[Indices], order: Indices, factor: Floats
) -> Vectors:
    """Sets rows of several matrices side by side and multiplies them by `factor`, float32 [D].

    Args:
        blocks: matrices, float32 [n, d] each.
        rows: rows of each matrix, intp [N].
        order: intp [N], see `allocate`.
        factor: float32 [D].
    """
    joined = allocate(order, len(factor))
    for start in range(0, len(order), CHUNK_ROWS):
        places = order[start : start + CHUNK_ROWS]
        parts = [block[own[places]] for block, own in zip(blocks, rows, strict=True)]
        joined[places] = np.concatenate(parts, axis=1) * factor
    return joined
