"""Adds and reads the flags of `embed --augment`."""

from __future__ import annotations

import argparse
from typing import Any

from beam_flowers.cli.contrib import contrib
from beam_flowers.errors import InputError

HELP = """\
--augment K stores K distorted copies of every labelled image in STORE/__augmented, apart from
the rows of the images, where `train --augmented` finds them. Copies follow from an image's
content and their number: what is there is not computed again. --augment alone means
--flip-left-right --random-crop 30 --random-scale 30 --random-brightness 30; with any such flag
it means exactly the distortions named. Another choice replaces the copies."""

_RANGES = {
    "random-crop": "percent: show part of an image, anywhere (retrain.py)",
    "random-scale": "percent: show it so much larger at most (retrain.py)",
    "random-brightness": "percent: darker or brighter by so much at most (retrain.py)",
    "rotation-range": "degrees: turn it by so much at most (Keras, as all that follow)",
    "width-shift-range": "share of the width, 0 to 1: move it sideways",
    "height-shift-range": "share of the height, 0 to 1: move it up or down",
    "shear-range": "degrees: shear it",
    "zoom-range": "share, 0 to 0.9: scale each side by 1 - ZOOM to 1 + ZOOM",
}


def add_augment(parser: argparse.ArgumentParser) -> None:
    """Adds `--augment` and the distortions."""
    parser.add_argument(
        "--augment", type=int, metavar="K", help="distorted copies of every labelled image"
    )
    parser.add_argument(
        "--flip-left-right",
        "--horizontal-flip",
        dest="flip_left_right",
        action="store_true",
        help="distortion: mirror every other copy (retrain.py, Keras)",
    )
    for name, text in _RANGES.items():
        parser.add_argument(f"--{name}", type=float, help=f"distortion in {text}")


def augmentation(arguments: argparse.Namespace) -> Any:
    """Returns the `Augmentation` asked for, or None.

    Raises:
        InputError: there are distortions and no copies.
    """
    names = ["flip_left_right", *(name.replace("-", "_") for name in _RANGES)]
    values = {name: getattr(arguments, name) for name in names}
    # A 0 that was given is not the same as none: it takes the place of the defaults.
    given = {n: value for n, value in values.items() if value is not None and value is not False}
    if arguments.augment is None:
        if given:
            flag = "--" + next(iter(given)).replace("_", "-")
            raise InputError(f"{flag} distorts copies, and there are none; add --augment K")
        return None
    distort = contrib("augment.distort")
    if not given:
        return distort.Augmentation(arguments.augment)
    return distort.Augmentation(arguments.augment, distort.Distortions(**given))
