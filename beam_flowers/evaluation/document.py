"""Builds the evaluation as one JSON value, from which Markdown, tables and charts are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from beam_flowers.evaluation.measures import (
    Scored,
    calibration,
    confusion_matrix,
    cross_entropy,
    lowest_margins,
    misclassified,
    per_class,
    top_k_accuracy,
)
from beam_flowers.evaluation.selection import Measured
from beam_flowers.head.bundle import Bundle, model_id

FORMAT = "beam-flowers evaluation 1"

_DIGITS = 6
"""Decimals of every number in the report; further ones differ from machine to machine."""


def build_report(
    bundle: Bundle, measured: Measured, sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Returns the measures on one side of the split, with model and images described.

    Args:
        bundle: the model.
        measured: the images measured on.
        sections: the numbers; each gets a `measured_on` that names the images.
    """
    return {
        "format": FORMAT,
        "model": {
            "model_id": model_id(bundle),
            "backbone": bundle.backbone,
            "fingerprint": bundle.fingerprint,
            "recipe": dict(bundle.recipe),
            "labels": list(bundle.labels),
            "multi_label": bundle.head.multi_label,
        },
        "measured": {
            **asdict(measured),
            "store_changed": measured.store_changed,
            "sentence": measured.sentence,
            "warnings": measured.warnings(),
        },
        **{name: {"measured_on": measured.short, **part} for name, part in sections.items()},
    }


def build_sections(scored: Scored) -> dict[str, dict[str, Any]]:
    """Returns the numbers where each image has one label."""
    labels, matrix = scored.labels, confusion_matrix(scored)
    wrong = matrix - np.diag(matrix.diagonal())
    cells = zip(*map(np.ndarray.tolist, wrong.nonzero()), strict=True)
    confused = sorted((-int(wrong[cell]), *cell) for cell in cells)
    top_k = top_k_accuracy(scored)
    return {
        "accuracy": top_k[0]._asdict(),
        "top_k": {"shares": [{"k": k, **s._asdict()} for k, s in enumerate(top_k, 1)]},
        "cross_entropy": {"value": cross_entropy(scored), "unit": "nats"},
        "labels": {"rows": [row._asdict() for row in per_class(matrix, labels)]},
        "confusion": {
            "rows": "label of the image",
            "columns": "label given by the model",
            "matrix": matrix.tolist(),
            "most_frequent": [
                {"label": labels[own], "predicted": labels[given], "count": -count}
                for count, own, given in confused
            ],
        },
        "calibration": calibration(
            scored.confidence, scored.predicted == scored.class_ids, "images"
        ),
        "misclassified": {"rows": [row._asdict() for row in misclassified(scored)]},
        "lowest_margins": {"rows": [row._asdict() for row in lowest_margins(scored)]},
    }


def rounded(value: Any) -> Any:
    """Returns a JSON value with its floats cut to the digits that machines agree on."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value
