"""Sections about a model on pictures whose label is known, from the evaluation's JSON value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from beam_flowers.evaluation.measures import Scored
from beam_flowers.pages import charts
from beam_flowers.pages.format import counted, percent, share_of, shown
from beam_flowers.pages.sections import Card, Column, Figure, Gallery, Matrix, Section, Table, Tile

MOST_CARDS = 120
"""Pictures of a gallery."""

CELL_CARDS = 12
"""Pictures of a cell of a matrix."""

MOST_LABELS = 40
"""Above so many the confusion matrix is a list of its cells."""

_MOST_PAIRS = 500


def tiles(report: Mapping[str, Any]) -> list[Tile]:
    """What is seen first: how good it is, which are wrong, what to fix."""
    accuracy, wrong = report["accuracy"], report["misclassified"]["rows"]
    found = [
        Tile(percent(accuracy["value"]), "accuracy", share_of(accuracy), "confusion"),
        Tile(
            f"{len({row['uri'] for row in wrong}):,}",
            "labelled wrong",
            f"of {accuracy['pictures']:,} measured",
            "mistakes",
            bool(wrong),
        ),
    ]
    if suspects := report["suspected_label_errors"]:
        found.append(suspects_tile(suspects))
    rows = [row for row in report["labels"]["rows"] if row["recall"] is not None]
    if weakest := min(rows, key=lambda row: row["recall"], default=None):
        detail = f"of {weakest['label']} found, the weakest label"
        found.append(Tile(percent(weakest["recall"]), "lowest recall", detail, "labels"))
    return found


def suspects_tile(section: Mapping[str, Any]) -> Tile:
    """How many labels are in doubt."""
    doubtful = len(section["rows"])
    detail = f"of {counted(section['pictures'], 'labelled picture')}"
    return Tile(f"{doubtful:,}", "labels to check", detail, "suspects", bool(doubtful))


def lead(report: Mapping[str, Any]) -> str:
    """The answer in a sentence."""
    accuracy = report["accuracy"]
    return (
        f"{percent(accuracy['value'])} of the labels are right, measured on "
        f"{report['measured']['sentence']}"
    )


def evaluation_sections(report: Mapping[str, Any], scored: Scored | None) -> list[Section]:
    """All that the evaluation says, what needs looking at first.

    Args:
        report: see `evaluation.document.build_report`.
        scored: the pictures measured on; None for a multi-label model.
    """
    found: list[Section] = [mistakes(report)]
    if section := report["suspected_label_errors"]:
        found.append(suspects(section))
    found += confusion(report, scored)
    return [*found, labels(report), margins(report), calibration(report["calibration"])]


def mistakes(report: Mapping[str, Any]) -> Gallery:
    """The most confident ones first."""
    rows = report["misclassified"]["rows"]
    cards = [_decision(row) if "holds" in row else _mistake(row) for row in rows[:MOST_CARDS]]
    note = (
        f"The label of the picture → the one that the model gives, the most confident first; "
        f"{report['misclassified']['measured_on']}.{shown(len(cards), len(rows), 'the surest')}"
    )
    return Gallery("mistakes", "Mistakes", note, cards, len(rows))


def suspects(section: Mapping[str, Any]) -> Gallery:
    """Labels that are probably wrong."""
    rows = section["rows"]
    cards = [
        _decision(row)
        if "holds" in row
        else Card(
            row["uri"],
            f"{row['label']} → {row['suggested']}?",
            f"{percent(row['suggested_score'])} against {percent(row['label_score'])}",
        )
        for row in rows[:MOST_CARDS]
    ]
    note = (
        "Pictures whose label is doubted by a head that never saw them: the label that they have "
        f"→ the one that they probably should have. Among {section['measured_on']}. Write what is "
        "wrong into a manifest of corrections (train --labels) or use beam-flowers review."
        f"{shown(len(cards), len(rows), 'the most doubtful')}"
    )
    return Gallery("suspects", "Labels to check", note, cards, len(rows))


def margins(report: Mapping[str, Any]) -> Gallery:
    """Where the model is least sure."""
    rows = report["lowest_margins"]["rows"]
    cards = [_decision(row) if "holds" in row else _margin(row) for row in rows]
    note = f"Where the two best scores lie nearest; {report['lowest_margins']['measured_on']}."
    return Gallery("margins", "Least sure", note, cards, len(cards))


def labels(report: Mapping[str, Any]) -> Table:
    """How each label does."""
    columns = [Column("label")]
    names = ["label"]
    if report["model"]["multi_label"]:
        columns.append(Column("threshold", "number"))
        names.append("threshold")
    columns += [Column(name, "share") for name in ("precision", "recall", "F1")]
    columns += [Column("pictures", "number"), Column("given", "number")]
    names += ["precision", "recall", "f1", "support", "predicted"]
    rows = [[row[name] for name in names] for row in report["labels"]["rows"]]
    note = (
        "Precision: of the pictures given a label, the share that has it. Recall: of those that "
        f"have it, the share that was given it. {_sentence(report['labels']['measured_on'])}"
    )
    return Table("labels", "By label", note, columns, rows)


def confusion(report: Mapping[str, Any], scored: Scored | None) -> list[Section]:
    """The confusion matrix, or its largest cells where there are many labels."""
    section, names = report["confusion"], report["model"]["labels"]
    measured = _sentence(section["measured_on"])
    if scored is None:
        columns = [
            Column("label"),
            *(Column(name, "number") for name in ("right", "missed", "wrong", "rest")),
        ]
        rows = [list(row.values()) for row in section["rows"]]
        note = f"Right: has it and was given it. Missed: was not. {measured}"
        return [Table("confusion", "Confusion", note, columns, rows)]
    if len(names) > MOST_LABELS:
        return [_pairs(section["most_frequent"], measured)]
    note = (
        f"Rows: the label of the picture. Columns: the one given. Open a number to see its "
        f"pictures. {measured}"
    )
    return [
        Matrix(
            "confusion",
            "Confusion",
            note,
            "label",
            "given",
            names,
            names,
            section["matrix"],
            cell_cards(scored),
        )
    ]


def _pairs(cells: Sequence[Mapping[str, Any]], measured: str) -> Table:
    columns = [Column("label"), Column("given"), Column("pictures", "number")]
    rows = [list(cell.values()) for cell in cells[:_MOST_PAIRS]]
    note = (
        f"Labels that are taken for each other, the most frequent first. {measured}"
        f"{shown(len(rows), len(cells), 'the most frequent')}"
    )
    return Table("confusion", "Confusion", note, columns, rows)


def cell_cards(scored: Scored) -> dict[tuple[int, int], list[Card]]:
    """The surest pictures of each cell of the confusion matrix."""
    order = np.argsort(-scored.confidence, kind="stable").tolist()
    predicted, confidence = scored.predicted.tolist(), scored.confidence.tolist()
    cells: dict[tuple[int, int], list[Card]] = defaultdict(list)
    for row in order:
        cell = (int(scored.class_ids[row]), predicted[row])
        if len(cells[cell]) < CELL_CARDS:
            own, given = (scored.labels[i] for i in cell)
            head = own if own == given else f"{own} → {given}"
            cells[cell].append(Card(scored.uris[row], head, percent(confidence[row])))
    return dict(cells)


def calibration(section: Mapping[str, Any]) -> Figure:
    """Whether scores can be taken as probabilities."""
    bins = [row for row in section["bins"] if row["pictures"]]
    error = percent(section["expected_calibration_error"])
    columns = [
        Column("score"),
        Column(section["unit"], "number"),
        Column("mean score", "share"),
        Column("right", "share"),
    ]
    rows = [
        [f"{b['low']:.1f} to {b['high']:.1f}", b["pictures"], b["confidence"], b["accuracy"]]
        for b in bins
    ]
    note = (
        "On the dashed line a score is the share of right answers; below it the model is too "
        f"sure of itself. Expected calibration error: {error}. {_sentence(section['measured_on'])}"
    )
    alt = f"Share that is right over the mean score, in {len(rows)} bins; the table has the numbers"
    table = Table("calibration-numbers", "The numbers", "", columns, rows)
    return Figure(
        "calibration", "Calibration", note, [(charts.reliability(section["bins"]), alt)], table
    )


def _mistake(row: Mapping[str, Any]) -> Card:
    detail = f"{percent(row['predicted_score'])}, its label {percent(row['label_score'])}"
    return Card(row["uri"], f"{row['label']} → {row['predicted']}", detail)


def _margin(row: Mapping[str, Any]) -> Card:
    detail = (
        f"{percent(row['first_score'])} against {percent(row['second_score'])}; "
        f"label: {row['label']}"
    )
    return Card(row["uri"], f"{row['first']} or {row['second']}?", detail)


def _decision(row: Mapping[str, Any]) -> Card:
    """A label of a picture that may have several."""
    held = "has the label" if row["holds"] else "lacks the label"
    detail = f"{percent(row['score'])}, given from {percent(row['threshold'])} on"
    return Card(row["uri"], f"{held} {row['label']}", detail)


def _sentence(measured_on: str) -> str:
    return f"Measured on {measured_on}."
