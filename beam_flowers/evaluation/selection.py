"""Selects the images of a store on which a model is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beam_flowers.errors import InputError
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.examples import prepare
from beam_flowers.head.softmax import Floats, Indices, Sample
from beam_flowers.head.split import SPLITS, SplitOptions
from beam_flowers.head.store_examples import StoredExamples

SIDES = ("testing", "validation", "training", "all")
"""Selections to measure on: the sides of the split, or all labelled images."""

_NAMES = {side: f"{side} side" for side in SPLITS} | {"all": "all labelled ones of the store"}
_MEANING = {
    "testing": "they had no part in the training",
    "validation": "held back from the training, but its temperature and the like were chosen by "
    "them, so that the numbers flatter a little",
    "training": "the ones trained on, so that every number flatters",
    "all": "those trained on among them, so that every number flatters, unless the store holds "
    "other images than the one trained on",
}


@dataclass(frozen=True)
class Measured:
    """Describes the images measured on and their selection.

    Attributes:
        side: one of `SIDES`.
        images: number of images.
        sides: number of labelled images of the store by side; empty for `all`.
        unlabelled: number of images without a label, left out.
        unknown: number of images by label that the model lacks, left out.
        split: rule and percentages of the model's split.
        seed: of the split.
        trained_hash: dataset hash of the store when the model was trained.
        store_hash: dataset hash of the store now.
        notes: further warnings, a line each.
        cross_fitted: True if the model was cross-fitted, so that validation images trained it.
    """

    side: str
    images: int
    sides: Mapping[str, int]
    unlabelled: int
    unknown: Mapping[str, int]
    split: Mapping[str, Any]
    seed: int
    trained_hash: str
    store_hash: str
    notes: tuple[str, ...] = ()
    cross_fitted: bool = False

    @property
    def store_changed(self) -> bool:
        """True if the store differs from the one that the model was trained on."""
        return self.trained_hash != self.store_hash

    @property
    def short(self) -> str:
        """A few words to stand beside a number."""
        return f"{self.images} images, {_NAMES[self.side]}"

    @property
    def sentence(self) -> str:
        """A sentence about the images and the meaning of the numbers."""
        chosen = _NAMES[self.side]
        if self.side != "all":
            rule, seed = self.split.get("rule"), self.seed
            percentages = ", ".join(
                f"{self.split.get(f'{side}_percentage')} % {side}" for side in SPLITS[1:]
            )
            chosen += f" of the model's own split (rule {rule}, {percentages}, seed {seed})"
        trained = self.cross_fitted and self.side == "validation"
        meaning = _MEANING["training" if trained else self.side]
        return f"{self.images} images, {chosen}: {meaning}."

    def warnings(self) -> list[str]:
        """Lists warnings to read before quoting a number."""
        lines = list(self.notes)
        if self.store_changed and self.side != "all":
            lines.append(
                "the store is not as it was when the model was trained (dataset hash "
                f"{self.trained_hash[:12]} then, {self.store_hash[:12]} now): the split was made "
                "again over what it holds now, and some of the images measured may have been "
                "trained on; train again for numbers to quote"
            )
        if self.unknown:
            counts = ", ".join(f"{label!r} {count}" for label, count in self.unknown.items())
            lines.append(
                f"images with labels that the model does not know are in no number: {counts}"
            )
        return lines


def choose_rows(
    bundle: Bundle, stored: StoredExamples, side: str
) -> tuple[Measured, Sample, list[str]]:
    """Selects the labelled images of one side of the model's split, computed again.

    Args:
        bundle: the model; it holds rule, percentages, seed and labels.
        stored: the store's rows.
        side: one of `SIDES`.

    Returns:
        The selection, the rows with class ids (or membership) of the model, and their uris.

    Raises:
        InputError: for an unknown side or one without images.
        TrainingError: if the store's images cannot be split by the model's rule.
    """
    if side not in SIDES:
        raise InputError(f"unknown split {side!r}; choose one of {SIDES}")
    examples = replace(stored.examples, separator=bundle.label_separator)
    sides: dict[str, int] = {}
    if side == "all":
        labelled = [row for row, label in enumerate(examples.labels) if label is not None]
        # By content, as `prepare` does: sums in float must not depend on where images lie.
        labelled.sort(key=lambda row: (examples.sha256[row], examples.uris[row]))
    else:
        prepared = prepare(examples, SplitOptions(**bundle.split), bundle.seed)
        counts = np.bincount(prepared.codes, minlength=len(SPLITS)).tolist()
        sides = dict(zip(SPLITS, counts, strict=True))
        labelled = prepared.rows[prepared.codes == SPLITS.index(side)].tolist()
    sets = {row: labels_of(str(examples.labels[row]), examples.separator) for row in labelled}
    unknown = Counter(label for labels in sets.values() for label in labels - {*bundle.labels})
    rows = [row for row in labelled if sets[row] <= {*bundle.labels}]
    measured = Measured(
        side,
        len(rows),
        sides,
        sum(label is None for label in examples.labels),
        dict(sorted(unknown.items())),
        bundle.split,
        bundle.seed,
        bundle.dataset_hash,
        stored.dataset_hash,
        stored.warnings,
        "folds" in (bundle.choices or {}),
    )
    if not rows:
        raise InputError(_nothing_to_measure(measured, bundle.labels))
    class_ids, membership = number_labels(
        [sets[row] for row in rows], bundle.labels, multi_label=bundle.label_separator is not None
    )
    sample = Sample(examples.vectors, class_ids, np.array(rows, dtype=np.intp), membership)
    return measured, sample, [examples.uris[row] for row in rows]


def labels_of(text: str, separator: str | None) -> frozenset[str]:
    """Returns the labels in a stored text: the text itself, or its parts between separators."""
    if separator is None:
        return frozenset({text})
    return frozenset(part.strip() for part in text.split(separator)) - {""}


def number_labels(
    sets: Sequence[frozenset[str]], labels: Sequence[str], *, multi_label: bool
) -> tuple[Indices, Floats | None]:
    """Returns class ids of rows with these sets of labels, and the labels of each id.

    Returns:
        intp [n], and float32 [K, C] as in `Sample.membership`; None unless `multi_label`.
    """
    distinct = [frozenset({label}) for label in labels]
    if multi_label:
        distinct = sorted(set(sets), key=sorted)
    number = {label_set: class_id for class_id, label_set in enumerate(distinct)}
    class_ids = np.array([number[label_set] for label_set in sets], dtype=np.intp)
    if not multi_label:
        return class_ids, None
    membership = [[label in label_set for label in labels] for label_set in distinct]
    return class_ids, np.array(membership, dtype=np.float32)


def _nothing_to_measure(measured: Measured, labels: tuple[str, ...]) -> str:
    if measured.unknown:
        return (
            f"no image to measure on: their labels are {list(measured.unknown)!r}, the model's "
            f"{list(labels)!r}; give a store with the model's labels"
        )
    if measured.side == "all":
        return "no image of the store has a label; embed a folder of label folders or a manifest"
    return (
        f"the {measured.side} side has no image (rule {dict(measured.split)!r}, sides "
        f"{dict(measured.sides)!r}); choose another --split"
    )
