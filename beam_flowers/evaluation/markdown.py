"""The evaluation for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from beam_flowers.evaluation.text import cell, percent, table

_SHOWN = 20
"""Rows of a list here; the JSON has all."""

_COLUMNS = {
    "uri": "picture",
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
    "support": "pictures with it",
}
"""Names of columns that differ from those in the JSON."""

_SHARES = ("precision", "recall", "f1")


def to_markdown(report: Mapping[str, Any]) -> str:
    """The report of `build_report` and its further sections as a Markdown document."""
    parts = [
        _head(report),
        _section("Summary", report["accuracy"], _summary(report)),
        _section("By label", report["labels"], _by_label(report["labels"]["rows"])),
        _section("Confusion matrix", report["confusion"], _confusion(report)),
        _section("Calibration", report["calibration"], _calibration(report["calibration"])),
    ]
    for name, title in (("misclassified", "Misclassified"), ("lowest_margins", "Lowest margins")):
        parts.append(_section(title, report[name], _listed(report[name]["rows"])))
    if suspects := report["suspected_label_errors"]:
        parts.append(_section("Suspected label errors", suspects, _suspects(suspects)))
    if near := report["neighbours"]:
        parts.append(_section("Nearest neighbours", near, _neighbours(near)))
    return "\n\n".join(parts) + "\n"


def _section(title: str, section: Mapping[str, Any], body: str) -> str:
    return f"## {title}\n\nMeasured on {section['measured_on']}.\n\n{body}"


def _head(report: Mapping[str, Any]) -> str:
    model, measured = report["model"], report["measured"]
    lines = [
        "# Evaluation",
        f"Model `{model['model_id'][:12]}`: recipe {cell(model['recipe'].get('name'))}, "
        f"{len(model['labels'])} labels, on vectors of {cell(model['backbone'])}.",
        f"**Measured on:** {measured['sentence']}",
    ]
    lines += [f"**Warning:** {cell(line)}." for line in measured["warnings"]]
    return "\n\n".join(lines)


def _summary(report: Mapping[str, Any]) -> str:
    shares = [
        ("Accuracy" if s["k"] == 1 else f"Top-{s['k']} accuracy", s)
        for s in report["top_k"]["shares"]
    ]
    if "exact" in report:
        shares.insert(0, ("All labels right", report["exact"]))
    rows = [
        [
            name,
            f"{percent(s['value'])} ({s['right']})",
            f"{percent(s['low'])} to {percent(s['high'])}",
        ]
        for name, s in shares
    ]
    entropy, calibration = report["cross_entropy"], report["calibration"]
    rows.append(["Cross entropy", f"{entropy['value']:.3f} {entropy['unit']}", ""])
    rows.append(
        ["Expected calibration error", percent(calibration["expected_calibration_error"]), ""]
    )
    note = report["accuracy"].get("meaning")
    body = table(["", "value (pictures)", "95 % interval"], rows)
    return f"{body}\n\nAccuracy: {note}." if note else body


def _by_label(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ["pictures given it" if n == "predicted" else _COLUMNS.get(n, n) for n in rows[0]]
    shown = [
        [percent(v) if name in _SHARES else _value(v) for name, v in row.items()] for row in rows
    ]
    return table(header, shown)


def _confusion(report: Mapping[str, Any]) -> str:
    section, labels = report["confusion"], report["model"]["labels"]
    if report["model"]["multi_label"]:
        return _rows(section["rows"])
    if len(labels) > _SHOWN:
        return _listed(section["most_frequent"])
    lines = zip(labels, section["matrix"], strict=True)
    return table(["label ↓ given →", *labels], [[label, *counts] for label, counts in lines])


def _calibration(section: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{b['low']:.1f} to {b['high']:.1f}",
            b["pictures"],
            percent(b["confidence"]),
            percent(b["accuracy"]),
        ]
        for b in section["bins"]
        if b["pictures"]
    ]
    return (
        "Where a score can be taken as a probability, the mean score equals the share that is "
        f"right.\n\n{table(['score', section['unit'], 'mean score', 'right'], rows)}"
    )


def _suspects(section: Mapping[str, Any]) -> str:
    body = _listed(section["rows"])
    if not section["left_out"]:
        return body
    names = ", ".join(cell(label) for label in section["left_out"])
    return f"{body}\n\nNot judged, as there is a single picture: {names}."


def _neighbours(section: Mapping[str, Any]) -> str:
    of = f"Of {cell(section['uri'])} (label: {cell(section['label'] or 'none')})."
    return f"{of}\n\n{_rows(section['rows'])}"


def _listed(rows: Sequence[Mapping[str, Any]]) -> str:
    if len(rows) <= _SHOWN:
        return _rows(rows)
    return f"{_rows(rows[:_SHOWN])}\n\n{_SHOWN} of {len(rows)}; evaluation.json has all."


def _rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the JSON as a table."""
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
