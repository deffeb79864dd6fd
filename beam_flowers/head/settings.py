"""The rules that the settings of a recipe keep, whichever recipe has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

from beam_flowers.errors import TrainingError

CLASS_WEIGHTS = ("balanced",)
"""Values of the setting `class_weights`, beside None."""

_Rule = tuple[Callable[[Any], bool], str]


def whole(value: Any, least: int) -> bool:
    """Whether a value is a whole number of at least that; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _between(low: float, value: Any, high: float) -> bool:
    return isinstance(value, Real) and low <= float(value) < high


_COUNT: _Rule = lambda value: whole(value, 1), "a whole number >= 1"
_PENALTY: _Rule = lambda value: _between(0, value, math.inf), ">= 0 and finite"
_POSITIVE: _Rule = lambda value: _between(0, value, math.inf) and value != 0, "> 0 and finite"
_SHARE: _Rule = lambda value: _between(0, value, 1), ">= 0 and < 1"

_RULES: dict[str, _Rule] = {
    "how_many_training_steps": _COUNT,
    "train_epochs": _COUNT,
    "train_batch_size": _COUNT,
    "batch_size": _COUNT,
    "eval_step_interval": _COUNT,
    "early_stopping": _COUNT,
    "hidden": _COUNT,
    "max_iterations": _COUNT,
    "tolerance": _POSITIVE,
    "learning_rate": _POSITIVE,
    "l1": _PENALTY,
    "l2": _PENALTY,
    "dropout": _SHARE,
    "momentum": _SHARE,
    "label_smoothing": _SHARE,
    "class_weights": (lambda value: value in CLASS_WEIGHTS, f"one of {CLASS_WEIGHTS}"),
    "validation_batch_size": (lambda value: value == -1 or whole(value, 1), ">= 1, or -1 for all"),
}


def check_settings(options: Any) -> None:
    """Checks the fields of a recipe's dataclass; None, where it is the default, is not checked.

    Raises:
        TrainingError: names the setting, its rule and its value.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        holds, rule = _RULES[field.name]
        if value is None and field.default is None:
            continue
        if value is None or not holds(value):
            raise TrainingError(f"{field.name} must be {rule}, got {value!r}")
