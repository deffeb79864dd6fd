"""Scoring by a head that takes the vectors of several backbones side by side, from a store."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from beam_flowers import files
from beam_flowers.errors import InputError, ModelError
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.softmax import CHUNK_ROWS
from beam_flowers.head.stored import Stored, read_examples_of
from beam_flowers.images.find import find_images
from beam_flowers.records import Bottleneck, Image, Reject
from beam_flowers.runs.embed import Summary
from beam_flowers.scores.output import rejects_name, scores_of, suffix, write_table
from beam_flowers.scores.ranking import ScoreRows
from beam_flowers.store.parts import RejectRows


def score_joined(
    store: str | None, images: Sequence[str] | None, output: str, bundle: Bundle, top_k: int
) -> Summary:
    """Labels the pictures of a store, on this machine alone: no picture is read.

    A picture that lacks the vectors of one of the backbones becomes a reject.

    Args:
        store: holds the vectors of all the model's backbones.
        images: label only what these list; None for all of the store.
        output: `.parquet`, `.csv` or `.jsonl`.
        bundle: the model.
        top_k: labels a row.

    Raises:
        ModelError: without a store, or if it lacks a backbone.
        InputError: for another output, or if no picture has all vectors.
    """
    if store is None:
        raise ModelError(
            f"the model takes the vectors of {bundle.backbone} side by side, which are not computed"
            " at once: embed the pictures with each of them into one store and score that"
        )
    if suffix(output) is None:
        raise InputError(f"such a model scores into .parquet, .csv or .jsonl, not {output!r}")
    stored = read_examples_of(files.absolute(store), bundle)
    uris = set(stored.examples.uris) | set(stored.left_out)
    listed = uris if images is None else _listed(images)
    rows = [row for row, uri in enumerate(stored.examples.uris) if uri in listed]
    kind = ScoreRows.of(bundle, top_k)
    if not rows:
        raise InputError(f"{store} has no picture with the vectors of all of {bundle.backbone}")
    lacking = sorted(listed - {stored.examples.uris[row] for row in rows})
    rejects = RejectRows().table([_reject(uri, bundle.backbone) for uri in lacking])
    write_table(files.absolute(output), scores_of(_scores(stored, rows, kind)))
    write_table(rejects_name(files.absolute(output)), rejects)
    found = stored.dataset_hash
    return Summary(0, len(rows), len(lacking), 0, len(listed), len(lacking), found)


def _scores(stored: Stored, rows: Sequence[int], kind: ScoreRows) -> pa.Table:
    examples = stored.examples
    tables = []
    for start in range(0, len(rows), CHUNK_ROWS):
        chunk = rows[start : start + CHUNK_ROWS]
        # Of a picture's record only what a score row holds is known here.
        images = [Image(examples.uris[row], "", "") for row in chunk]
        digests = [examples.sha256[row] for row in chunk]
        bottlenecks = [
            Bottleneck(image, digest, 0, 0, "", examples.vectors[row])
            for image, digest, row in zip(images, digests, chunk, strict=True)
        ]
        tables.append(kind.table(bottlenecks))
    return pa.concat_tables(tables)


def _listed(images: Sequence[str]) -> set[str]:
    found = (f.image if isinstance(f, Reject) else f for f in find_images(images))
    return {f.uri for f in found if isinstance(f, Image)}


def _reject(uri: str, backbone: str) -> Reject:
    message = f"the store lacks its vector of one of {backbone}"
    return Reject(Image(uri, files.parent(uri), uri), "embed", "NoVector", message)
