"""From labelled vectors to a measured head, whatever the recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import TrainingError
from beam_flowers.head.lbfgs import LbfgsOptions, train_lbfgs
from beam_flowers.head.metrics import Metrics, evaluate
from beam_flowers.head.retrain import RetrainOptions, train_retrain
from beam_flowers.head.softmax import CHUNK_ROWS, Head, Indices, Sample, Step
from beam_flowers.head.split import SPLITS, Codes, SplitOptions, split_codes
from beam_flowers.head.threads import one_blas_thread
from beam_flowers.images.labels import collisions

FEW_IMAGES = 20
"""Under so many images a class gets a warning, as in retrain.py."""

Recipe = LbfgsOptions | RetrainOptions
RECIPES: Mapping[str, type[LbfgsOptions] | type[RetrainOptions]] = {
    "lbfgs": LbfgsOptions,
    "retrain": RetrainOptions,
}


@dataclass(frozen=True)
class Examples:
    """The rows of a store, of one backbone.

    Attributes:
        uris: N addresses.
        sha256: N content digests.
        labels: N labels, verbatim; rows with None are left out.
        splits: N names of a split that is fixed for the row, or None.
        vectors: float32 [N, D], may be a `np.memmap`.
    """

    uris: Sequence[str]
    sha256: Sequence[str]
    labels: Sequence[str | None]
    splits: Sequence[str | None]
    vectors: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """Rows ready to train on.

    Attributes:
        labels: the C labels in class order, sorted by code point.
        rows: intp [n], the labelled rows, sorted by content: the result must not depend on
            where the pictures lie or in which order the store gives them.
        class_ids: intp [n], of these rows.
        codes: int8 [n], of these rows, indices into `SPLITS`.
        warnings: what the user should know, a line each.
    """

    labels: tuple[str, ...]
    rows: Indices
    class_ids: Indices
    codes: Codes
    warnings: tuple[str, ...]

    def sample(self, vectors: npt.NDArray[np.float32], split: str) -> Sample:
        """The rows of one split."""
        chosen = self.codes == SPLITS.index(split)
        return Sample(vectors, self.class_ids[chosen], self.rows[chosen])


@dataclass(frozen=True)
class TrainResult:
    """A trained head.

    Attributes:
        head: the softmax layer.
        labels: its C labels in class order.
        metrics: by name of the split, each row measured once; empty splits are left out.
        codes: int8 [N], each example's split as index into `SPLITS`; -1 without a label.
        warnings: what the user should know, a line each.
    """

    head: Head
    labels: tuple[str, ...]
    metrics: Mapping[str, Metrics]
    codes: Codes
    warnings: tuple[str, ...]


def recipe(name: str, **settings: Any) -> Recipe:
    """A recipe's options by its name; settings of None keep the default.

    Raises:
        TrainingError: for an unknown recipe, or a setting that it does not take.
    """
    if name not in RECIPES:
        raise TrainingError(f"unknown recipe {name!r}; choose one of {sorted(RECIPES)}")
    chosen = {key: value for key, value in settings.items() if value is not None}
    for key in chosen:
        takers = sorted(r for r, options in RECIPES.items() if key in _settings_of(options))
        if name not in takers:
            raise TrainingError(
                f"the recipe {name!r} does not take {key!r}; those that do: {takers or 'none'}"
            )
    return RECIPES[name](**chosen)


def describe_recipe(options: Recipe) -> dict[str, Any]:
    """The recipe's name and settings, JSON, as the model bundle keeps them."""
    name = next(name for name, kind in RECIPES.items() if isinstance(options, kind))
    return {"name": name, **asdict(options)}


def _settings_of(options: type[LbfgsOptions] | type[RetrainOptions]) -> set[str]:
    return {field.name for field in fields(options)}


@one_blas_thread
def train(
    examples: Examples,
    options: Recipe | None = None,
    split: SplitOptions | None = None,
    *,
    seed: int = 0,
    report: Callable[[Step], None] | None = None,
) -> TrainResult:
    """Splits the examples, trains a head on the training side and measures it on all.

    Raises:
        TrainingError: if no head can be trained; says why, with the numbers.
    """
    prepared = prepare(examples, split or SplitOptions(), seed)
    samples = {name: prepared.sample(examples.vectors, name) for name in SPLITS}
    with np.errstate(over="ignore", invalid="ignore"):
        head = train_head(
            samples["training"],
            len(prepared.labels),
            options or LbfgsOptions(),
            seed=seed,
            validation=samples["validation"],
            report=report,
        )
    if not (np.isfinite(head.weights).all() and np.isfinite(head.bias).all()):
        raise TrainingError(f"the training diverged with {options!r}; use a lower learning rate")
    codes = np.full(len(examples.uris), -1, dtype=np.int8)
    codes[prepared.rows] = prepared.codes
    metrics = {name: evaluate(head, sample) for name, sample in samples.items() if len(sample)}
    return TrainResult(head, prepared.labels, metrics, codes, prepared.warnings)


def train_head(
    training: Sample,
    classes: int,
    options: Recipe,
    *,
    seed: int = 0,
    validation: Sample | None = None,
    report: Callable[[Step], None] | None = None,
) -> Head:
    """Trains by the recipe that the options belong to; L-BFGS needs no seed."""
    if isinstance(options, LbfgsOptions):
        return train_lbfgs(training, classes, options, validation=validation, report=report)
    return train_retrain(
        training, classes, options, seed=seed, validation=validation, report=report
    )


def prepare(examples: Examples, split: SplitOptions, seed: int = 0) -> Prepared:
    """Checks the examples, numbers their classes and splits them.

    Raises:
        TrainingError: see `train`.
    """
    labelled = [row for row, label in enumerate(examples.labels) if label is not None]
    labelled.sort(key=lambda row: (examples.sha256[row], examples.labels[row]))
    names = [str(examples.labels[row]) for row in labelled]
    labels = tuple(sorted(set(names)))
    _check_labels(labels, len(labelled), len(examples.labels))
    _check_finite(examples)
    number = {label: class_id for class_id, label in enumerate(labels)}
    class_ids = np.array([number[name] for name in names], dtype=np.intp)
    codes = split_codes(
        split,
        [examples.uris[row] for row in labelled],
        [examples.sha256[row] for row in labelled],
        class_ids,
        seed,
        [examples.splits[row] for row in labelled],
    )
    counts = {
        code: np.bincount(class_ids[codes == code], minlength=len(labels)) for code in range(3)
    }
    _check_training_side(labels, counts[0], Counter(names))
    warnings = [*_few_images(Counter(names)), *_missing_sides(labels, split, counts)]
    rows = np.array(labelled, dtype=np.intp)
    return Prepared(labels, rows, class_ids, codes, tuple(warnings))


def _check_labels(labels: Sequence[str], labelled: int, total: int) -> None:
    if len(labels) < 2:
        raise TrainingError(
            f"training needs at least 2 labels, found {len(labels)} {list(labels)!r}"
            f" ({total} pictures, {total - labelled} of them without a label); put the pictures"
            " of each class into a folder of their own"
        )
    if same := collisions(labels):
        raise TrainingError(
            f"different labels with one normalised form: {same}; rename them to one or make"
            " them differ in letters or digits"
        )


def _check_finite(examples: Examples) -> None:
    bad: list[int] = []
    for start in range(0, len(examples.vectors), CHUNK_ROWS):
        finite = np.isfinite(examples.vectors[start : start + CHUNK_ROWS]).all(axis=1)
        bad += (start + np.flatnonzero(~finite)).tolist()
    if bad:
        raise TrainingError(
            f"{len(bad)} vectors hold numbers that are not finite, the first is of"
            f" {examples.uris[bad[0]]!r}; embed these pictures again"
        )


def _check_training_side(
    labels: Sequence[str], training: npt.NDArray[np.intp], images: Mapping[str, int]
) -> None:
    for label in (label for label, count in zip(labels, training, strict=True) if not count):
        raise TrainingError(
            f"the split leaves the label {label!r} none of its {images[label]} pictures to train"
            " on; add pictures, lower the percentages or change the fixed splits"
        )


def _few_images(images: Mapping[str, int]) -> list[str]:
    return [
        f"the label {label!r} has only {count} pictures, under {FEW_IMAGES}; add some"
        for label, count in sorted(images.items())
        if count < FEW_IMAGES
    ]


def _missing_sides(
    labels: Sequence[str], split: SplitOptions, counts: Mapping[int, npt.NDArray[np.intp]]
) -> list[str]:
    wanted = {1: split.validation_percentage, 2: split.testing_percentage}
    missing = {code: np.flatnonzero(counts[code] == 0) for code in wanted if wanted[code]}
    return [
        f"no {SPLITS[code]} picture for {len(ids)} of {len(labels)} labels, such as"
        f" {labels[ids[0]]!r}; its accuracy says nothing about them"
        for code, ids in missing.items()
        if len(ids)
    ]
