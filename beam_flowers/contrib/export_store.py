"""`export` of a store: its vectors, labels and pictures for programs that show them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from beam_flowers import files
from beam_flowers.backbones.compute import pool
from beam_flowers.contrib.fiftyone import write_fiftyone
from beam_flowers.contrib.projector import MOST_POINTS, write_projector
from beam_flowers.errors import InputError
from beam_flowers.images.outputs import Writing, check_target, placing
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.store.features import Features, read_features


class Exported(NamedTuple):
    """How many rows were written, and of how many that the store has."""

    rows: int
    stored: int


def export_store(
    store: str,
    kind: str,
    output: str,
    backbone: str | None = None,
    scores: str | None = None,
    warn: Callable[[str], None] = print,
    writing: Writing | None = None,
) -> Exported:
    """Writes a store for TensorBoard's projector or for FiftyOne.

    Args:
        store: folder.
        kind: `projector` or `fiftyone`.
        output: local folder.
        backbone: whose vectors, where the store has several.
        scores: a table of scores, whose labels are the predictions.
        warn: takes a line for the user.
        writing: the terms; by default nothing may be there yet.

    Raises:
        OutputError: something is there that must stay.
        InputError: the table of scores has none of the pictures.
        StoreError: there is no such store, or it has no vectors.
    """
    writing = (writing or Writing()).reading(store, scores)
    target = check_target(output, f"an export to {kind}", writing)
    features = read_features(files.absolute(store), backbone)[1]
    predictions = _predictions(features, scores)
    with placing(target) as made:
        os.mkdir(made)
        write = _write_projector if kind == "projector" else _write_fiftyone
        count = write(made, features, predictions, warn)
    return Exported(count, len(features.uris))


_Predictions = list[tuple[str, float] | None]


def _predictions(features: Features, scores: str | None) -> _Predictions | None:
    if scores is None:
        return None
    table = read_scores(scores)
    given = zip(table.given, map(float, table.scores), strict=True)
    found = dict(zip(table.uris, given, strict=True))
    predictions = [found.get(uri) for uri in features.uris]
    if not any(predictions):
        raise InputError(f"{scores!r} has no score of a picture of the store; score that store")
    return predictions


def _write_projector(
    folder: str,
    features: Features,
    predictions: _Predictions | None,
    warn: Callable[[str], None],
) -> int:
    # The order of the contents' digests is by chance, and the same for every export.
    order = np.argsort(np.array(features.sha256), kind="stable")[:MOST_POINTS]
    if len(order) < len(features.uris):
        warn(f"the projector loads {MOST_POINTS:,} points: the others of the store are left out")
    columns: dict[str, list[object]] = {
        "label": [features.labels[i] for i in order],
        "uri": [features.uris[i] for i in order],
    }
    if predictions:
        columns["prediction"] = [(predictions[i] or ("",))[0] for i in order]
        columns["score"] = [f"{p[1]:.6f}" if (p := predictions[i]) else "" for i in order]
    uris = [features.uris[i] for i in order]
    missing = write_projector(folder, features.vectors[order], columns, uris, pool())
    if missing:
        warn(f"{missing} of the pictures cannot be read any more: grey in the sprite")
    return len(order)


def _write_fiftyone(
    folder: str,
    features: Features,
    predictions: _Predictions | None,
    warn: Callable[[str], None],
) -> int:
    elsewhere = sum(not files.is_local(uri) for uri in features.uris)
    if elsewhere:
        warn(f"{elsewhere} of the pictures are no local files: FiftyOne cannot show them")
    write_fiftyone(folder, features.uris, features.labels, features.vectors, predictions)
    return len(features.uris)
