"""Trains and measures a head on labelled vectors, by any recipe."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beam_flowers.errors import TrainingError
from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.cross_fit import (
    FOLDS,
    CrossFit,
    Folds,
    Mask,
    cross_fit,
    judged,
    make_folds,
    settings_of,
)
from beam_flowers.head.examples import Examples, Prepared, prepare
from beam_flowers.head.held_out import Answer, HeldOut, answers_of, best_scores, held_out_of
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.leakage import leakage_warnings
from beam_flowers.head.metrics import Metrics, evaluate, metrics_of
from beam_flowers.head.recipes import Recipe, for_classes, hidden_of, train_head, warm_start
from beam_flowers.head.settings import is_whole_number
from beam_flowers.head.softmax import Head, Sample, TrainingStep, sigmoid, softmax
from beam_flowers.head.split import SPLITS, Codes, SplitOptions
from beam_flowers.head.suspects import describe_dropped, without_suspects
from beam_flowers.head.temperature import Calibration, bound_warnings, fit_temperature
from beam_flowers.head.thresholds import fit_thresholds, thresholds_of

_TESTING = SPLITS.index("testing")


@dataclass(frozen=True)
class TrainResult:
    """A trained head with its measures.

    Attributes:
        head: the head; its temperature is fitted if there are enough held-out rows.
        labels: its C labels in class order.
        metrics: measures by name of the split, without empty splits. A cross-fitted head has
            `tuned` in place of `validation`: of each row by a head trained without it, whose
            settings were chosen by these measures. Without testing rows it has `nested`: the same
            with all choices made without the row, too.
        codes: int8 [N], each example's split as index into `SPLITS`; -1 without a label.
        warnings: lines for the user.
        recipe: the settings that were used, none of them left open.
        calibration: the fit of the temperature, or None.
        thresholds: of a multi-label head, by label; see `fit_thresholds`.
        held_out: scores of held-out images, see `measure_held_out`.
        choices: how settings were chosen by cross-fitting, JSON; None where they were not.
    """

    head: Head
    labels: tuple[str, ...]
    metrics: Mapping[str, Metrics]
    codes: Codes
    warnings: tuple[str, ...]
    recipe: Recipe
    calibration: Calibration | None = None
    thresholds: tuple[float, ...] = ()
    held_out: HeldOut | None = None
    choices: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Fitted:
    """Holds a head and what was learnt from rows that it, or its like, was not trained on."""

    head: Head
    recipe: Recipe
    calibration: Calibration | None
    thresholds: tuple[float, ...]
    answers: Sequence[Answer]
    metrics: Mapping[str, Metrics]
    choices: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()


@one_blas_thread
def train(
    examples: Examples,
    options: Recipe | None = None,
    split: SplitOptions | None = None,
    *,
    seed: int = 0,
    report: Callable[[TrainingStep], None] | None = None,
    required: Collection[str] = (),
    start: tuple[Head, tuple[str, ...]] | None = None,
    folds: int = FOLDS,
    drop_suspects: float | None = None,
) -> TrainResult:
    """Splits the examples, trains a head and measures it on all splits.

    L-BFGS is cross-fitted: training and validation rows train, and each is also scored by a head
    that was trained without its fold. The l2, unless it is given, the temperature, the thresholds
    and `held_out` come from these scores. Other recipes train on the training rows, and take
    temperature and the like from the validation rows.

    Args:
        examples: the rows.
        options: the recipe; L-BFGS with its defaults if None.
        split: the split rule.
        seed: of the split, the folds and the training.
        report: takes the steps as they come.
        required: names of splits, see `prepare`.
        start: an older head and its labels to begin from, see `warm_start`.
        folds: number of folds, >= 2; 0 holds the validation rows back for L-BFGS, too.
        drop_suspects: train without rows whose label is probably wrong, found among the rows to
            train on, at most this share of a label, above 0 to 0.5; None to train on all. Rows
            that are held out or measured stay.

    Raises:
        TrainingError: if no head can be trained; names the reason and the numbers.
        ModelError: if `start` does not fit.
    """
    if folds != 0 and not is_whole_number(folds, 2):
        raise TrainingError(f"folds must be 0 or a whole number >= 2, got {folds!r}")
    if drop_suspects is not None and not 0 < drop_suspects <= 0.5:
        raise TrainingError(
            f"the most of a label to drop is above 0 and up to 0.5, got {drop_suspects!r}"
        )
    options = options or LbfgsOptions()
    prepared = prepare(examples, split or SplitOptions(), seed=seed, required=required)
    first = warm_start(*start, prepared.labels, hidden=hidden_of(options)) if start else None
    inside = prepared.codes != _TESTING
    crossed = isinstance(options, LbfgsOptions) and folds > 0
    dealt = make_folds(prepared, examples, inside, folds, seed=seed) if crossed else None
    # Where each label has one image no head can be judged by folds.
    if dealt and not len(judged(prepared, dealt)):
        dealt = None

    def clean(rows: Mask) -> Mask:
        if drop_suspects is None:
            return rows
        return without_suspects(prepared, examples, rows, drop_suspects, seed=seed)

    trained_on = clean(inside if dealt else prepared.codes == 0)
    if dealt:
        fitted = _by_folds(prepared, examples, options, dealt, clean, trained_on, first, report)
        if inside.all() and dealt.count > 1:
            nested = _nested(prepared, examples, options, dealt, folds, clean, seed)
            fitted = replace(fitted, metrics={**fitted.metrics, "nested": nested})
    else:
        fitted = _by_validation(prepared, examples, options, seed, trained_on, first, report)
    choices = dict(fitted.choices or {})
    if drop_suspects is not None:
        dropped = (inside if dealt else prepared.codes == 0) & ~trained_on
        choices["dropped"] = describe_dropped(prepared, examples, dropped, drop_suspects)
    testing = prepared.sample(examples.vectors, "testing")
    metrics = dict(fitted.metrics)
    if len(testing):
        metrics["testing"] = evaluate(fitted.head, testing)
    codes = np.full(len(examples.uris), -1, dtype=np.int8)
    codes[prepared.rows] = prepared.codes
    # Between training and validation rows nothing leaks where both train.
    sides = np.where(codes == 1, 0, codes).astype(np.int8) if dealt else codes
    warnings = [*prepared.warnings, *leakage_warnings(examples, sides, prepared.rows)]
    warnings += fitted.warnings
    warnings += bound_warnings(fitted.calibration) if fitted.calibration else []
    return TrainResult(
        fitted.head,
        prepared.labels,
        metrics,
        codes,
        tuple(warnings),
        fitted.recipe,
        fitted.calibration,
        fitted.thresholds,
        held_out_of(fitted.answers, best_scores(fitted.head, testing)),
        choices or None,
    )


def _by_validation(
    prepared: Prepared,
    examples: Examples,
    options: Recipe,
    seed: int,
    trained_on: Mask,
    start: Head | None,
    report: Callable[[TrainingStep], None] | None,
) -> _Fitted:
    """Trains on the training rows, and takes temperature and the like from the validation rows."""
    classes, multi_label = len(prepared.labels), prepared.membership is not None
    options = for_classes(options, classes, multi_label=multi_label)
    validation = prepared.sample(examples.vectors, "validation")
    training = prepared.training(examples, trained_on)
    head = train_head(
        training, classes, options, seed=seed, validation=validation, report=report, start=start
    )
    calibration = None if multi_label else fit_temperature(head, validation)
    if calibration:
        head = replace(head, temperature=calibration.temperature)
    samples = {"training": prepared.sample(examples.vectors, "training"), "validation": validation}
    metrics = {name: evaluate(head, sample) for name, sample in samples.items() if len(sample)}
    thresholds = fit_thresholds(head, validation) if multi_label else ()
    answers = best_scores(head, validation)
    return _Fitted(head, options, calibration, thresholds, answers, metrics)


def _by_folds(
    prepared: Prepared,
    examples: Examples,
    options: Recipe,
    folds: Folds,
    clean: Callable[[Mask], Mask],
    trained_on: Mask,
    start: Head | None = None,
    report: Callable[[TrainingStep], None] | None = None,
) -> _Fitted:
    """Trains on all rows of the folds, and takes settings and the like from held-out scores."""
    rows = int(folds.inside.sum())
    settings = settings_of(options, prepared, rows)
    fit = cross_fit(prepared, examples, folds, settings, clean)
    head = train_head(
        prepared.training(examples, trained_on),
        len(prepared.labels),
        fit.recipe,
        report=report,
        start=start or fit.start,
    )
    head = replace(head, temperature=fit.temperature)
    multi_label = fit.membership is not None
    logits = fit.logits / fit.temperature
    scores = (sigmoid(logits) if multi_label else softmax(logits)).astype(np.float32)
    held_out = Sample(scores, fit.class_ids, None, fit.membership)
    thresholds: tuple[float, ...] = ()
    if fit.membership is not None:
        thresholds = thresholds_of(scores, fit.membership[fit.class_ids] > 0)
    metrics = {"training": evaluate(head, prepared.where(examples.vectors, folds.inside))}
    metrics |= {"tuned": fit.metrics()} if len(fit.places) else {}
    return _Fitted(
        head,
        fit.recipe,
        fit.calibration,
        thresholds,
        answers_of(scores, fit.class_ids, held_out) if len(scores) else [],
        metrics,
        _choices(fit, folds),
        fit.warnings(settings),
    )


def _choices(fit: CrossFit, folds: Folds) -> dict[str, Any]:
    return {
        "folds": folds.count,
        "images": int(folds.inside.sum()),
        "held_out": len(fit.places),
        "tried": [tried.row() for tried in fit.tried],
    }


def _nested(
    prepared: Prepared,
    examples: Examples,
    options: Recipe,
    outer: Folds,
    folds: int,
    clean: Callable[[Mask], Mask],
    seed: int,
) -> Metrics:
    """Measures each fold by a head for which all was chosen without the fold."""
    measured = []
    for fold in range(outer.count):
        inside: Mask = outer.inside & (outer.codes != fold)
        dealt = make_folds(prepared, examples, inside, folds, seed=seed)
        if dealt is None:
            raise TrainingError(
                "too few different images to measure a head without a testing split; raise"
                " --testing-percentage, or give --folds 0"
            )
        head = _by_folds(prepared, examples, options, dealt, clean, clean(inside)).head
        measured.append(evaluate(head, prepared.where(examples.vectors, outer.codes == fold)))
    counts = np.array([found.count for found in measured])
    right = round(sum(found.accuracy * found.count for found in measured))
    loss = float(counts @ [found.cross_entropy for found in measured])
    return metrics_of(right, loss, int(counts.sum()))
