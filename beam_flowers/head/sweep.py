"""Chooses settings and backbones by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from beam_flowers.errors import TrainingError
from beam_flowers.head.examples import Examples, prepare
from beam_flowers.head.groups import fold_codes
from beam_flowers.head.lbfgs import LbfgsOptions, default_l2
from beam_flowers.head.metrics import Metrics, evaluate
from beam_flowers.head.recipes import Recipe, describe_recipe, early_stopping_of, train_head
from beam_flowers.head.settings import is_whole_number
from beam_flowers.head.split import SPLITS, SplitOptions

# L-BFGS scales its vectors, so that its grid suits every backbone; as multiples of its default it
# also suits any number of classes. Of flowers 1 to 4 times the default are the best, with a fifth
# of the labels wrong 20 times. An l1 of 0.01 already costs accuracy. The batch recipes do not scale
# vectors.
_L2_FACTORS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0, 64.0)
_L1 = (0.0, 0.0001, 0.0003, 0.001, 0.003)
_BATCH_L2 = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
_BATCH_L1 = (0.0, 1e-5, 1e-4, 1e-3)


@dataclass(frozen=True)
class SweepOptions:
    """Options of one sweep.

    Attributes:
        folds: number of folds, >= 2.
        l1: True to try each l2 of the grid with each l1 of another grid.
    """

    folds: int = 5
    l1: bool = False

    def __post_init__(self) -> None:
        if not is_whole_number(self.folds, 2):
            raise TrainingError(f"folds must be a whole number >= 2, got {self.folds!r}")


@dataclass(frozen=True)
class CrossValidation:
    """Measures on held-out folds, each image once.

    Attributes:
        count: number of images.
        folds: measures of each fold.
    """

    count: int
    folds: tuple[Metrics, ...]

    @property
    def accuracy(self) -> float:
        """Mean accuracy over the folds, 0..1."""
        return float(np.mean([fold.accuracy for fold in self.folds]))

    @property
    def deviation(self) -> float:
        """Standard deviation of the accuracy over the folds, with n - 1."""
        return float(np.std([fold.accuracy for fold in self.folds], ddof=1))

    @property
    def cross_entropy(self) -> float:
        """Mean cross entropy over the folds, in nats."""
        return float(np.mean([fold.cross_entropy for fold in self.folds]))


@dataclass(frozen=True)
class SweepTrial:
    """One setting of a sweep with its measures.

    Attributes:
        backbone: name of the backbone that made the vectors.
        recipe: the settings.
        result: measures of the cross-validation.
    """

    backbone: str
    recipe: Recipe
    result: CrossValidation

    def row(self) -> dict[str, Any]:
        """Returns the trial as JSON, as the model bundle keeps it."""
        return {
            "backbone": self.backbone,
            "recipe": describe_recipe(self.recipe),
            "accuracy": self.result.accuracy,
            "accuracy_deviation": self.result.deviation,
            "cross_entropy": self.result.cross_entropy,
            "folds": len(self.result.folds),
            "count": self.result.count,
        }


def cross_validate(
    examples: Examples,
    options: Recipe | None = None,
    split: SplitOptions | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
    splits: Sequence[str] = ("training", "validation"),
    required: Collection[str] = (),
) -> CrossValidation:
    """Measures each fold by a head that was trained on the other folds.

    The folds are stratified and keep copies and `_nohash_` variants together. A recipe that stops
    early watches the fold after the held-out one, which then does not train.

    Args:
        examples: the rows.
        options: the recipe; L-BFGS with its defaults if None.
        split: the split rule.
        folds: number of folds.
        seed: of the split, the folds and the training.
        splits: names of the splits whose rows take part; others stay unseen.
        required: names of splits, see `prepare`.

    Raises:
        TrainingError: if no head can be trained, there are fewer images than folds, or early
            stopping has only two folds.
    """
    options = options or LbfgsOptions()
    watched = early_stopping_of(options) is not None
    if watched and folds < 3:
        raise TrainingError(
            f"with {folds} folds there is none to stop early by beside the one trained on and the"
            " one held out; name 3 or more, or leave out early stopping"
        )
    prepared = prepare(examples, split or SplitOptions(), seed=seed, required=required)
    inside = np.flatnonzero(np.isin(prepared.codes, [SPLITS.index(name) for name in splits]))
    groups = [prepared.groups[place] for place in inside.tolist()]
    codes = np.full(len(prepared.codes), -1)
    codes[inside] = fold_codes(groups, prepared.class_ids[inside], folds, seed=seed)
    measured = []
    for fold in range(folds):
        held_out = codes == fold
        validating = (codes == (fold + 1) % folds) & watched
        training = prepared.training(examples, (codes >= 0) & ~held_out & ~validating)
        validation = prepared.where(examples.vectors, validating)
        head = train_head(training, len(prepared.labels), options, seed=seed, validation=validation)
        measured.append(evaluate(head, prepared.where(examples.vectors, held_out)))
    return CrossValidation(len(inside), tuple(measured))


def grid(
    options: Recipe, *, l1: bool = False, classes: int = 2, multi_label: bool = False
) -> list[Recipe]:
    """Returns the recipe with each penalty of the grid; its other settings stay.

    Args:
        options: the recipe.
        l1: True for each l2 with each l1.
        classes: number of labels, from which L-BFGS takes its default l2.
        multi_label: True for several labels an image.
    """
    l1s: Sequence[float] = _BATCH_L1
    l2s: Sequence[float] = _BATCH_L2
    if isinstance(options, LbfgsOptions):
        default = default_l2(classes, multi_label=multi_label)
        l1s, l2s = _L1, [factor * default for factor in _L2_FACTORS]
    pairs = product(l1s if l1 else (options.l1,), l2s)
    return [replace(options, l1=l1, l2=l2) for l1, l2 in pairs]


def run_sweep(
    backbones: Iterable[tuple[str, Examples]],
    options: Recipe,
    split: SplitOptions,
    sweep: SweepOptions,
    *,
    seed: int = 0,
    required: Collection[str] = (),
    report: Callable[[SweepTrial], None] | None = None,
) -> Iterator[SweepTrial]:
    """Yields the cross-validation of every setting of the grid on every backbone.

    Args:
        backbones: names and rows; from a generator only one is in memory at a time.
        options: the recipe whose penalties vary.
        split: the split rule; testing rows take no part.
        sweep: number of folds and size of the grid.
        seed: of the split, the folds and the training.
        required: names of splits, see `prepare`.
        report: takes the trials as they come.
    """
    for name, examples in backbones:
        prepared = prepare(examples, split, seed=seed, required=required)
        classes, multi_label = len(prepared.labels), prepared.membership is not None
        for setting in grid(options, l1=sweep.l1, classes=classes, multi_label=multi_label):
            result = cross_validate(
                examples, setting, split, folds=sweep.folds, seed=seed, required=required
            )
            trial = SweepTrial(name, setting, result)
            if report:
                report(trial)
            yield trial


def best_trial(trials: Sequence[SweepTrial]) -> SweepTrial:
    """Returns the trial to train with, by the one-standard-error rule on the cross entropy.

    The backbone is that of the lowest mean cross entropy. Of its trials that are above the lowest
    by at most one standard error of the difference between the folds, the one with the highest
    penalties is taken: what is as good with smaller weights is less likely to have fitted chance
    (Hastie, Tibshirani, Friedman: The Elements of Statistical Learning, section 7.10).
    """
    lowest = min(trials, key=lambda trial: trial.result.cross_entropy)

    def is_as_good(trial: SweepTrial) -> bool:
        if trial.backbone != lowest.backbone:
            return False
        pairs = zip(trial.result.folds, lowest.result.folds, strict=True)
        gaps = np.array([fold.cross_entropy - least.cross_entropy for fold, least in pairs])
        error = gaps.std(ddof=1) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0
        return bool(gaps.mean() <= error)

    return max(filter(is_as_good, trials), key=lambda t: (t.recipe.l2 or 0, t.recipe.l1))


def edge_warnings(trials: Sequence[SweepTrial]) -> list[str]:
    """Returns a warning if the trial to train with lies at an edge of the grid of l2."""
    if not trials:
        return []
    chosen = best_trial(trials).recipe.l2
    tried = sorted({trial.recipe.l2 or 0 for trial in trials})
    if chosen not in (tried[0], tried[-1]) or not chosen:
        return []
    side = "lowest" if chosen == tried[0] else "highest"
    return [f"l2 {chosen:g} is the {side} of the sweep: one beyond may be better; try it by --l2"]
