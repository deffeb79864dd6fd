"""Writes the model card, by which a reader decides if a model serves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_flowers.backbones.catalogue import find_row
from beam_flowers.evaluation.text import cell, interval, percent, table
from beam_flowers.head.bundle import Bundle, model_id
from beam_flowers.head.store_examples import JOIN

_MEANING = {
    "training": "trained on; flatters",
    "validation": "held back; the temperature and the like were chosen by it",
    "tuned": "each by a head trained without it, whose settings were chosen by them",
    "nested": "each by a head trained, and all chosen, without it; the one to quote",
    "testing": "had no part in the training; the one to quote",
}

_LIMITS = """\
- It knows these labels only: an image of anything else gets one of them too, often with a high
  score. Set a threshold where that can happen.
- A score is not the share of right answers; `beam-flowers evaluate` shows how far the two differ.
- The numbers hold for images like those it was trained on: other cameras, seasons, places or a
  wrong label among the training images can lower them.
- What the backbone cannot tell apart, no head on top of it can.
- Nothing was measured about groups of people; not for decisions about persons."""


def model_card(bundle: Bundle) -> str:
    """Returns the card as Markdown, from the bundle alone; equal bundles give equal cards."""
    labels = bundle.labels
    more = f" and {len(labels) - 5} more labels" if len(labels) > 5 else ""
    notes = [f" (given from a score of {t:.4g} on)" for t in bundle.thresholds]
    pairs = zip(labels, notes or [""] * len(labels), strict=True)
    listed = "\n".join(f"{i}. {cell(label)}{note}" for i, (label, note) in enumerate(pairs))
    pixels = table(["setting", "value"], sorted(bundle.pixels.items())) if bundle.pixels else ""
    each = "any" if bundle.head.multi_label else "one"
    parts = [
        f"# Model card: {', '.join(cell(label) for label in labels[:5])}{more}",
        _overview(bundle),
        f"## Labels\n\n{len(labels)}, verbatim, in class order:\n\n{listed}",
        "## Preprocessing\n\nWhat is done to an image before the backbone sees it; `low` and "
        f"`high` are what black and white become.\n\n{pixels or 'Not recorded.'}",
        _training(bundle),
        _metrics(bundle.metrics),
        f"## Intended use\n\nLabelling images of the kind it was trained on, each with {each} "
        f"of the {len(labels)} labels above, in bulk or singly, where a wrong label now and then "
        "is tolerable or is looked over by a person.",
        f"## Limits\n\n{_LIMITS}",
    ]
    return "\n\n".join(parts) + "\n"


def _overview(bundle: Bundle) -> str:
    head = bundle.head
    hidden = "" if head.hidden_weights is None else f" over a hidden layer of {len(head.weights)}"
    last = "a sigmoid for each label" if head.multi_label else "softmax over the labels"
    layers = (
        f"{last}{hidden}, from vectors of {len(head.first_weights)} numbers of a pre-trained "
        f"network; temperature {head.temperature:.4g}"
    )
    rows = [["Model id", model_id(bundle)], ["Kind", layers]]
    # A model on joined embeddings has several backbones, whose names it holds in one text.
    joined = len(bundle.fingerprints) > 1
    names = bundle.backbone.split(JOIN) if joined else [bundle.backbone]
    for name, fingerprint in zip(names, bundle.fingerprints, strict=True):
        row = find_row(name)
        unknown = "unknown: not a backbone of the catalogue; ask its source"
        rows += [
            ["Backbone", name],
            ["Backbone's fingerprint", fingerprint],
            ["Backbone's licence", row.licence if row else unknown],
            ["Backbone's source", row.source if row else "not recorded"],
        ]
    versions = sorted(bundle.versions.items())
    rows.append(["Made with", ", ".join(f"{name} {version}" for name, version in versions)])
    note = "The licence is of the backbone's weights; that of the images trained on is not known."
    return f"{table(['', ''], rows)}\n\n{note}"


def _training(bundle: Bundle) -> str:
    recipe = sorted(bundle.recipe.items(), key=lambda item: (item[0] != "name", item[0]))
    settings = [
        *((f"recipe: {key}", value) for key, value in recipe),
        *((f"split: {key}", value) for key, value in sorted(bundle.split.items())),
    ]
    rows = [
        *((name, "none" if value is None else value) for name, value in settings),
        ("seed", bundle.seed),
        ("dataset hash", bundle.dataset_hash),
    ]
    if about := bundle.augmentation:
        distortions = ", ".join(
            name if value is True else f"{name} {value:g}"
            for name, value in about["distortions"].items()
            if name != "rules" and value
        )
        rows.append(("distorted copies of each image", about["copies"]))
        rows.append(("distortions", distortions))
        rows.append(("dataset hash of the copies", about["dataset_hash"]))
    return (
        "## Training\n\nThe dataset hash is over content, labels and vectors of the store's rows; "
        f"the same hash, seed and settings give the same model.\n\n{table(['', 'value'], rows)}"
    )


def _metrics(metrics: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{side}: {meaning}",
            measured["count"],
            percent(measured["accuracy"]),
            interval(measured, "accuracy_low", "accuracy_high"),
            f"{measured['cross_entropy']:.3f}",
        ]
        for side, meaning in _MEANING.items()
        if (measured := metrics.get(side))
    ]
    header = ["measured on", "images", "accuracy", "95 % interval", "cross entropy (nats)"]
    return f"## Metrics\n\n{table(header, rows) if rows else 'None recorded.'}"
