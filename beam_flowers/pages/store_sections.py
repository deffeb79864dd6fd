"""Sections about what lies in a store or beside a table: labels, rejects, the map, the steps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from beam_flowers.head.examples import Examples
from beam_flowers.head.softmax import Indices
from beam_flowers.pages import charts
from beam_flowers.pages.format import counted, percent, shown
from beam_flowers.pages.projection import principal_plane
from beam_flowers.pages.sections import Card, Column, Figure, Map, Table
from beam_flowers.records import NOT_AN_IMAGE

MOST_REJECTS = 2000
"""Rows of the table of rejects."""

_MOST_STEPS = 400


def label_counts(labels: Sequence[str | None]) -> Table:
    """How many pictures each label has."""
    counts = Counter("(no label)" if label is None else label for label in labels)
    rows = [[label, n, n / len(labels)] for label, n in counts.most_common()]
    columns = [Column("label"), Column("pictures", "number"), Column("share", "share")]
    note = f"{counted(len(labels), 'picture')} with a vector."
    return Table("labels", "Labels", note, columns, rows)


def rejects(rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Files that gave no row: how many by reason, then each by name; nothing where all did."""
    if not rows:
        return []
    reasons: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        reasons[str(row["error_class"])].append(row)
    by_reason = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    columns = [Column("reason"), Column("files", "number"), Column("for example")]
    summary = [
        [_reason(reason), len(found), str(found[0]["message"])] for reason, found in by_reason
    ]
    each = [
        [str(row["uri"]), _reason(str(row["error_class"])), str(row["message"])]
        for _, found in by_reason
        for row in found
    ]
    note = "Files that gave no row. One broken picture never ends a run."
    files = Table(
        "reject-files",
        "By name",
        shown(MOST_REJECTS, len(each), "the reject table has all").strip(),
        [Column("file"), Column("reason"), Column("message")],
        each[:MOST_REJECTS],
    )
    return [Table("rejects", "Rejected files", note, columns, summary, files)]


def _reason(error_class: str) -> str:
    return f"{error_class} (passed over)" if error_class == NOT_AN_IMAGE else error_class


def vector_map(
    examples: Examples,
    rows: Indices,
    given: Sequence[str] | None,
    labels: Sequence[str | None],
    total: int | None = None,
) -> Map:
    """The plane in which the vectors differ most.

    Args:
        examples: the store's rows.
        rows: intp [n], a sample of them.
        given: [n], labels by a model, or None.
        labels: [n], labels to colour by.
        total: number of images that `rows` is a sample of; by default all of `examples`.
    """
    # A vector that is not finite would take the others with it; evaluate names it as an error.
    finite = np.isfinite(examples.vectors[rows]).all(axis=1)
    keep = np.flatnonzero(finite).tolist()
    points, variance = principal_plane(examples.vectors[rows[keep]])
    names = sorted({str(labels[i]) for i in keep if labels[i] is not None})
    place = {name: i for i, name in enumerate(names)}
    groups = [place.get(str(labels[i]), -1) if labels[i] is not None else -1 for i in keep]
    wrong = [given is not None and labels[i] not in (None, given[i]) for i in keep]
    cards = [
        Card(examples.uris[rows[i]], labels[i] or "no label", f"given: {given[i]}" if given else "")
        for i in keep
    ]
    note = (
        "Each point is a picture: near ones look alike to the network. The plane (principal "
        f"components) holds {percent(variance)} of the vectors' variance, so points that lie "
        "together may still be far apart. Hover, tap, or focus it and use the arrow keys."
        f"{' A rim marks pictures whose label is not the one given.' if given else ''}"
        f"{shown(len(keep), total or len(examples.uris), 'by chance')}"
    )
    svg = charts.plane(points, groups, wrong)
    colours = len(names) <= charts.PALETTE
    return Map("map", "Map", note, svg, cards, groups, names, colours)


def step_curves(steps: Sequence[Mapping[str, Any]], where: str) -> Figure:
    """Accuracy and cross entropy over the training's steps."""
    rows = thinned(steps)
    accuracy = charts.lines(
        rows, {"train_accuracy": "training", "validation_accuracy": "validation"}, "accuracy", True
    )
    entropy = charts.lines(
        rows,
        {"cross_entropy": "training", "validation_cross_entropy": "validation"},
        "cross entropy (nats)",
        False,
    )
    last = steps[-1]
    ends = f"Step {last['step']}: training accuracy {percent(last['train_accuracy'])}"
    if last["validation_accuracy"] is not None:
        ends += f", validation {percent(last['validation_accuracy'])}"
    note = f"{ends}. From {where}.{shown(len(rows), len(steps), 'evenly spaced')}"
    alts = ("Accuracy by step", "Cross entropy by step")
    charted = [(accuracy, f"{alts[0]}. {ends}"), (entropy, alts[1])]
    return Figure("steps", "Training steps", note, charted)


def thinned(steps: Sequence[Mapping[str, Any]], most: int = _MOST_STEPS) -> list[Mapping[str, Any]]:
    """At most `most` of the steps, the first and the last among them."""
    places: Iterable[int] = (
        np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int)
    )
    return [steps[i] for i in places]
