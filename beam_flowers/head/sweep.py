"""Cross-validation, and the choice of settings and backbones by it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from beam_flowers.errors import TrainingError
from beam_flowers.head.examples import Examples, prepare
from beam_flowers.head.groups import fold_codes
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.metrics import Metrics, evaluate
from beam_flowers.head.recipes import Recipe, describe_recipe, early_stopping_of, train_head
from beam_flowers.head.settings import whole
from beam_flowers.head.split import SPLITS, SplitOptions

# L-BFGS scales its vectors, so that its grid suits every backbone; the best l2 of flowers lies in
# the middle and an l1 of 0.01 costs accuracy already. The batch recipes take vectors as they are.
_L2 = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_L1 = (0.0, 0.0001, 0.0003, 0.001, 0.003)
_BATCH_L2 = (0.0, 1e-5, 1e-4, 1e-3, 1e-2)
_BATCH_L1 = (0.0, 1e-5, 1e-4, 1e-3)


@dataclass(frozen=True)
class SweepOptions:
    """What a sweep tries.

    Attributes:
        folds: >= 2.
        l1: whether to cross the grid of l2 with one of l1.
    """

    folds: int = 5
    l1: bool = False

    def __post_init__(self) -> None:
        if not whole(self.folds, 2):
            raise TrainingError(f"folds must be a whole number >= 2, got {self.folds!r}")


@dataclass(frozen=True)
class CrossValidation:
    """What was measured on held-out folds, each picture once.

    Attributes:
        count: pictures.
        folds: one `Metrics` a fold.
    """

    count: int
    folds: tuple[Metrics, ...]

    @property
    def accuracy(self) -> float:
        """Mean over the folds."""
        return float(np.mean([fold.accuracy for fold in self.folds]))

    @property
    def deviation(self) -> float:
        """Standard deviation of the accuracy over the folds, with n - 1."""
        return float(np.std([fold.accuracy for fold in self.folds], ddof=1))

    @property
    def cross_entropy(self) -> float:
        """Mean over the folds, in nats."""
        return float(np.mean([fold.cross_entropy for fold in self.folds]))


@dataclass(frozen=True)
class Trial:
    """One setting and how it did.

    Attributes:
        backbone: whose vectors.
        recipe: the settings.
        result: of the cross-validation.
    """

    backbone: str
    recipe: Recipe
    result: CrossValidation

    def row(self) -> dict[str, Any]:
        """JSON, as the model bundle keeps it."""
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
    """Trains on all folds but one and measures on that one, for each fold.

    The folds are stratified and keep copies and `_nohash_` variants together. A recipe that stops
    early watches the fold that comes after the one held out, which then does not train.

    Args:
        examples: the rows.
        options: the recipe; L-BFGS with its defaults if None.
        split: which rows are the splits'.
        folds: how many.
        seed: of the split, the folds and the training.
        splits: whose rows take part; the others stay unseen.
        required: see `prepare`.

    Raises:
        TrainingError: if no head can be trained, or there are fewer pictures than folds, or only
            two folds to stop early by.
    """
    options = options or LbfgsOptions()
    watched = early_stopping_of(options) is not None
    if watched and folds < 3:
        raise TrainingError(
            f"with {folds} folds there is none to stop early by beside the one trained on and the"
            " one held out; name 3 or more, or leave out early stopping"
        )
    prepared = prepare(examples, split or SplitOptions(), seed, required)
    inside = np.flatnonzero(np.isin(prepared.codes, [SPLITS.index(name) for name in splits]))
    groups = [prepared.groups[place] for place in inside.tolist()]
    codes = np.full(len(prepared.codes), -1)
    codes[inside] = fold_codes(groups, prepared.class_ids[inside], folds, seed)
    measured = []
    for fold in range(folds):
        held_out = codes == fold
        validating = (codes == (fold + 1) % folds) & watched
        training = prepared.training(examples, (codes >= 0) & ~held_out & ~validating)
        validation = prepared.where(examples.vectors, validating)
        head = train_head(training, len(prepared.labels), options, seed=seed, validation=validation)
        measured.append(evaluate(head, prepared.where(examples.vectors, held_out)))
    return CrossValidation(len(inside), tuple(measured))


def grid(options: Recipe, l1: bool = False) -> list[Recipe]:
    """The recipe with each penalty of the grid, its other settings as they are."""
    exact = isinstance(options, LbfgsOptions)
    ones = (_L1 if exact else _BATCH_L1) if l1 else (options.l1,)
    return [replace(options, l1=a, l2=b) for a, b in product(ones, _L2 if exact else _BATCH_L2)]


def run_sweep(
    backbones: Iterable[tuple[str, Examples]],
    options: Recipe,
    split: SplitOptions,
    what: SweepOptions,
    *,
    seed: int = 0,
    required: Collection[str] = (),
    report: Callable[[Trial], None] | None = None,
) -> Iterator[Trial]:
    """Cross-validates every setting of the grid on every backbone, one after the other.

    Args:
        backbones: names and rows; only one is held at a time if this is a generator.
        options: the recipe whose penalties vary.
        split: which rows are the splits'; the testing rows take no part.
        what: what to try.
        seed: of the split, the folds and the training.
        required: see `prepare`.
        report: takes the trials as they come.
    """
    for name, examples in backbones:
        for setting in grid(options, what.l1):
            result = cross_validate(
                examples, setting, split, folds=what.folds, seed=seed, required=required
            )
            trial = Trial(name, setting, result)
            if report:
                report(trial)
            yield trial


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The highest mean accuracy; of several, the lowest cross entropy, then the first."""
    return max(trials, key=lambda trial: (trial.result.accuracy, -trial.result.cross_entropy))
