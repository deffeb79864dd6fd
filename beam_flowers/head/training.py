"""Trains and measures a head on labelled vectors, by any recipe."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.examples import Examples, prepare
from beam_flowers.head.held_out import HeldOut, measure_held_out
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.leakage import leakage_warnings
from beam_flowers.head.metrics import Metrics, evaluate
from beam_flowers.head.recipes import Recipe, for_classes, hidden_of, train_head, warm_start
from beam_flowers.head.softmax import Head, TrainingStep
from beam_flowers.head.split import SPLITS, Codes, SplitOptions
from beam_flowers.head.temperature import Calibration, bound_warnings, fit_temperature
from beam_flowers.head.thresholds import fit_thresholds


@dataclass(frozen=True)
class TrainResult:
    """A trained head with its measures.

    Attributes:
        head: the head; its temperature is fitted if there are enough validation rows.
        labels: its C labels in class order.
        metrics: measures by name of the split, without empty splits.
        codes: int8 [N], each example's split as index into `SPLITS`; -1 without a label.
        warnings: lines for the user.
        recipe: the settings that were used, none of them left open.
        calibration: the fit of the temperature, or None.
        thresholds: of a multi-label head, by label; see `fit_thresholds`.
        held_out: scores of held-out images, see `measure_held_out`.
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
) -> TrainResult:
    """Splits the examples, trains a head on the training split and measures it on all splits.

    Args:
        examples: the rows.
        options: the recipe; L-BFGS with its defaults if None.
        split: the split rule.
        seed: of the split and the training.
        report: takes the steps as they come.
        required: names of splits, see `prepare`.
        start: an older head and its labels to begin from, see `warm_start`.

    Raises:
        TrainingError: if no head can be trained; names the reason and the numbers.
        ModelError: if `start` does not fit.
    """
    options = options or LbfgsOptions()
    prepared = prepare(examples, split or SplitOptions(), seed=seed, required=required)
    multi_label = prepared.membership is not None
    options = for_classes(options, len(prepared.labels), multi_label=multi_label)
    samples = {name: prepared.sample(examples.vectors, name) for name in SPLITS}
    first = warm_start(*start, prepared.labels, hidden=hidden_of(options)) if start else None
    head = train_head(
        prepared.training(examples, prepared.codes == SPLITS.index("training")),
        len(prepared.labels),
        options,
        seed=seed,
        validation=samples["validation"],
        report=report,
        start=first,
    )
    calibration = None if head.multi_label else fit_temperature(head, samples["validation"])
    if calibration:
        head = replace(head, temperature=calibration.temperature)
    metrics = {name: evaluate(head, sample) for name, sample in samples.items() if len(sample)}
    codes = np.full(len(examples.uris), -1, dtype=np.int8)
    codes[prepared.rows] = prepared.codes
    warnings = [*prepared.warnings, *leakage_warnings(examples, codes, prepared.rows)]
    warnings += bound_warnings(calibration) if calibration else []
    thresholds = fit_thresholds(head, samples["validation"]) if head.multi_label else ()
    held_out = measure_held_out(head, samples["validation"], samples["testing"])
    return TrainResult(
        head,
        prepared.labels,
        metrics,
        codes,
        tuple(warnings),
        options,
        calibration,
        thresholds,
        held_out,
    )
