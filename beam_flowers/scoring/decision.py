"""Decides which labels are given, and where `unknown` takes their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import InputError, ModelError
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.held_out import HeldOut
from beam_flowers.head.metrics import wilson_interval
from beam_flowers.head.softmax import Floats, Indices
from beam_flowers.head.thresholds import DEFAULT

UNKNOWN = "unknown"
"""Label of images whose label is not given. A class of that name keeps its own number."""


class ThresholdResult(NamedTuple):
    """Measures of a threshold on held-out images.

    Attributes:
        images: number of images.
        unknown: share of images whose label is not given, 0..1.
        precision: share of the given labels that are right, 0..1; None if no label is given.
        low: lower end of the precision's 95 % interval (Wilson's).
        high: upper end.
    """

    images: int
    unknown: float
    precision: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        right = "no label given"
        if self.precision is not None:
            right = f"{self.precision:.1%} right"
            if self.low is not None and self.high is not None:
                right += f" (95 % interval {self.low:.1%} to {self.high:.1%})"
        return f"{right}, {self.unknown:.1%} unknown, of {self.images}"


class OperatingPoint(NamedTuple):
    """A threshold chosen for a target precision.

    Attributes:
        threshold: least score of a given label, see `threshold_for_precision`.
        split: `validation` or `testing`, the split it was chosen on; `held-out` if each image was
            scored by a head of other folds.
        chosen: measures on that split; optimistic, as the threshold was chosen there.
        testing: measures on the testing split; None if it was chosen there or has no images.
    """

    threshold: float
    split: str
    chosen: ThresholdResult
    testing: ThresholdResult | None

    def __str__(self) -> str:
        text = f"threshold {self.threshold:.4f}, chosen on {self.split} images: {self.chosen}"
        return f"{text}; on testing images: {self.testing}" if self.testing else text


@dataclass(frozen=True)
class Thresholds:
    """Least scores and margin at which a model's labels are given.

    Attributes:
        by_class: least score of each class; 0 for any.
        min_margin: least difference of the best and the second score; 0 for any.
        multi_label: True if each label is decided by its own score alone.
        operating_point: origin of a threshold that was chosen for a target precision, or None.
        rule: the user's rule in words; empty without one.
    """

    by_class: tuple[float, ...]
    min_margin: float = 0.0
    multi_label: bool = False
    operating_point: OperatingPoint | None = None
    rule: str = ""

    @property
    def may_be_unknown(self) -> bool:
        """True if an image may get the label `unknown`."""
        return self.multi_label or bool(self.rule)

    def given(self, scores: Floats, order: Indices) -> npt.NDArray[np.bool_]:
        """Decides which labels are given: bool [N, C], in the order of the classes.

        Args:
            scores: float32 [N, C].
            order: intp [N, C], the classes of each row, best first.
        """
        # In float32, the type of the column `score`: filters on the table then agree.
        passed = scores >= np.array(self.by_class, np.float32)
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
    """Conditions on which a label is given; it also has to be the best.

    Attributes:
        threshold: least score, 0..1. For a multi-label model it replaces the model's own
            threshold of each label.
        min_margin: least difference of the best and the second score, 0..1.
        target_precision: share of right labels among the given ones, above 0, below 1: the
            threshold is chosen by the model's held-out images, see `threshold_for_precision`.
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
        """Makes the thresholds of a model by this rule.

        Raises:
            InputError: if no threshold has the target precision; names the best one.
            ModelError: if the model lacks what the rule needs.
        """
        multi_label, classes = bundle.head.multi_label, len(bundle.labels)
        if multi_label and (self.min_margin is not None or self.target_precision is not None):
            raise ModelError(
                "a model with several labels an image decides each by a threshold of its own: it"
                " takes a threshold, but neither a min margin nor a target precision"
            )
        point, threshold = None, self.threshold
        if self.target_precision is not None:
            point = choose_threshold(bundle, self.target_precision)
            threshold = point.threshold
        own = tuple(bundle.thresholds) or (DEFAULT if multi_label else 0.0,) * classes
        thresholds = own if threshold is None else (threshold,) * classes
        asked = (("score", threshold), ("margin", self.min_margin))
        rule = " and ".join(f"{name} >= {value:.9g}" for name, value in asked if value is not None)
        return Thresholds(thresholds, self.min_margin or 0.0, multi_label, point, rule)


def choose_threshold(bundle: Bundle, target_precision: float) -> OperatingPoint:
    """Chooses a threshold for a target precision on images that the model was not trained on.

    These are the images that cross-fitting held out, else the validation images, else the testing
    images. The precision on the images it was chosen on is optimistic; quote that of the testing
    images.

    Raises:
        InputError: if no threshold can be shown to reach the target; names the reason.
        ModelError: if the model has no held-out images.
    """
    held_out = bundle.held_out
    if held_out is None:
        raise ModelError(
            "the model is of an older version that did not keep the scores of its held-out"
            " images; train it again, or give a threshold"
        )
    testing, others = held_out[held_out["testing"]], held_out[~held_out["testing"]]
    kind = "held-out" if "folds" in (bundle.choices or {}) else "validation"
    split, chosen_on = (kind, others) if len(others) else ("testing", testing)
    if not len(chosen_on):
        raise ModelError(
            "the model was trained on all its images: no image is left to choose a threshold on;"
            " hold some back in training, or give a threshold"
        )
    scores, correct = chosen_on["score"], chosen_on["correct"]
    threshold = threshold_for_precision(scores, correct, target_precision)
    check = _measure(testing, threshold) if split != "testing" and len(testing) else None
    return OperatingPoint(threshold, split, _measure(chosen_on, threshold), check)


def _measure(held_out: HeldOut, threshold: float) -> ThresholdResult:
    given = held_out["score"] >= np.float32(threshold)
    count, unknown = int(given.sum()), float(1 - given.mean())
    if not count:
        return ThresholdResult(len(held_out), unknown, None)
    right = int(held_out["correct"][given].sum())
    return ThresholdResult(len(held_out), unknown, right / count, *wilson_interval(right, count))


CERTAINTY = 0.9
"""Probability with which a threshold reaches its target precision, or more, on other images."""

_MOST_MISTAKES = 5


def threshold_for_precision(
    scores: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], target_precision: float
) -> float:
    """Returns a threshold that reaches `target_precision` on other images, nine times of ten.

    A label is given where its score is >= the threshold. From the highest score down, each
    threshold is tested (the binomial test that the precision is not below the target, at
    `CERTAINTY`), and the last before the first that fails is taken. Such tests in a fixed order
    need no correction for their number (Bauer 1991; used so by Angelopoulos et al., Learn then
    Test, 2021). The first threshold tested answers as many images as are needed where up to five
    labels are wrong, but at most a quarter: it depends on their number alone.

    Args:
        scores: [n], the best score of each image, finite; n >= 1. The images must be held out.
        correct: bool [n], True where its label is right.
        target_precision: above 0, below 1.

    Returns:
        One of the scores.

    Raises:
        InputError: if no threshold passes, with the number of images that are needed.
    """
    if not 0 < target_precision <= 1:
        raise InputError(f"a target precision lies above 0 and up to 1, not {target_precision!r}")
    if not len(scores):
        raise InputError("there are no images to choose a threshold on")
    if target_precision == 1:
        raise InputError(
            "no number of images can show a precision of 1; ask for less, such as 0.99, or give a"
            " threshold"
        )
    needed = [_images_needed(wrong, target_precision) for wrong in range(_MOST_MISTAKES + 1)]
    levels, places = np.unique(scores, return_inverse=True)
    answered = np.bincount(places)[::-1].cumsum()
    right = np.bincount(places, weights=correct.astype(np.float64))[::-1].cumsum()
    levels = levels[::-1]
    first = max([count for count in needed if count <= len(scores) / 4], default=needed[0])
    passed = None
    for place in np.flatnonzero(answered >= first).tolist():
        if _chance(int(right[place]), int(answered[place]), target_precision) > 1 - CERTAINTY:
            break
        passed = float(levels[place])
    if passed is None:
        best = int(np.argmax(right / answered))
        raise InputError(
            f"no threshold can be shown to have a precision of {target_precision!r} on these"
            f" {len(scores)} images: with {CERTAINTY:.0%} certainty that takes {needed[0]} images"
            f" at the top with no label wrong, or {needed[1]} with one; the best here is"
            f" {right[best] / answered[best]:.4f} of {answered[best]}, from {levels[best]:.4f} on."
            " Ask for less, train on more images, or give a threshold"
        )
    return passed


def _images_needed(wrong: int, target: float) -> int:
    """Returns how many images, `wrong` of them labelled wrong, show a precision of `target`."""
    low, high = wrong, wrong + 1
    while _chance(high - wrong, high, target) > 1 - CERTAINTY:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        passes = _chance(middle - wrong, middle, target) <= 1 - CERTAINTY
        low, high = (low, middle) if passes else (middle, high)
    return high


def _chance(right: int, count: int, target: float) -> float:
    """Returns the probability of so many right labels or more at a precision of `target`."""
    # SciPy takes a third of a second to import, and only this rule needs it here.
    from scipy.special import bdtrc

    return float(bdtrc(right - 1, count, target)) if right else 1.0
