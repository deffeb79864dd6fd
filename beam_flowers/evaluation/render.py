"""Renders an evaluation as Markdown, CSV and PNG."""

from __future__ import annotations

import csv
import io
import itertools
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_flowers.evaluation.measures import Mistake
from beam_flowers.evaluation.multi_label import Decision, LabelCounts
from beam_flowers.evaluation.text import cell, interval, percent, table
from beam_flowers.files.text import guarded
from beam_flowers.head.softmax import Indices

SOFTWARE = "beam_flowers"
"""The PNG's `Software`, which marks it as ours."""

_LISTED = 20
"""Most rows of a list in the Markdown; the JSON has all."""
_MOST_NUMBERS = 30
"""Most labels of a chart with numbers in its cells; with more, the cells are too small."""
_MOST_NAMES = 120
"""Most labels of a chart with names at its axes."""

_COLUMNS = {
    "uri": "image",
    "labels": "its labels",
    "label_score": "its score",
    "predicted": "given",
    "predicted_score": "score of that",
    "first": "best",
    "first_score": "its score",
    "second": "second",
    "second_score": "its score",
    "suggested": "suggested",
    "suggested_score": "score of that",
    "holds": "has it",
    "similarity": "cosine",
    "f1": "F1",
    "support": "images with it",
}
"""Headings of columns, by their name in the JSON if they differ."""


def to_markdown(report: Mapping[str, Any]) -> str:
    """Returns the report of `build_report` and its further sections as a Markdown document."""
    bodies = [
        ("Summary", "accuracy", _summary(report)),
        ("By label", "labels", _by_label(report["labels"]["rows"])),
        ("Confusion matrix", "confusion", _confusion(report)),
        ("Calibration", "calibration", _calibration(report["calibration"])),
        ("Misclassified", "misclassified", _first_rows(report["misclassified"]["rows"])),
        ("Lowest margins", "lowest_margins", _first_rows(report["lowest_margins"]["rows"])),
    ]
    if suspects := report["suspected_label_errors"]:
        body = _first_rows(suspects["rows"])
        if suspects["left_out"]:
            names = ", ".join(cell(label) for label in suspects["left_out"])
            body += f"\n\nNot judged, as there is a single image: {names}."
        bodies.append(("Suspected label errors", "suspected_label_errors", body))
    if near := report["neighbours"]:
        of = f"Of {cell(near['uri'])} (label: {cell(near['label'] or 'none')})."
        bodies.append(("Nearest neighbours", "neighbours", f"{of}\n\n{_rows(near['rows'])}"))
    sections = [
        f"## {title}\n\nMeasured on {report[name]['measured_on']}.\n\n{body}"
        for title, name, body in bodies
    ]
    return "\n\n".join([*_head(report), *sections]) + "\n"


def confusion_csv(report: Mapping[str, Any], *, exact: bool = False) -> str:
    """Returns one line a label of the images and one column a predicted label, as CSV.

    Of a multi-label model it has one line a label with the four counts of `LabelCounts`.
    The format is RFC 4180 in UTF-8; cells are `guarded` unless `exact`.
    """
    section = report["confusion"]
    if report["model"]["multi_label"]:
        return _rows_csv(section["rows"], LabelCounts._fields, exact=exact)
    labels = report["model"]["labels"]
    lines = ([label, *counts] for label, counts in zip(labels, section["matrix"], strict=True))
    return _csv(["label", *labels], lines, exact=exact)


def misclassified_csv(report: Mapping[str, Any], *, exact: bool = False) -> str:
    """Returns one line a mistake, the most confident first; several labels as a JSON list."""
    # The header must be there without mistakes too, so it comes from the type, not from a row.
    row_type = Decision if report["model"]["multi_label"] else Mistake
    return _rows_csv(report["misclassified"]["rows"], row_type._fields, exact=exact)


def confusion_png(matrix: Indices, labels: Sequence[str], title: str) -> bytes:
    """Draws a confusion matrix [C, C] as PNG; colour = share of the row, numbers = images.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    # Without pyplot and its global state: a library must not choose the user's window system.
    from matplotlib.figure import Figure

    classes = len(labels)
    side = min(3 + 0.55 * classes, 24)
    figure = Figure(figsize=(side + 1, side), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the images with the label")
    axes.set(xlabel="label given by the model", ylabel="label of the image")
    axes.set_title(title, parse_math=False, fontsize=10)
    if classes <= _MOST_NAMES:
        # Labels are shown verbatim: `parse_math` would set what is between two dollar signs.
        names = [label.replace("\n", " ") for label in labels]
        axes.set_xticks(range(classes), names, rotation=90, parse_math=False)
        axes.set_yticks(range(classes), names, parse_math=False)
    if classes <= _MOST_NUMBERS:
        for row, column in zip(*matrix.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", color=colour)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A label in a script that the font lacks becomes boxes; the CSV has it in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(buffer, format="png", metadata={"Software": SOFTWARE})
    return buffer.getvalue()


def _head(report: Mapping[str, Any]) -> list[str]:
    model, measured = report["model"], report["measured"]
    return [
        "# Evaluation",
        f"Model `{model['model_id'][:12]}`: recipe {cell(model['recipe'].get('name'))}, "
        f"{len(model['labels'])} labels, on vectors of {cell(model['backbone'])}.",
        f"**Measured on:** {measured['sentence']}",
        *(f"**Warning:** {cell(line)}." for line in measured["warnings"]),
    ]


def _summary(report: Mapping[str, Any]) -> str:
    shares = [
        ("Accuracy" if s["k"] == 1 else f"Top-{s['k']} accuracy", s)
        for s in report["top_k"]["shares"]
    ]
    if "exact" in report:
        shares.insert(0, ("All labels right", report["exact"]))
    rows = [[name, f"{percent(s['value'])} ({s['right']})", interval(s)] for name, s in shares]
    entropy, calibration = report["cross_entropy"], report["calibration"]
    rows.append(["Cross entropy", f"{entropy['value']:.3f} {entropy['unit']}", ""])
    rows.append(
        ["Expected calibration error", percent(calibration["expected_calibration_error"]), ""]
    )
    note = report["accuracy"].get("meaning")
    body = table(["", "value (images)", "95 % interval"], rows)
    return f"{body}\n\nAccuracy: {note}." if note else body


def _by_label(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ["images given it" if n == "predicted" else _COLUMNS.get(n, n) for n in rows[0]]
    shares = ("precision", "recall", "f1")
    lines = [
        [percent(v) if name in shares else _value(v) for name, v in row.items()] for row in rows
    ]
    return table(header, lines)


def _confusion(report: Mapping[str, Any]) -> str:
    section, labels = report["confusion"], report["model"]["labels"]
    if report["model"]["multi_label"]:
        return _rows(section["rows"])
    if len(labels) > _LISTED:
        return _first_rows(section["most_frequent"])
    lines = zip(labels, section["matrix"], strict=True)
    return table(["label ↓ given →", *labels], [[label, *counts] for label, counts in lines])


def _calibration(section: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{b['low']:.1f} to {b['high']:.1f}",
            b["images"],
            percent(b["confidence"]),
            percent(b["accuracy"]),
        ]
        for b in section["bins"]
        if b["images"]
    ]
    return (
        "Where a score can be taken as a probability, the mean score equals the share that is "
        f"right.\n\n{table(['score', section['unit'], 'mean score', 'right'], rows)}"
    )


def _first_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the first rows as a table, with a note if there are more."""
    if len(rows) <= _LISTED:
        return _rows(rows)
    return f"{_rows(rows[:_LISTED])}\n\n{_LISTED} of {len(rows)}; evaluation.json has all."


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows of the JSON as a table."""
    if not rows:
        return "None."
    header = [_COLUMNS.get(name, name) for name in rows[0]]
    return table(header, [[_value(value) for value in row.values()] for row in rows])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value)
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _rows_csv(rows: Iterable[Mapping[str, Any]], names: Sequence[str], *, exact: bool) -> str:
    def text(value: Any) -> Any:
        return json.dumps(value, ensure_ascii=False) if isinstance(value, list | bool) else value

    return _csv(names, ([text(row[name]) for name in names] for row in rows), exact=exact)


def _csv(header: Sequence[str], lines: Iterable[Sequence[Any]], *, exact: bool) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    rows = itertools.chain([header], lines)
    writer.writerows(rows if exact else ([guarded(cell) for cell in row] for row in rows))
    return buffer.getvalue()
