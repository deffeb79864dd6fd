"""Makes the sections about a model on labelled images, from the evaluation's JSON value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from beam_flowers.evaluation.measures import Scored
from beam_flowers.pages import charts
from beam_flowers.pages.format import counted, percent, share_of, shown
from beam_flowers.pages.sections import Card, Column, Figure, Gallery, Matrix, Section, Table, Tile

MOST_CARDS = 120
"""Most images of a gallery."""

CELL_CARDS = 12
"""Most images of a cell of a matrix."""

MOST_LABELS = 40
"""Most labels of a confusion matrix; with more, its cells are listed."""

_MOST_PAIRS = 500


def tiles(report: Mapping[str, Any]) -> list[Tile]:
    """Returns the numbers at the top: accuracy, mistakes, labels to check, weakest label."""
    accuracy, wrong = report["accuracy"], report["misclassified"]["rows"]
    top = [
        Tile(percent(accuracy["value"]), "accuracy", share_of(accuracy), "confusion"),
        Tile(
            f"{len({row['uri'] for row in wrong}):,}",
            "labelled wrong",
            f"of {accuracy['images']:,} measured",
            "mistakes",
            bool(wrong),
        ),
    ]
    if doubts := report["suspected_label_errors"]:
        top.append(suspects_tile(doubts))
    rows = [row for row in report["labels"]["rows"] if row["recall"] is not None]
    if weakest := min(rows, key=lambda row: row["recall"], default=None):
        detail = f"of {weakest['label']} found, the weakest label"
        top.append(Tile(percent(weakest["recall"]), "lowest recall", detail, "labels"))
    return top


def suspects_tile(section: Mapping[str, Any]) -> Tile:
    """Returns the number of labels in doubt."""
    doubtful = len(section["rows"])
    detail = f"of {counted(section['images'], 'labelled image')}"
    return Tile(f"{doubtful:,}", "labels to check", detail, "suspects", bool(doubtful))


def lead(report: Mapping[str, Any]) -> str:
    """Returns the accuracy in a sentence."""
    accuracy = report["accuracy"]
    return (
        f"{percent(accuracy['value'])} of the labels are right, measured on "
        f"{report['measured']['sentence']}"
    )


def evaluation_sections(report: Mapping[str, Any], scored: Scored | None) -> list[Section]:
    """Returns all sections of an evaluation, those to look at first at the top.

    Args:
        report: made by `evaluation.document.build_report`.
        scored: the images measured on; None for a multi-label model.
    """
    doubts, unsure = report["suspected_label_errors"], report["lowest_margins"]
    note = f"Where the two best scores lie nearest; {unsure['measured_on']}."
    cards = _cards(unsure["rows"], _margin)
    return [
        mistakes(report["misclassified"]),
        *([suspects(doubts)] if doubts else []),
        confusion(report, scored),
        labels(report),
        Gallery("margins", "Least sure", note, cards, len(cards)),
        calibration(report["calibration"]),
    ]


def mistakes(section: Mapping[str, Any]) -> Gallery:
    """Shows the mistakes, the most confident first."""
    rows = section["rows"]
    cards = _cards(rows[:MOST_CARDS], _mistake)
    note = (
        f"The label of the image → the one that the model gives, the most confident first; "
        f"{section['measured_on']}.{shown(len(cards), len(rows), 'the surest')}"
    )
    return Gallery("mistakes", "Mistakes", note, cards, len(rows))


def suspects(section: Mapping[str, Any]) -> Gallery:
    """Shows labels that are probably wrong."""
    rows = section["rows"]
    cards = _cards(rows[:MOST_CARDS], _suspect)
    note = (
        "Images whose label is doubted by a head that never saw them: the label that they have "
        f"→ the one that they probably should have. Among {section['measured_on']}. Write what is "
        "wrong into a manifest of corrections (train --labels) or use beam-flowers review."
        f"{shown(len(cards), len(rows), 'the most doubtful')}"
    )
    return Gallery("suspects", "Labels to check", note, cards, len(rows))


def labels(report: Mapping[str, Any]) -> Table:
    """Lists precision, recall and F1 of each label."""
    columns = {"label": Column("label")}
    if report["model"]["multi_label"]:
        columns["threshold"] = Column("threshold", "number")
    columns |= {name.lower(): Column(name, "share") for name in ("precision", "recall", "F1")}
    columns["support"] = Column("images", "number")
    columns["predicted"] = Column("predicted", "number")
    rows = [[row[name] for name in columns] for row in report["labels"]["rows"]]
    note = (
        "Precision: of the images predicted to have a label, the share that was given it. Recall: "
        f"of those given it, the share predicted to have it. {_measured(report['labels'])}"
    )
    return Table("labels", "By label", note, list(columns.values()), rows)


def confusion(report: Mapping[str, Any], scored: Scored | None) -> Section:
    """Shows the confusion matrix, or its largest cells if there are many labels."""
    section, names = report["confusion"], report["model"]["labels"]
    if scored is None:
        numbers = ("right", "missed", "wrong", "rest")
        columns = [Column("label"), *(Column(name, "number") for name in numbers)]
        rows = [list(row.values()) for row in section["rows"]]
        note = f"Right: given and predicted. Missed: given, not predicted. {_measured(section)}"
        return Table("confusion", "Confusion", note, columns, rows)
    if len(names) > MOST_LABELS:
        cells = section["most_frequent"]
        columns = [Column("given"), Column("predicted"), Column("images", "number")]
        rows = [list(cell.values()) for cell in cells[:_MOST_PAIRS]]
        note = (
            f"Labels that are taken for each other, the most frequent first. {_measured(section)}"
            f"{shown(len(rows), len(cells), 'the most frequent')}"
        )
        return Table("confusion", "Confusion", note, columns, rows)
    note = (
        f"Rows: the given label. Columns: the predicted one. Open a number to see its images. "
        f"{_measured(section)}"
    )
    counts, cards = section["matrix"], cell_cards(scored)
    return Matrix("confusion", "Confusion", note, "given", "predicted", names, names, counts, cards)


def cell_cards(scored: Scored) -> dict[tuple[int, int], list[Card]]:
    """Returns the most confident images of each cell of the confusion matrix."""
    order = np.argsort(-scored.confidence, kind="stable").tolist()
    predicted, confidence = scored.predicted.tolist(), scored.confidence.tolist()
    cells: dict[tuple[int, int], list[Card]] = defaultdict(list)
    for row in order:
        cell = (int(scored.class_ids[row]), predicted[row])
        if len(cells[cell]) < CELL_CARDS:
            given, predicted_label = (scored.labels[i] for i in cell)
            head = given if given == predicted_label else f"{given} → {predicted_label}"
            cells[cell].append(Card(scored.uris[row], head, percent(confidence[row])))
    return dict(cells)


def calibration(section: Mapping[str, Any]) -> Figure:
    """Compares scores with shares of right answers."""
    columns = [
        Column("score"),
        Column(section["unit"], "number"),
        Column("mean score", "share"),
        Column("right", "share"),
    ]
    rows = [
        [f"{b['low']:.1f} to {b['high']:.1f}", b["images"], b["confidence"], b["accuracy"]]
        for b in section["bins"]
        if b["images"]
    ]
    error = percent(section["expected_calibration_error"])
    note = (
        "On the dashed line a score is the share of right answers; below it the model is too "
        f"sure of itself. Expected calibration error: {error}. {_measured(section)}"
    )
    alt = f"Share that is right over the mean score, in {len(rows)} bins; the table has the numbers"
    table = Table("calibration-numbers", "The numbers", "", columns, rows)
    drawn = [(charts.reliability(section["bins"]), alt)]
    return Figure("calibration", "Calibration", note, drawn, table)


def _measured(section: Mapping[str, Any]) -> str:
    return f"Measured on {section['measured_on']}."


def _cards(
    rows: Sequence[Mapping[str, Any]], card: Callable[[Mapping[str, Any]], Card]
) -> list[Card]:
    """Makes cards of rows; of a multi-label model each row is one decision instead."""
    return [_decision(row) if "holds" in row else card(row) for row in rows]


def _mistake(row: Mapping[str, Any]) -> Card:
    detail = f"{percent(row['predicted_score'])}, its label {percent(row['label_score'])}"
    return Card(row["uri"], f"{row['label']} → {row['predicted']}", detail)


def _suspect(row: Mapping[str, Any]) -> Card:
    detail = f"{percent(row['suggested_score'])} against {percent(row['label_score'])}"
    return Card(row["uri"], f"{row['label']} → {row['suggested']}?", detail)


def _margin(row: Mapping[str, Any]) -> Card:
    scores = f"{percent(row['first_score'])} against {percent(row['second_score'])}"
    head = f"{row['first']} or {row['second']}?"
    return Card(row["uri"], head, f"{scores}; label: {row['label']}")


def _decision(row: Mapping[str, Any]) -> Card:
    held = "has the label" if row["holds"] else "lacks the label"
    detail = f"{percent(row['score'])}, predicted from {percent(row['threshold'])} on"
    return Card(row["uri"], f"{held} {row['label']}", detail)
