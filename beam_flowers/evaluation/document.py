"""The evaluation as one JSON value: what Markdown, tables and pictures are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from beam_flowers.evaluation.calibration import expected_calibration_error, reliability
from beam_flowers.evaluation.measures import (
    Scored,
    confusion_matrix,
    cross_entropy,
    per_class,
    top_k_accuracy,
)
from beam_flowers.evaluation.multi_label import Decision
from beam_flowers.evaluation.pictures import Neighbour, lowest_margins, misclassified
from beam_flowers.evaluation.selection import Measured
from beam_flowers.evaluation.suspects import Suspect
from beam_flowers.head.bundle import Bundle, model_id
from beam_flowers.head.softmax import Indices

FORMAT = "beam-flowers evaluation 1"

_DIGITS = 6
"""Of every number in the report: what lies beyond differs from machine to machine."""


def build_report(
    bundle: Bundle, measured: Measured, sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Everything that is measured on one side of the split.

    Args:
        bundle: the model.
        measured: on which pictures.
        sections: the numbers; each gets a `measured_on` that names the pictures.
    """
    return {
        "format": FORMAT,
        "model": describe_model(bundle),
        "measured": describe_rows(measured),
        **{name: {"measured_on": measured.short, **part} for name, part in sections.items()},
    }


def build_sections(scored: Scored) -> dict[str, dict[str, Any]]:
    """The numbers where each picture has one label."""
    matrix = confusion_matrix(scored)
    top_k = top_k_accuracy(scored)
    return {
        "accuracy": top_k[0]._asdict(),
        "top_k": {"shares": [{"k": k, **s._asdict()} for k, s in enumerate(top_k, 1)]},
        "cross_entropy": {"value": cross_entropy(scored), "unit": "nats"},
        "labels": {"rows": [row._asdict() for row in per_class(matrix, scored.labels)]},
        "confusion": _confusion(matrix, scored.labels),
        "calibration": _calibration(scored),
        "misclassified": {"rows": [row._asdict() for row in misclassified(scored)]},
        "lowest_margins": {"rows": [row._asdict() for row in lowest_margins(scored)]},
    }


def describe_model(bundle: Bundle) -> dict[str, Any]:
    """What was measured."""
    return {
        "model_id": model_id(bundle),
        "backbone": bundle.backbone,
        "fingerprint": bundle.fingerprint,
        "recipe": dict(bundle.recipe),
        "labels": list(bundle.labels),
        "multi_label": bundle.head.multi_label,
    }


def describe_rows(measured: Measured) -> dict[str, Any]:
    """What it was measured on."""
    return {
        **asdict(measured),
        "store_changed": measured.store_changed,
        "sentence": measured.sentence,
        "warnings": measured.warnings(),
    }


def suspects_section(
    suspects: Sequence[Suspect | Decision], pictures: int, left_out: Mapping[str, int], folds: int
) -> dict[str, Any]:
    """The suspected label errors.

    Args:
        suspects: see `list_suspects` or `suspected_decisions`.
        pictures: that were judged.
        left_out: pictures by label that could not be judged.
        folds: of the cross-validation.
    """
    return {
        "measured_on": f"{pictures} pictures, all labelled ones of the store, each scored by a "
        f"head trained without it ({folds} folds, lbfgs with default settings)",
        "pictures": pictures,
        "folds": folds,
        "left_out": dict(left_out),
        "rows": [row._asdict() for row in suspects],
    }


def neighbours_section(
    uri: str, label: str | None, pictures: int, neighbours: Sequence[Neighbour]
) -> dict[str, Any]:
    """The pictures nearest to one, among `pictures`."""
    return {
        "measured_on": f"{pictures} pictures, all others of the store, labelled or not",
        "uri": uri,
        "label": label,
        "rows": [row._asdict() for row in neighbours],
    }


def rounded(value: Any) -> Any:
    """A JSON value with its floats cut to what any machine agrees on."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _confusion(matrix: Indices, labels: Sequence[str]) -> dict[str, Any]:
    wrong = matrix - np.diag(matrix.diagonal())
    cells = sorted(
        (-int(wrong[cell]), *cell)
        for cell in zip(*map(np.ndarray.tolist, wrong.nonzero()), strict=True)
    )
    return {
        "rows": "label of the picture",
        "columns": "label given by the model",
        "matrix": matrix.tolist(),
        "most_frequent": [
            {"label": labels[own], "predicted": labels[given], "count": -count}
            for count, own, given in cells
        ],
    }


def _calibration(scored: Scored) -> dict[str, Any]:
    table = reliability(scored.confidence, scored.predicted == scored.class_ids)
    return {
        "unit": "pictures",
        "expected_calibration_error": expected_calibration_error(table),
        "bins": [row._asdict() for row in table],
    }
