"""The model card: what a model is, for those who have to decide whether to use it."""

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
    "testing": "had no part in the training; the one to quote",
}

_LIMITS = """\
- It knows these labels only: a picture of anything else gets one of them too, often with a high
  score. Set a threshold where that can happen.
- A score is not the share of right answers; `beam-flowers evaluate` shows how far the two differ.
- The numbers hold for pictures like those it was trained on: other cameras, seasons, places or a
  wrong label among the training pictures can lower them.
- What the backbone cannot tell apart, no head on top of it can.
- Nothing was measured about groups of people; not for decisions about persons."""


def model_card(bundle: Bundle) -> str:
    """The card as Markdown, from what the bundle says of itself; the same for equal bundles."""
    parts = [
        f"# Model card: {', '.join(cell(label) for label in bundle.labels[:5])}"
        + (f" and {len(bundle.labels) - 5} more labels" if len(bundle.labels) > 5 else ""),
        _overview(bundle),
        f"## Labels\n\n{len(bundle.labels)}, verbatim, in class order:\n\n{_listed(bundle)}",
        _preprocessing(bundle.pixels),
        _training(bundle),
        _metrics(bundle.metrics),
        _use(bundle),
        f"## Limits\n\n{_LIMITS}",
    ]
    return "\n\n".join(parts) + "\n"


def _overview(bundle: Bundle) -> str:
    rows = [["Model id", model_id(bundle)], ["Kind", _kind(bundle)]]
    names, prints = _backbones(bundle), bundle.fingerprints
    for name, fingerprint in zip(names, prints, strict=True):
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
    note = "The licence is of the backbone's weights; that of the pictures trained on is not known."
    return f"{table(['', ''], rows)}\n\n{note}"


def _backbones(bundle: Bundle) -> list[str]:
    """Names of the backbones whose vectors are joined, or of the only one."""
    if len(bundle.fingerprints) == 1:
        return [bundle.backbone]
    return bundle.backbone.split(JOIN)


def _kind(bundle: Bundle) -> str:
    head = bundle.head
    hidden = "" if head.hidden_weights is None else f" over a hidden layer of {len(head.weights)}"
    last = "a sigmoid for each label" if head.multi_label else "softmax over the labels"
    return (
        f"{last}{hidden}, from vectors of {len(head.first_weights)} numbers of a pre-trained "
        f"network; temperature {head.temperature:.4g}"
    )


def _listed(bundle: Bundle) -> str:
    notes = [f" (given from a score of {t:.4g} on)" for t in bundle.thresholds]
    notes = notes or [""] * len(bundle.labels)
    pairs = zip(bundle.labels, notes, strict=True)
    return "\n".join(f"{i}. {cell(label)}{note}" for i, (label, note) in enumerate(pairs))


def _preprocessing(pixels: Mapping[str, Any]) -> str:
    body = table(["setting", "value"], sorted(pixels.items())) if pixels else "Not recorded."
    return (
        "## Preprocessing\n\nWhat is done to a picture before the backbone sees it; `low` and "
        f"`high` are what black and white become.\n\n{body}"
    )


def _training(bundle: Bundle) -> str:
    rows = [
        *((f"recipe: {key}", _plain(value)) for key, value in _name_first(bundle.recipe)),
        *((f"split: {key}", _plain(value)) for key, value in sorted(bundle.split.items())),
        ("seed", bundle.seed),
        ("dataset hash", bundle.dataset_hash),
    ]
    if about := bundle.augmentation:
        rows.append(("distorted copies of each picture", about["copies"]))
        rows.append(("distortions", _in_words(about["distortions"])))
        rows.append(("dataset hash of the copies", about["dataset_hash"]))
    return (
        "## Training\n\nThe dataset hash is over content, labels and vectors of the store's rows; "
        f"the same hash, seed and settings give the same model.\n\n{table(['', 'value'], rows)}"
    )


def _in_words(distortions: Mapping[str, Any]) -> str:
    """Names the distortions that are not 0, with their ranges."""
    given = {name: value for name, value in distortions.items() if name != "rules" and value}
    return ", ".join(n if value is True else f"{n} {value:g}" for n, value in given.items())


def _plain(value: Any) -> Any:
    return "none" if value is None else value


def _name_first(recipe: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(recipe.items(), key=lambda item: (item[0] != "name", item[0]))


def _metrics(metrics: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{side}: {meaning}",
            found["count"],
            percent(found["accuracy"]),
            interval(found, "accuracy_low", "accuracy_high"),
            f"{found['cross_entropy']:.3f}",
        ]
        for side, meaning in _MEANING.items()
        if (found := metrics.get(side))
    ]
    header = ["measured on", "pictures", "accuracy", "95 % interval", "cross entropy (nats)"]
    return f"## Metrics\n\n{table(header, rows) if rows else 'None recorded.'}"


def _use(bundle: Bundle) -> str:
    labels = "any" if bundle.head.multi_label else "one"
    return (
        f"## Intended use\n\nLabelling pictures of the kind it was trained on, each with {labels} "
        f"of the {len(bundle.labels)} labels above, in bulk or singly, where a wrong label now and "
        "then is tolerable or is looked over by a person."
    )
