"""Trains a model on a store's labelled embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from beam_flowers import files
from beam_flowers.errors import ModelError, TrainingError
from beam_flowers.head.bundle import (
    Bundle,
    check_model_folder,
    read_bundle,
    require_backbone,
    write_bundle,
)
from beam_flowers.head.corrections import Corrections, correct_labels, read_corrections
from beam_flowers.head.cross_fit import FOLDS
from beam_flowers.head.examples import Examples
from beam_flowers.head.recipes import Recipe, describe_recipe, steps_of
from beam_flowers.head.softmax import Head, TrainingStep
from beam_flowers.head.split import SPLITS, SplitOptions
from beam_flowers.head.store_examples import StoredExamples, each_backbone, read_examples
from beam_flowers.head.sweep import SweepOptions, SweepTrial, best_trial, edge_warnings, run_sweep
from beam_flowers.head.training import TrainResult, train
from beam_flowers.images.outputs import Writing
from beam_flowers.records import OnProgress
from beam_flowers.workflows.progress import Progress
from beam_flowers.workflows.step_log import Summaries

_PACKAGES = ("beam-flowers", "numpy", "scipy", "tensorflow", "pillow")


@dataclass(frozen=True)
class TrainOptions:
    """Holds the options of a training beside its recipe and split.

    Attributes:
        labels: manifest of corrections: see `read_corrections`.
        label_separator: what stands between several labels of an image; None for one each.
        warm_start: folder of an older model of the same backbone to begin from.
        sweep: choose penalties and backbone by cross-validation first; None to take them as
            given.
        min_accuracy: 0..1, below which nothing is written: on the testing rows; where there are
            none, in nested folds, or of recipes without folds on the validation rows.
        summaries_dir: folder for the step log: see `Summaries`.
        required: splits that must have an image of every label.
        folds: of the cross-fitting of L-BFGS, see `train`.
        drop_suspects: most of a label that is dropped as probably wrong, see `train`; None for
            nothing.
        writing: the terms on which the model is written.
    """

    labels: str | None = None
    label_separator: str | None = None
    warm_start: str | None = None
    sweep: SweepOptions | None = None
    min_accuracy: float | None = None
    summaries_dir: str | None = None
    required: tuple[str, ...] = ()
    writing: Writing = field(default_factory=Writing)
    folds: int = FOLDS
    drop_suspects: float | None = None

    def __post_init__(self) -> None:
        if self.min_accuracy is not None and not 0 <= self.min_accuracy <= 1:
            raise TrainingError(f"min accuracy must be from 0 to 1, got {self.min_accuracy!r}")
        for name in set(self.required) - set(SPLITS):
            raise TrainingError(f"unknown split {name!r}; choose one of {SPLITS}")


@dataclass(frozen=True)
class TrainedModel:
    """Holds a finished training.

    Attributes:
        model_id: of the bundle written.
        bundle: what was written.
        result: head, metrics by split, warnings.
    """

    model_id: str
    bundle: Bundle
    result: TrainResult


def train_model(
    store: str,
    model: str,
    recipe: Recipe,
    split: SplitOptions,
    backbone: str | None = None,
    seed: int = 0,
    report: Callable[[TrainingStep], None] | None = None,
    options: TrainOptions | None = None,
    report_trial: Callable[[SweepTrial], None] | None = None,
    progress: Progress | None = None,
    prepare: Callable[[StoredExamples], StoredExamples] | None = None,
) -> TrainedModel:
    """Trains a head on the newest version of `store` and writes the bundle to folder `model`.

    Args:
        store: folder of the store.
        model: folder of the bundle; an older bundle there is replaced.
        recipe: `LbfgsOptions`, `RetrainOptions` or `ImageClassifierOptions`.
        split: rule and percentages.
        backbone: whose vectors, `a+b` for those of several side by side; may be left out where
            the store has one backbone, and in a sweep, which then tries all.
        seed: of the split and the training.
        report: takes the steps as they come.
        options: see `TrainOptions`.
        report_trial: takes the sweep's trials as they come.
        progress: gets the state of the run, again and again.
        prepare: changes the labelled rows of a backbone before they are split, and what the model
            says of them.

    Raises:
        OutputError: if something is there that must stay.
        StoreError: if the store cannot be read or the backbone has to be named.
        TrainingError: if no head can be trained on it, or it is not accurate enough.
        ModelError: if the model to begin from does not fit.
    """
    options, progress = options or TrainOptions(), progress or Progress()
    writing = options.writing.reading(store, options.labels, options.warm_start)
    check_model_folder(files.absolute(model), writing)
    progress.begin("reading")
    source = _Source.of(store, options, progress, prepare)
    with ExitStack() as stack:
        summaries = (
            stack.enter_context(Summaries(options.summaries_dir, model))
            if options.summaries_dir
            else None
        )
        candidates = source.each(backbone)
        trials = _sweep(candidates, recipe, split, seed, options, _tried(progress, report_trial))
        if trials:
            backbone, recipe = best_trial(trials).backbone, best_trial(trials).recipe
        stored = source.read(backbone)
        progress.begin("training", steps_of(recipe))
        tell = _each(progress, report, summaries)
        result = _train(stored, recipe, split, seed, tell, options)
        result = replace(result, warnings=(*edge_warnings(trials), *result.warnings))
        if summaries:
            summaries.add_weights(result.head)
    progress.begin("writing")
    if options.min_accuracy is not None:
        _require_accuracy(result, options.min_accuracy)
    bundle = _bundle(stored, result, split, seed)
    bundle = replace(
        bundle,
        sweep=[trial.row() for trial in trials],
        label_separator=options.label_separator,
    )
    return TrainedModel(write_bundle(files.absolute(model), bundle, writing), bundle, result)


@dataclass(frozen=True)
class _Source:
    """Holds a store's rows with the labels that the user wants."""

    root: str
    corrections: Corrections | None
    separator: str | None
    on_progress: OnProgress
    prepare: Callable[[StoredExamples], StoredExamples] | None

    @classmethod
    def of(
        cls,
        store: str,
        options: TrainOptions,
        progress: Progress,
        prepare: Callable[[StoredExamples], StoredExamples] | None,
    ) -> _Source:
        corrections = read_corrections(options.labels) if options.labels else None
        return cls(
            files.absolute(store),
            corrections,
            options.label_separator,
            progress.callback("reading"),
            prepare,
        )

    def read(self, backbone: str | None) -> StoredExamples:
        return self._labelled(read_examples(self.root, backbone, self.on_progress))

    def each(self, backbone: str | None) -> Iterator[tuple[str, Examples]]:
        if backbone:
            yield backbone, self.read(backbone).examples
            return
        for name, stored in each_backbone(self.root, self.on_progress):
            yield name, self._labelled(stored).examples

    def _labelled(self, stored: StoredExamples) -> StoredExamples:
        stored = replace(stored, examples=replace(stored.examples, separator=self.separator))
        if self.corrections:
            stored = correct_labels(stored, self.corrections)
        return self.prepare(stored) if self.prepare else stored


def _sweep(
    candidates: Iterator[tuple[str, Examples]],
    recipe: Recipe,
    split: SplitOptions,
    seed: int,
    options: TrainOptions,
    report: Callable[[SweepTrial], None] | None,
) -> list[SweepTrial]:
    """Returns the trials of the sweep; reads no row without a sweep."""
    if not options.sweep:
        return []
    sweep, required = options.sweep, options.required
    trials = run_sweep(
        candidates, recipe, split, sweep, seed=seed, required=required, report=report
    )
    return list(trials)


def _train(
    stored: StoredExamples,
    recipe: Recipe,
    split: SplitOptions,
    seed: int,
    report: Callable[[TrainingStep], None] | None,
    options: TrainOptions,
) -> TrainResult:
    start = _start(options.warm_start, stored) if options.warm_start else None
    try:
        result = train(
            stored.examples,
            recipe,
            split,
            seed=seed,
            report=report,
            required=options.required,
            start=start,
            folds=options.folds,
            drop_suspects=options.drop_suspects,
        )
    except ModelError as error:
        raise ModelError(f"cannot start from {options.warm_start!r}: {error}") from error
    return replace(result, warnings=(*stored.warnings, *result.warnings))


def _start(model: str, stored: StoredExamples) -> tuple[Head, tuple[str, ...]]:
    """Returns an older model's head over the stored vectors, and its labels."""
    old = read_bundle(files.absolute(model))
    try:
        require_backbone(old, stored.backbone, stored.fingerprint, stored.pixels)
    except ModelError as error:
        raise ModelError(f"cannot start from {model!r}: {error}") from error
    if stored.factor is None:
        return old.head, old.labels
    # Vectors that are all alike have the factor 0: nothing of them counts.
    inverse = 1 / np.where(stored.factor, stored.factor, np.float32(1))
    return old.head.scaled(inverse.astype(np.float32)), old.labels


def _each(
    progress: Progress, report: Callable[[TrainingStep], None] | None, summaries: Summaries | None
) -> Callable[[TrainingStep], None]:
    def tell(step: TrainingStep) -> None:
        progress.reach(step.step)
        if report:
            report(step)
        if summaries:
            summaries.report(step)

    return tell


def _tried(
    progress: Progress, report: Callable[[SweepTrial], None] | None
) -> Callable[[SweepTrial], None]:
    trials = 0

    def tell(trial: SweepTrial) -> None:
        nonlocal trials
        trials += 1
        if progress.state().stage != "sweeping":
            progress.begin("sweeping")
        progress.reach(trials)
        if report:
            report(trial)

    return tell


def _require_accuracy(result: TrainResult, least: float) -> None:
    names = {"testing": "test", "nested": "nested", "validation": "validation"}
    split = next((name for name in names if name in result.metrics), None)
    if split is None:
        raise TrainingError(
            f"there is no test or validation image to measure the min accuracy {least} on;"
            " raise the percentages; nothing was written"
        )
    metrics = result.metrics[split]
    if metrics.accuracy < least:
        raise TrainingError(
            f"{names[split]} accuracy {metrics.accuracy:.2%} (of {metrics.count} images, 95 %"
            f" interval {metrics.accuracy_low:.1%} to {metrics.accuracy_high:.1%}) is below the"
            f" min accuracy {least:.2%}; nothing was written"
        )


def _bundle(stored: StoredExamples, result: TrainResult, split: SplitOptions, seed: int) -> Bundle:
    return Bundle(
        # The head takes plain vectors: what they were scaled by goes into its first layer.
        head=result.head if stored.factor is None else result.head.scaled(stored.factor),
        labels=result.labels,
        backbone=stored.backbone,
        fingerprint=stored.fingerprint,
        pixels=stored.pixels,
        recipe=describe_recipe(result.recipe),
        split=split.as_dict(),
        seed=seed,
        dataset_hash=stored.dataset_hash,
        metrics={name: asdict(metrics) for name, metrics in result.metrics.items()},
        versions=versions(),
        calibration=asdict(result.calibration) if result.calibration else None,
        thresholds=result.thresholds,
        augmentation=stored.augmentation,
        held_out=result.held_out,
        choices=result.choices,
    )


def versions() -> dict[str, str]:
    """Versions of the packages that a model depends on, where they are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
