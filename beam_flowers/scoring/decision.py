"""When a label is given, and when `unknown` stands in its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import InputError, ModelError
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.held_out import HeldOut
from beam_flowers.head.softmax import Floats, Indices
from beam_flowers.head.thresholds import DEFAULT
from beam_flowers.scoring.thresholds import threshold_for_precision

UNKNOWN = "unknown"
"""Stands for a label that is not given. A class of that name keeps its own number."""


class ThresholdResult(NamedTuple):
    """What a threshold does on some held-out pictures.

    Attributes:
        pictures: their number.
        unknown: share of them whose label is not given, 0..1.
        precision: share of the given labels that are right, 0..1; None if none is given.
    """

    pictures: int
    unknown: float
    precision: float | None

    def __str__(self) -> str:
        right = "no label given" if self.precision is None else f"{self.precision:.1%} right"
        return f"{right}, {self.unknown:.1%} unknown, of {self.pictures}"


class OperatingPoint(NamedTuple):
    """A threshold chosen for a target precision.

    Attributes:
        threshold: see `threshold_for_precision`.
        split: `validation` or `testing`, the pictures it was chosen on.
        chosen: what it does there: an optimistic figure, as it was chosen for it.
        testing: what it does on the testing pictures, where it was not chosen on them.
    """

    threshold: float
    split: str
    chosen: ThresholdResult
    testing: ThresholdResult | None

    def __str__(self) -> str:
        text = f"threshold {self.threshold:.4f}, chosen on {self.split} pictures: {self.chosen}"
        return f"{text}; on testing pictures: {self.testing}" if self.testing else text


@dataclass(frozen=True)
class Thresholds:
    """What the scores of one model have to reach.

    Attributes:
        thresholds: by class, the score from which the label is given; 0 for any.
        min_margin: by how much the best score has to exceed the second; 0 for any.
        multi_label: each label is decided by itself, whatever the others score.
        operating_point: how the threshold was chosen, where it was.
        rule: what the user asked for, in words; empty for nothing.
    """

    thresholds: tuple[float, ...]
    min_margin: float = 0.0
    multi_label: bool = False
    operating_point: OperatingPoint | None = None
    rule: str = ""

    @property
    def may_be_unknown(self) -> bool:
        return self.multi_label or bool(self.rule)

    def given(self, scores: Floats, order: Indices) -> npt.NDArray[np.bool_]:
        """Which labels are given, bool [N, C], in the order of the classes.

        Args:
            scores: float32 [N, C].
            order: [N, C], the classes of each row, best first.
        """
        # In float32, so that who filters by the column `score` in its own type finds the same.
        passed = scores >= np.array(self.thresholds, np.float32)
        if self.multi_label:
            return passed
        ranked = np.take_along_axis(scores, order[:, :2], axis=1)
        if ranked.shape[1] > 1:
            passed &= (ranked[:, :1] - ranked[:, 1:]) >= np.float32(self.min_margin)
        best = np.zeros_like(passed)
        np.put_along_axis(best, order[:, :1], True, axis=1)
        return passed & best


@dataclass(frozen=True)
class AcceptanceRule:
    """What the user asks of a label, beside being the best.

    Attributes:
        threshold: 0..1, the least score. Of a multi-label model it replaces the thresholds that
            the model has for each label.
        min_margin: 0..1, by how much the best score exceeds the second at least.
        target_precision: over 0, up to 1: choose the threshold from which on so many of the
            given labels are right on the model's held-out pictures.
    """

    threshold: float | None = None
    min_margin: float | None = None
    target_precision: float | None = None

    def __post_init__(self) -> None:
        for name in ("threshold", "min_margin"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{name.replace('_', ' ')} is from 0 to 1, not {value!r}")
        target = self.target_precision
        if target is not None and not 0 < target <= 1:
            raise InputError(f"a target precision lies above 0 and up to 1, not {target!r}")
        if target is not None and self.threshold is not None:
            raise InputError("a target precision chooses the threshold: give one of the two")

    def thresholds_for(self, bundle: Bundle) -> Thresholds:
        """What the rule comes to for a model.

        Raises:
            InputError: if no threshold has the target precision; the best one is named.
            ModelError: if the model does not know what the rule needs.
        """
        multi_label, classes = bundle.head.multi_label, len(bundle.labels)
        if multi_label and (self.min_margin is not None or self.target_precision is not None):
            raise ModelError(
                "a model with several labels a picture decides each by a threshold of its own: it"
                " takes a threshold, but neither a min margin nor a target precision"
            )
        choice, threshold = None, self.threshold
        if self.target_precision is not None:
            choice = choose_threshold(bundle, self.target_precision)
            threshold = choice.threshold
        own = tuple(bundle.thresholds) or (DEFAULT if multi_label else 0.0,) * classes
        thresholds = own if threshold is None else (threshold,) * classes
        return Thresholds(
            thresholds, self.min_margin or 0.0, multi_label, choice, self._words(threshold)
        )

    def _words(self, threshold: float | None) -> str:
        asked = (("score", threshold), ("margin", self.min_margin))
        return " and ".join(f"{name} >= {v:.9g}" for name, v in asked if v is not None)


def choose_threshold(bundle: Bundle, target_precision: float) -> OperatingPoint:
    """The threshold of a target precision, on the model's validation pictures.

    On its testing pictures where it has no others. What is reached on the pictures it was chosen
    on flatters; the figure to quote is that of the testing pictures.

    Raises:
        InputError: if no threshold reaches the target; names the best one.
        ModelError: if the model has no held-out pictures.
    """
    held_out = bundle.held_out
    if held_out is None:
        raise ModelError(
            "the model is of an older version that did not keep the scores of its held-out"
            " pictures; train it again, or give a threshold"
        )
    testing, others = held_out[held_out["testing"]], held_out[~held_out["testing"]]
    split, chosen_on = ("validation", others) if len(others) else ("testing", testing)
    if not len(chosen_on):
        raise ModelError(
            "the model was trained on all its pictures: there are none to choose a threshold on;"
            " hold some back in training, or give a threshold"
        )
    scores, correct = chosen_on["score"], chosen_on["correct"]
    threshold = threshold_for_precision(scores, correct, target_precision)
    check = _reach(testing, threshold) if split == "validation" and len(testing) else None
    return OperatingPoint(threshold, split, _reach(chosen_on, threshold), check)


def _reach(rows: HeldOut, threshold: float) -> ThresholdResult:
    given = rows["score"] >= np.float32(threshold)
    precision = float(rows["correct"][given].mean()) if given.any() else None
    return ThresholdResult(len(rows), float(1 - given.mean()), precision)
