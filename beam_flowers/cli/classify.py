"""Prints the labels of a few images, best first."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import TYPE_CHECKING

from beam_flowers.cli.model_flags import add_models, backbones_of, fitted, read_models, rule_of
from beam_flowers.cli.progress import add_progress, shown
from beam_flowers.cli.shared_flags import (
    add_limits,
    add_top_k,
    add_weights,
    limits_of,
    table_line,
    warn,
)
from beam_flowers.errors import InputError

if TYPE_CHECKING:
    from beam_flowers.records import Score
    from beam_flowers.scoring.decision import Thresholds

EXAMPLE = "beam-flowers classify one.jpg --model model"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers classify`."""
    parser.epilog = (
        "Reads the images and MODEL, prints the labels best first, writes nothing. Where labels "
        "may be\n`unknown`, what is given stands in brackets before them. A score is the softmax\n"
        "probability of a label, not an accuracy: `train` measures that."
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="an image file")
    add_models(parser)
    add_top_k(parser)
    add_weights(parser)
    add_limits(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers classify`."""
    _require_images(arguments)
    from beam_flowers.backbones.decoders import warm_up

    # It starts beside the imports below.
    warm_up()
    from beam_flowers.head.bundle import model_id
    from beam_flowers.records import Reject
    from beam_flowers.workflows.classify import classify_images

    models, rule = read_models(arguments), rule_of(arguments)
    networks = backbones_of(next(iter(models.values())), arguments)
    bundles = fitted(list(models.values()), networks, arguments)
    models = dict(zip(models, bundles, strict=True))
    known = {
        model_id(bundle): (name, rule.thresholds_for(bundle)) for name, bundle in models.items()
    }
    with shown(arguments.progress) as progress:
        results = classify_images(
            arguments.images,
            bundles,
            networks,
            arguments.top_k,
            rule,
            limits_of(arguments),
            progress,
        )
    for name, result in zip(arguments.images, results, strict=True):
        if isinstance(result, Reject):
            warn(f"{name}: {result.message}")
            continue
        for score in result:
            model, thresholds = known[score.model_id]
            print(_line(name if len(models) == 1 else f"{name}  {model}", score, thresholds))
    return int(any(isinstance(result, Reject) for result in results))


def _require_images(arguments: argparse.Namespace) -> None:
    """Raises InputError for images that are not there, before a network is loaded."""
    from beam_flowers import files

    local = [name for name in arguments.images if files.is_local(files.absolute(name))]
    local = [name for name in local if not files.is_member(name)]
    for name in local:
        if os.path.isdir(files.absolute(name)):
            model = shlex.quote(arguments.model[0])
            raise InputError(
                f"{name!r} is a folder. Its images get labels by: beam-flowers score "
                f"{shlex.quote(name)} --model {model} --output labels.csv"
            )
    if missing := [name for name in local if not os.path.lexists(files.absolute(name))]:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        verb = "are" if len(missing) > 1 else "is"
        raise InputError(f"{missing[0]!r}{more} {verb} not there; check the spelling, the folder")


def _line(name: str, score: Score, thresholds: Thresholds) -> str:
    if thresholds.may_be_unknown:
        name = f"{name}  [{', '.join(score.labels) or score.label}]"
    return table_line(name, score.top_k)
