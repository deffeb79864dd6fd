"""Flags that say with which models, and by which rule, images are labelled."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from beam_flowers.cli.shared_flags import backbone_of, in_precision, resolve_backbone, warn
from beam_flowers.errors import InputError, ModelError

if TYPE_CHECKING:
    from beam_flowers.backbones.resolve import ResolvedBackbone
    from beam_flowers.head.bundle import Bundle
    from beam_flowers.scoring.decision import AcceptanceRule


def add_models(parser: argparse.ArgumentParser) -> None:
    """Adds `--model` and the flags of `AcceptanceRule`."""
    parser.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="FOLDER",
        help="folder of the model; several times for several models of one backbone, which is run "
        "once: then there is a row for each model",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="X",
        help="say `unknown` where the best score is below X, 0 to 1. Of a model with several "
        "labels an image: give each label from X on",
    )
    parser.add_argument(
        "--min-margin",
        type=float,
        metavar="X",
        help="say `unknown` where the best score exceeds the second by less than X, 0 to 1",
    )
    parser.add_argument(
        "--target-precision",
        type=float,
        metavar="P",
        help="choose a threshold from which on the share P of the labels is right, nine times of "
        "ten on other images, by the model's held-out ones",
    )


def rule_of(arguments: argparse.Namespace) -> AcceptanceRule:
    """Returns the rule, from `add_models`' flags."""
    from beam_flowers.scoring.decision import AcceptanceRule

    return AcceptanceRule(arguments.threshold, arguments.min_margin, arguments.target_precision)


def read_models(arguments: argparse.Namespace) -> dict[str, Bundle]:
    """Returns the models by their folders; prints the thresholds that were chosen for them."""
    from beam_flowers import files
    from beam_flowers.head.bundle import read_bundle
    from beam_flowers.scoring.ranking import make_labellers

    bundles = {name: read_bundle(files.absolute(name)) for name in arguments.model}
    if len(bundles) < len(arguments.model):
        raise InputError("--model names a folder twice")
    rule = rule_of(arguments)
    make_labellers(list(bundles.values()), rule)
    for name, bundle in bundles.items():
        if point := rule.thresholds_for(bundle).operating_point:
            print(f"{name}: {point}")
    return bundles


def backbones_of(bundle: Bundle, arguments: argparse.Namespace) -> list[ResolvedBackbone]:
    """Finds the backbone that a model was trained on, or those that it takes side by side."""
    from beam_flowers.backbones.catalogue import require_in_catalogue
    from beam_flowers.head.backbones import recipes_of_model

    if len(bundle.fingerprints) == 1:
        return [backbone_of(bundle, arguments)]
    of_one = [
        "backbone_path",
        "backbone_sha256",
        "pixel_range",
        "backbone_config",
        "backbone_output",
        "input_size",
    ]
    if any(getattr(arguments, name) for name in of_one):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in of_one)
        raise InputError(
            f"the model takes the vectors of {bundle.backbone} side by side: {flags} "
            "are of one backbone; put the weights where "
            "`beam-flowers backbones` looks for them, or embed with each and score the store"
        )
    names = bundle.backbone.split("+")
    if len(names) != len(bundle.fingerprints):
        raise ModelError(f"the names in {bundle.backbone!r} are ambiguous; score a store")
    cure = "Embed the images with each network, by `embed --backbone`, and score the store"
    for name in names:
        require_in_catalogue(name, "the model", cure)
    known = recipes_of_model(bundle)
    return [
        in_precision(resolve_backbone(arguments, name, known).in_form(fingerprint), arguments)
        for name, fingerprint in zip(names, bundle.fingerprints, strict=True)
    ]


def fitted(
    bundles: Sequence[Bundle], networks: Sequence[ResolvedBackbone], arguments: argparse.Namespace
) -> list[Bundle]:
    """Returns the models, which take the vectors of a precision that is not theirs if asked for.

    Such a model has an id of its own, as its labels may differ.
    """
    wanted = "+".join(network.fingerprint for network in networks)
    if not arguments.precision or all(bundle.fingerprint == wanted for bundle in bundles):
        return list(bundles)
    warn(
        f"the models were trained on vectors of another precision than {arguments.precision}; "
        "nothing says how well they label these"
    )
    return [replace(bundle, fingerprint=wanted) for bundle in bundles]
