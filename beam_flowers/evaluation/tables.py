"""The evaluation's tables as CSV (RFC 4180, UTF-8)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_flowers.evaluation.multi_label import Decision, LabelCounts
from beam_flowers.evaluation.pictures import Mistake


def confusion_csv(report: Mapping[str, Any]) -> str:
    """One line a label of the pictures, one column a label given by the model.

    Of a multi-label model one line a label with the four counts of `LabelCounts`.
    """
    section = report["confusion"]
    if report["model"]["multi_label"]:
        return _rows_csv(section["rows"], LabelCounts._fields)
    labels = report["model"]["labels"]
    lines = ([label, *counts] for label, counts in zip(labels, section["matrix"], strict=True))
    return _csv(["label", *labels], lines)


def misclassified_csv(report: Mapping[str, Any]) -> str:
    """One line a mistake, the most confident first; several labels as a JSON list."""
    many = report["model"]["multi_label"]
    return _rows_csv(report["misclassified"]["rows"], (Decision if many else Mistake)._fields)


def _rows_csv(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> str:
    return _csv(names, ([_text(row[name]) for name in names] for row in rows))


def _text(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | bool) else value


def _csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(header)
    writer.writerows(lines)
    return buffer.getvalue()
