"""Chooses settings and temperature of a head by cross-fitting.

Each row is scored by a head that was trained without it: all rows train and all are held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.head.blas import one_blas_thread
from beam_flowers.head.examples import Examples, Prepared
from beam_flowers.head.groups import fold_codes
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.leakage import near_groups
from beam_flowers.head.metrics import Metrics, cross_entropies, metrics_of
from beam_flowers.head.recipes import Recipe, describe_recipe, train_head
from beam_flowers.head.softmax import Doubles, Floats, Head, Indices, Sample
from beam_flowers.head.temperature import Calibration, temperature_of

FOLDS = 5

MOST_ROWS = 100_000
"""Rows from which on one split is held out once, in place of each row in its fold."""

MOST_LOGITS = 50_000_000
"""Logits, rows times labels, from which on likewise: those of each setting are in memory."""

_FACTORS = (20.0, 4.0, 1.0, 1 / 4, 1 / 16)
"""Multiples of the default l2 that are tried, from strong to weak. Flowers want 1 to 4, with a
fifth of the labels wrong 20; 100 then has a cross entropy as low, but 0.7 points less accuracy."""

_FACTORS_OF_MANY = (4.0, 1.0, 1 / 4)
"""The same from `MOST_ROWS` on, where a head takes minutes and l2 matters less."""

_HOPELESS = 2.0
"""Standard errors above the lowest cross entropy from which on weaker penalties are not tried."""

_COARSER = 10.0
"""Factor of the tolerance of fold heads: it moves single scores of flowers by up to 0.01, means of
many by nothing that counts, and takes half of the time."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Folds:
    """Says which rows are held out together.

    Attributes:
        codes: intp [n], the fold of each row of `Prepared`; -1 where a row is in none and trains
            every head, -2 where it takes no part.
        count: number of folds, >= 1.
    """

    codes: Indices
    count: int

    @property
    def inside(self) -> Mask:
        """Rows that take part, bool [n]."""
        return self.codes > -2


@dataclass(frozen=True)
class Tried:
    """A setting and its cross entropy on held-out rows.

    Attributes:
        recipe: the setting.
        cross_entropy: mean over the rows at the setting's own temperature, in nats.
        error: standard error of its difference to the lowest one.
    """

    recipe: Recipe
    cross_entropy: float
    error: float

    def row(self) -> dict[str, Any]:
        """Returns the setting and its measures as JSON."""
        measures = {"cross_entropy": self.cross_entropy, "standard_error": self.error}
        return {"recipe": describe_recipe(self.recipe), **measures}


@dataclass(frozen=True)
class CrossFit:
    """Holds the chosen setting and the logits of rows that the head giving them never saw.

    Attributes:
        recipe: the setting.
        places: intp [m], the held-out rows as places in `Prepared`.
        class_ids: intp [m], of these rows.
        logits: float64 [m, C], before the temperature.
        membership: see `Sample.membership`.
        calibration: fit of the temperature, or None.
        tried: all settings that were compared.
        start: mean of the heads, from which the one on all rows is trained sooner.
    """

    recipe: Recipe
    places: Indices
    class_ids: Indices
    logits: Doubles
    membership: Floats | None
    calibration: Calibration | None
    tried: tuple[Tried, ...]
    start: Head

    def warnings(self, settings: Sequence[Recipe]) -> list[str]:
        """Returns a warning if the setting is the first or last of those there were to try."""
        if len(settings) < 2 or self.recipe not in (settings[0], settings[-1]):
            return []
        if self.recipe == settings[-1]:
            cause = "the images may be easier than most, or more alike than they should be"
        else:
            cause = "labels may be wrong: `evaluate` lists suspects, --drop-suspects drops them"
        return [f"l2 {self.recipe.l2:g} is at the end of what is tried by itself; {cause}"]

    @property
    def temperature(self) -> float:
        """The fitted temperature, or 1."""
        return self.calibration.temperature if self.calibration else 1.0

    def metrics(self) -> Metrics:
        """Measures the held-out rows; it flatters, as settings were chosen by them."""
        sample = Sample(self.start.weights[:0], self.class_ids, None, self.membership)
        logits = self.logits / self.temperature
        losses = cross_entropies(logits, self.class_ids, self.membership)
        return metrics_of(sample.hits(logits, self.class_ids), float(losses.sum()), len(losses))


def make_folds(
    prepared: Prepared, examples: Examples, inside: Mask, folds: int, *, seed: int
) -> Folds | None:
    """Deals rows into folds that keep copies, variants and near-equal images together.

    From `MOST_ROWS` rows on, only those of the validation split, or a tenth, are held out.

    Args:
        prepared: the rows.
        examples: their vectors.
        inside: bool [n], the rows to deal.
        folds: number of folds; fewer if there are fewer groups.
        seed: another one deals otherwise.

    Returns:
        None if there are fewer than two groups.
    """
    places = np.flatnonzero(inside)
    codes = np.full(len(inside), -2)
    is_large = _is_large(len(places), len(prepared.labels))
    if is_large and (prepared.codes[places] == 1).any():
        codes[places] = np.where(prepared.codes[places] == 1, 0, -1)
        return Folds(codes, 1)
    class_ids = prepared.class_ids[places]
    groups = [prepared.groups[place] for place in places.tolist()]
    groups = near_groups(examples.vectors, prepared.rows[places], groups, class_ids)
    count = min(10 if is_large else folds, len(set(groups)))
    if count < 2:
        return None
    dealt = fold_codes(groups, class_ids, count, seed=seed)
    codes[places] = np.where(dealt == 0, 0, -1) if is_large else dealt
    return Folds(codes, 1 if is_large else count)


def _is_large(rows: int, classes: int) -> bool:
    return rows >= MOST_ROWS or rows * classes >= MOST_LOGITS


def settings_of(options: Recipe, prepared: Prepared, rows: int) -> list[Recipe]:
    """Returns the settings to compare, from strong to weak penalties.

    It is the recipe alone if its l2 is given, it has an l1, or images have several labels.
    """
    classes, multi_label = len(prepared.labels), prepared.membership is not None
    if not isinstance(options, LbfgsOptions):
        return [options]
    default = options.for_classes(classes, multi_label=multi_label)
    if options.l2 is not None or options.l1 or multi_label:
        return [default]
    factors = _FACTORS_OF_MANY if _is_large(rows, classes) else _FACTORS
    return [replace(default, l2=factor * float(default.l2 or 0)) for factor in factors]


@one_blas_thread
def cross_fit(
    prepared: Prepared,
    examples: Examples,
    folds: Folds,
    settings: Sequence[Recipe],
    clean: Callable[[Mask], Mask] = lambda mask: mask,
) -> CrossFit:
    """Scores each row of the folds by a head trained without its fold, and chooses a setting.

    The setting of the lowest mean cross entropy is taken, each at a temperature of its own. Each
    setting begins from the heads of the one before. One that is clearly worse than one before it
    ends the search.

    Args:
        prepared: the rows.
        examples: their vectors, and distorted copies, which train with their images.
        folds: from `make_folds`.
        settings: from strong to weak penalties, at least one.
        clean: takes rows out of those to train on, bool [n]; those held out stay.
    """
    trained_on = [clean(folds.inside & (folds.codes != fold)) for fold in range(folds.count)]
    places = judged(prepared, folds)
    held = prepared.class_ids[places]
    heads: dict[int, Head] = {}
    losses: list[Doubles] = []
    found: list[CrossFit] = []
    for setting in settings:
        recipe = setting
        if isinstance(setting, LbfgsOptions):
            recipe = replace(setting, tolerance=_COARSER * setting.tolerance)
        logits = np.empty((len(places), len(prepared.labels)))
        for fold in range(folds.count):
            training = prepared.training(examples, trained_on[fold])
            start = heads.get(fold)
            heads[fold] = train_head(training, logits.shape[1], recipe, start=start)
            own = folds.codes[places] == fold
            held_out = Sample(examples.vectors, held[own], prepared.rows[places[own]])
            if len(held_out):
                logits[own] = np.concatenate(
                    [heads[fold].logits(vectors) for vectors, _ in held_out.chunks()]
                )
        is_single = prepared.membership is None
        calibration = temperature_of(logits, held) if is_single else None
        temperature = calibration.temperature if calibration else 1.0
        losses.append(cross_entropies(logits / temperature, held, prepared.membership))
        start = _mean(list(heads.values()))
        found.append(
            CrossFit(setting, places, held, logits, prepared.membership, calibration, (), start)
        )
        lowest = min(range(len(losses)), key=lambda i: float(losses[i].sum()))
        gap, error = _gap(losses[-1], losses[lowest])
        if gap > _HOPELESS * error and gap > 0:
            break
    gaps = [_gap(loss, losses[lowest]) for loss in losses]
    tried = [
        Tried(fit.recipe, float(loss.sum()) / max(len(loss), 1), error)
        for fit, loss, (_, error) in zip(found, losses, gaps, strict=True)
    ]
    return replace(found[lowest], tried=tuple(tried))


def judged(prepared: Prepared, folds: Folds) -> Indices:
    """Returns the places of held-out rows whose label has a row outside of their fold."""
    classes = int(prepared.class_ids.max()) + 1
    counts = np.zeros((folds.count + 1, classes), np.intp)
    inside = folds.codes > -2
    np.add.at(counts, (folds.codes[inside], prepared.class_ids[inside]), 1)
    others = counts.sum(axis=0) - counts
    held_out = np.flatnonzero(folds.codes >= 0)
    return held_out[others[folds.codes[held_out], prepared.class_ids[held_out]] > 0]


def _gap(losses: Doubles, lowest: Doubles) -> tuple[float, float]:
    """Returns the mean difference of two rows of losses, and its standard error."""
    gaps = losses - lowest
    if len(gaps) < 2:
        return float(gaps.sum()), 0.0
    return float(gaps.mean()), float(gaps.std(ddof=1)) / math.sqrt(len(gaps))


def _mean(heads: Sequence[Head]) -> Head:
    weights = np.stack([head.weights for head in heads]).mean(axis=0)
    bias = np.stack([head.bias for head in heads]).mean(axis=0)
    return replace(heads[0], weights=weights, bias=bias)
