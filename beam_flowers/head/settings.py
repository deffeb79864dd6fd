"""Checks the settings of the training recipes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

from beam_flowers.errors import TrainingError

CLASS_WEIGHTS = ("balanced",)
"""Values of the setting `class_weights` other than None."""

_Check = tuple[Callable[[Any], bool], str]
"""A predicate and its words for an error."""


def is_whole_number(value: Any, least: int) -> bool:
    """Tells if a value is a whole number >= `least`; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _between(low: float, value: Any, high: float) -> bool:
    return isinstance(value, Real) and low <= float(value) < high


_COUNT: _Check = lambda value: is_whole_number(value, 1), "a whole number >= 1"
_PENALTY: _Check = lambda value: _between(0, value, math.inf), ">= 0 and finite"
_POSITIVE: _Check = lambda value: _between(0, value, math.inf) and value != 0, "> 0 and finite"
_SHARE: _Check = lambda value: _between(0, value, 1), ">= 0 and < 1"

_CHECKS: dict[str, _Check] = {
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
    "weight_decay": _PENALTY,
    "flip": (lambda value: isinstance(value, bool), "True or False"),
    "crop": _SHARE,
    "brightness": _SHARE,
    "label_smoothing": _SHARE,
    "class_weights": (lambda value: value in CLASS_WEIGHTS, f"one of {CLASS_WEIGHTS}"),
    "validation_batch_size": (
        lambda value: value == -1 or is_whole_number(value, 1),
        ">= 1, or -1 for all",
    ),
}


def check_settings(options: Any) -> None:
    """Checks the fields of a recipe's dataclass; a None that is the default is valid.

    Raises:
        TrainingError: names the setting, its rule and its value.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        is_valid, rule = _CHECKS[field.name]
        is_unset = value is None and field.default is None
        if not is_unset and (value is None or not is_valid(value)):
            raise TrainingError(f"{field.name} must be {rule}, got {value!r}")
