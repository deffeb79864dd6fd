"""Makes the sections about a store or a table: labels, rejects, the map, the training steps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.linalg import eigh

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.examples import Examples
from beam_flowers.head.softmax import Doubles, Floats, Indices
from beam_flowers.pages import charts
from beam_flowers.pages.format import counted, percent, shown
from beam_flowers.pages.sections import Card, Column, Figure, Map, Table
from beam_flowers.records import NOT_AN_IMAGE

MOST_REJECTS = 2000
"""Most rows of the table of rejects."""

_MOST_STEPS = 400


def label_counts(labels: Sequence[str | None]) -> Table:
    """Counts the images of each label."""
    counts = Counter("(no label)" if label is None else label for label in labels)
    rows = [[label, n, n / len(labels)] for label, n in counts.most_common()]
    columns = [Column("label"), Column("images", "number"), Column("share", "share")]
    note = f"{counted(len(labels), 'image')} with a vector."
    return Table("labels", "Labels", note, columns, rows)


def rejects(reject_rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Counts rejects by reason, then lists each by name; returns nothing without rejects."""
    if not reject_rows:
        return []
    reasons: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in reject_rows:
        error_class = str(row["error_class"])
        passed_over = " (passed over)" if error_class == NOT_AN_IMAGE else ""
        reasons[error_class + passed_over].append(row)
    by_reason = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    columns = [Column("reason"), Column("files", "number"), Column("for example")]
    summary = [[reason, len(rows), str(rows[0]["message"])] for reason, rows in by_reason]
    each = [
        [str(row["uri"]), reason, str(row["message"])] for reason, rows in by_reason for row in rows
    ]
    note = "Files that gave no row. One broken image never ends a run."
    files = Table(
        "reject-files",
        "By name",
        shown(MOST_REJECTS, len(each), "the reject table has all").strip(),
        [Column("file"), Column("reason"), Column("message")],
        each[:MOST_REJECTS],
    )
    return [Table("rejects", "Rejected files", note, columns, summary, files)]


def vector_map(
    examples: Examples,
    rows: Indices,
    given: Sequence[str] | None,
    labels: Sequence[str | None],
    *,
    total: int | None = None,
) -> Map:
    """Draws embeddings in the plane in which they differ most.

    Args:
        examples: the store's rows.
        rows: intp [n], a sample of them.
        given: [n], predicted labels, or None.
        labels: [n], labels to colour by.
        total: number of images that `rows` is a sample of; by default all of `examples`.
    """
    # One vector that is not finite would spoil the plane of all; evaluate reports it as an error.
    finite = np.isfinite(examples.vectors[rows]).all(axis=1)
    keep = np.flatnonzero(finite).tolist()
    points, variance = principal_plane(examples.vectors[rows[keep]])
    names = sorted({str(labels[i]) for i in keep if labels[i] is not None})
    number = {name: i for i, name in enumerate(names)}
    groups = [number.get(str(labels[i]), -1) if labels[i] is not None else -1 for i in keep]
    wrong = [given is not None and labels[i] not in (None, given[i]) for i in keep]
    cards = [
        Card(examples.uris[rows[i]], labels[i] or "no label", f"given: {given[i]}" if given else "")
        for i in keep
    ]
    note = (
        "Each point is an image: near ones look alike to the network. The plane (principal "
        f"components) holds {percent(variance)} of the vectors' variance, so points that lie "
        "together may still be far apart. Hover, tap, or focus it and use the arrow keys."
        f"{' A rim marks images whose label is not the one given.' if given else ''}"
        f"{shown(len(keep), total or len(examples.uris), 'by chance')}"
    )
    svg = charts.plane(points, groups, wrong)
    colours = len(names) <= charts.PALETTE
    return Map("map", "Map", note, svg, cards, groups, names, colours)


def sample_rows(count: int, most: int, seed: int = 0) -> Indices:
    """Draws at most `most` of `count` rows, ascending; a seed always draws the same ones."""
    if count <= most:
        return np.arange(count, dtype=np.intp)
    chosen = np.random.default_rng(seed).choice(count, most, replace=False)
    return np.sort(chosen).astype(np.intp)


@one_blas_thread
def principal_plane(vectors: Floats) -> tuple[Doubles, float]:
    """Computes the first two principal components.

    Args:
        vectors: float [n, D], finite.

    Returns:
        float64 [n, 2], zeros if all vectors are equal, and the share of the variance that they
        hold, 0..1.
    """
    deviations = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    # X Xᵀ and Xᵀ X have the same largest eigenvalues; the smaller one is faster.
    tall = len(vectors) >= vectors.shape[1]
    square = deviations.T @ deviations if tall else deviations @ deviations.T
    total, size = float(np.trace(square)), len(square)
    if not total or size < 2:
        return np.zeros((len(vectors), 2)), 1.0
    values, axes = eigh(square, subset_by_index=[size - 2, size - 1])
    plane = deviations @ axes if tall else axes * np.sqrt(values.clip(min=0))
    # An eigenvector's sign is arbitrary: fixed, the same vectors give the same map.
    signs = np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])
    return (plane * signs)[:, ::-1], float(values.clip(min=0).sum() / total)


def step_curves(steps: Sequence[Mapping[str, Any]], log: str) -> Figure:
    """Draws accuracy and cross entropy over the training's steps, read from the file `log`."""
    rows = thinned(steps)
    accuracy = charts.lines(
        rows,
        {"train_accuracy": "training", "validation_accuracy": "validation"},
        "accuracy",
        percent=True,
    )
    entropy = charts.lines(
        rows,
        {"cross_entropy": "training", "validation_cross_entropy": "validation"},
        "cross entropy (nats)",
        percent=False,
    )
    last = steps[-1]
    ends = f"Step {last['step']}: training accuracy {percent(last['train_accuracy'])}"
    if last["validation_accuracy"] is not None:
        ends += f", validation {percent(last['validation_accuracy'])}"
    note = f"{ends}. From {log}.{shown(len(rows), len(steps), 'evenly spaced')}"
    drawn = [(accuracy, f"Accuracy by step. {ends}"), (entropy, "Cross entropy by step")]
    return Figure("steps", "Training steps", note, drawn)


def thinned(steps: Sequence[Mapping[str, Any]], most: int = _MOST_STEPS) -> list[Mapping[str, Any]]:
    """Returns at most `most` of the steps, evenly spaced, the first and the last among them."""
    chosen = np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int)
    return [steps[i] for i in chosen]
