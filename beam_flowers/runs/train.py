"""`train`: a store's labelled vectors → a model bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from beam_flowers import files
from beam_flowers.head.bundle import Bundle, write_bundle
from beam_flowers.head.softmax import Step
from beam_flowers.head.split import SplitOptions
from beam_flowers.head.train import Examples, Recipe, TrainResult, describe_recipe, train
from beam_flowers.store.features import read_features

_PACKAGES = ("beam-flowers", "numpy", "scipy", "tensorflow", "pillow")


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        model_id: of the bundle written.
        bundle: what was written.
        result: head, metrics by split, warnings.
    """

    model_id: str
    bundle: Bundle
    result: TrainResult


def train_model(
    store: str,
    model: str,
    recipe: Recipe,
    split: SplitOptions,
    backbone: str | None = None,
    seed: int = 0,
    report: Callable[[Step], None] | None = None,
) -> Trained:
    """Trains a head on the newest version of `store` and writes the bundle to folder `model`.

    Args:
        store: folder of the store.
        model: folder of the bundle; an older bundle there is replaced.
        recipe: `LbfgsOptions` or `RetrainOptions`.
        split: rule and percentages.
        backbone: whose vectors; may be left out where the store has one backbone.
        seed: of the split and the training.
        report: takes the steps as they come.

    Raises:
        StoreError: if the store cannot be read or the backbone has to be named.
        TrainingError: if no head can be trained on it.
    """
    section, features = read_features(files.absolute(store), backbone)
    result = train(Examples(**vars(features)), recipe, split, seed=seed, report=report)
    about = section.about
    bundle = Bundle(
        head=result.head,
        labels=result.labels,
        backbone=str(about["name"]),
        fingerprint=section.fingerprint,
        pixels=about.get("pixels", {}),
        recipe=describe_recipe(recipe),
        split=asdict(split),
        seed=seed,
        dataset_hash=section.dataset_hash,
        metrics={name: asdict(metrics) for name, metrics in result.metrics.items()},
        versions=versions(),
    )
    return Trained(write_bundle(files.absolute(model), bundle), bundle, result)


def versions() -> dict[str, str]:
    """Versions of the packages that a model depends on, where they are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
