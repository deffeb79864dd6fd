"""Selects training recipes by name, and trains heads by them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from beam_flowers.errors import ModelError, TrainingError
from beam_flowers.head.image_classifier import ImageClassifierOptions, train_image_classifier
from beam_flowers.head.lbfgs import LbfgsOptions, train_lbfgs
from beam_flowers.head.retrain import RetrainOptions, train_retrain
from beam_flowers.head.softmax import Head, Sample, TrainingStep

Recipe = LbfgsOptions | RetrainOptions | ImageClassifierOptions
RecipeType = type[LbfgsOptions] | type[RetrainOptions] | type[ImageClassifierOptions]

RECIPES: Mapping[str, RecipeType] = {
    "lbfgs": LbfgsOptions,
    "retrain": RetrainOptions,
    "image-classifier": ImageClassifierOptions,
}


def recipe(name: str, **settings: Any) -> Recipe:
    """Makes the options of a recipe by its name; settings of None keep the default.

    Raises:
        TrainingError: for an unknown recipe, or a setting that it does not take.
    """
    if name not in RECIPES:
        raise TrainingError(f"unknown recipe {name!r}; choose one of {sorted(RECIPES)}")
    chosen = {key: value for key, value in settings.items() if value is not None}
    settings_of = {r: {field.name for field in fields(RECIPES[r])} for r in sorted(RECIPES)}
    for key in chosen:
        takers = [r for r, names in settings_of.items() if key in names]
        if name not in takers:
            others = ", ".join(takers) or "none"
            raise TrainingError(
                f"the recipe {name!r} does not take {key!r}; those that do: {others}"
            )
    return RECIPES[name](**chosen)


def for_classes(options: Recipe, classes: int, *, multi_label: bool = False) -> Recipe:
    """Returns the recipe with the settings that follow from the number of classes filled in."""
    if isinstance(options, LbfgsOptions):
        return options.for_classes(classes, multi_label=multi_label)
    return options


def describe_recipe(options: Recipe) -> dict[str, Any]:
    """Returns the recipe's name and settings as JSON, as the model bundle keeps them."""
    name = next(name for name, recipe in RECIPES.items() if isinstance(options, recipe))
    return {"name": name, **asdict(options)}


def steps_of(options: Recipe) -> int | None:
    """Returns the most steps or epochs that a recipe takes; None for L-BFGS, which ends itself."""
    if isinstance(options, LbfgsOptions):
        return None
    if isinstance(options, RetrainOptions):
        return options.how_many_training_steps
    return options.train_epochs


def hidden_of(options: Recipe) -> int | None:
    """Returns the width of the hidden layer that a recipe trains, or None."""
    return None if isinstance(options, LbfgsOptions) else options.hidden


def early_stopping_of(options: Recipe) -> int | None:
    """Returns the number of reports without a gain after which a recipe stops, or None."""
    return None if isinstance(options, LbfgsOptions) else options.early_stopping


def train_head(
    training: Sample,
    classes: int,
    options: Recipe,
    *,
    seed: int = 0,
    validation: Sample | None = None,
    report: Callable[[TrainingStep], None] | None = None,
    start: Head | None = None,
) -> Head:
    """Trains a head by the recipe that the options belong to; L-BFGS needs no seed.

    Raises:
        TrainingError: if the numbers overflowed.
    """
    common: dict[str, Any] = {"validation": validation, "report": report, "start": start}
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(options, LbfgsOptions):
            head = train_lbfgs(training, classes, options, **common)
        elif isinstance(options, RetrainOptions):
            head = train_retrain(training, classes, options, seed=seed, **common)
        else:
            head = train_image_classifier(training, classes, options, seed=seed, **common)
    if not all(np.isfinite(array).all() for array in head.parameters.values()):
        raise TrainingError(f"the training diverged with {options!r}; use a lower learning rate")
    return head


def warm_start(
    old: Head, old_labels: tuple[str, ...], labels: tuple[str, ...], *, hidden: int | None
) -> Head:
    """Returns an older head with its classes in the order of `labels`; new ones start at zero.

    Args:
        old: the head to begin from.
        old_labels: its labels, in class order.
        labels: the labels to train, in class order.
        hidden: width of the hidden layer to train, or None.

    Raises:
        ModelError: if they have no label in common, or another hidden layer.
    """
    common = set(old_labels) & set(labels)
    if not common:
        raise ModelError(
            f"the model to start from has the labels {list(old_labels)!r}, none of which is among"
            f" {list(labels)!r}; leave out the warm start"
        )
    width = None if old.hidden_weights is None else old.hidden_weights.shape[1]
    if width != hidden:
        raise ModelError(
            f"the model to start from has {_layer(width)}, but {_layer(hidden)} is to be trained;"
            " use the same recipe with the same hidden layer"
        )
    sources = [old_labels.index(label) if label in common else -1 for label in labels]
    is_old = np.array(sources) >= 0
    weights, bias = (array[..., sources] * is_old for array in (old.weights, old.bias))
    return replace(old, weights=weights, bias=bias, temperature=1.0)


def _layer(width: int | None) -> str:
    return "no hidden layer" if width is None else f"a hidden layer of {width}"
