"""The evaluation's tables as CSV (RFC 4180, UTF-8), `guarded` unless they are to be exact."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_flowers.evaluation.multi_label import Decision, LabelCounts
from beam_flowers.evaluation.pictures import Mistake
from beam_flowers.files.text import guarded


def confusion_csv(report: Mapping[str, Any], exact: bool = False) -> str:
    """One line a label of the pictures, one column a label given by the model.

    Of a multi-label model one line a label with the four counts of `LabelCounts`.
    """
    section = report["confusion"]
    if report["model"]["multi_label"]:
        return _rows_csv(section["rows"], LabelCounts._fields, exact)
    labels = report["model"]["labels"]
    lines = ([label, *counts] for label, counts in zip(labels, section["matrix"], strict=True))
    return _csv(["label", *labels], lines, exact)


def misclassified_csv(report: Mapping[str, Any], exact: bool = False) -> str:
    """One line a mistake, the most confident first; several labels as a JSON list."""
    many = report["model"]["multi_label"]
    return _rows_csv(
        report["misclassified"]["rows"], (Decision if many else Mistake)._fields, exact
    )


def _rows_csv(rows: Iterable[Mapping[str, Any]], names: Sequence[str], exact: bool) -> str:
    return _csv(names, ([_text(row[name]) for name in names] for row in rows), exact)


def _text(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | bool) else value


def _csv(header: Sequence[str], lines: Iterable[Sequence[Any]], exact: bool) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    rows = itertools.chain([header], lines)
    writer.writerows(rows if exact else ([guarded(cell) for cell in row] for row in rows))
    return buffer.getvalue()
