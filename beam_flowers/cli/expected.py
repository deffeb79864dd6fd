"""Refuses images where a store is asked for, a store where a model is, and so on, before a run."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from beam_flowers.errors import InputError

STORE, MODEL, SCORES, IMAGES, OUTPUT = "store", "model", "scores", "images", "output"

EXPECTED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "doctor": {"images": (IMAGES,)},
    "embed": {"images": (IMAGES,), "store": (OUTPUT,)},
    "train": {"store": (STORE,), "warm_start": (MODEL,)},
    "evaluate": {"store": (STORE,), "model": (MODEL,)},
    "score": {"images": (IMAGES, STORE), "model": (MODEL,), "store": (OUTPUT,)},
    "classify": {"images": (IMAGES,), "model": (MODEL,)},
    "report": {"source": (MODEL, STORE, SCORES), "store": (STORE,)},
    "review": {"source": (STORE, SCORES)},
    "export": {"model": (MODEL, STORE), "store": (STORE,), "scores": (SCORES,)},
    "check": {"images": (IMAGES,), "store": (OUTPUT,)},
    "vacuum": {"store": (STORE, SCORES)},
    "forget": {"store": (STORE,)},
    "fsck": {"table": (STORE, SCORES)},
    "history": {"table": (STORE, SCORES)},
    "restore": {"table": (STORE, SCORES)},
    "import-bottlenecks": {"images": (IMAGES,), "store": (OUTPUT,)},
}
"""Command → argument → the things that it may name; `OUTPUT` is a store that need not exist."""

_OF_A_STORE = ("projector", "fiftyone")
"""Formats that `export` writes of a store."""

_EMBED = "beam-flowers embed {path} --store STORE"
_ADVICE = {
    (STORE, IMAGES): f"First: {_EMBED}",
    (STORE, MODEL): "Name the feature store, the folder that `embed` wrote",
    (STORE, SCORES): "Name the feature store that it was made from",
    (MODEL, IMAGES): f"First: {_EMBED}, then: beam-flowers train STORE --model MODEL",
    (MODEL, STORE): "First: beam-flowers train {path} --model MODEL",
    (MODEL, SCORES): "Name the model, the folder that `train` wrote",
    (SCORES, IMAGES): "First: beam-flowers score {path} --model MODEL --output SCORES.csv",
    (SCORES, STORE): "First: beam-flowers score {path} --model MODEL --output SCORES.csv",
    (SCORES, MODEL): "Name a table that `score` wrote",
    (IMAGES, STORE): "Name the images that it was made from",
    (IMAGES, MODEL): "Name a folder of images",
    (IMAGES, SCORES): "Name a folder of images",
    (OUTPUT, IMAGES): "Name another folder for the store",
    (OUTPUT, MODEL): "Name another folder for the store",
    (OUTPUT, SCORES): "Name another folder for the store",
}
"""Advice, by the kind of thing that a command takes and the kind that was named."""


def require_expected(command: str, arguments: argparse.Namespace) -> None:
    """Refuses arguments that name another thing than the command takes.

    Only what lies on this machine is looked at: on servers each look is a request.

    Raises:
        InputError: one of them does; the message names both things and the next step.
    """
    wrong = []
    expected = dict(EXPECTED.get(command, {}))
    if command == "export":
        expected["model"] = (STORE,) if arguments.to in _OF_A_STORE else (MODEL,)
    for name, wanted in expected.items():
        given = getattr(arguments, name, None) or []
        for path in [given] if isinstance(given, str) else given:
            if misfit := _misfit(path, wanted):
                wrong.append(misfit)
    if not wrong:
        return
    first, last = wrong[0], wrong[-1]
    if len(wrong) == 2 and first.found in last.wanted and last.found in first.wanted:
        raise InputError(
            f"{first.path!r} is {first.words} and {last.path!r} is {last.words}: exchange the two"
        )
    advice = _ADVICE[first.wanted[0], first.found].format(path=shlex.quote(first.path))
    raise InputError(f"{first.path!r} is {first.words}. {advice}")


class _Misfit(NamedTuple):
    """An argument that names another thing than is asked for, as a word and in words."""

    path: str
    wanted: Sequence[str]
    found: str
    words: str


def _misfit(path: str, wanted: Sequence[str]) -> _Misfit | None:
    """Returns the misfit of a path that is another thing than those `wanted`, else None."""
    from beam_flowers import files
    from beam_flowers.store.names import COMMITS

    place = files.absolute(path)
    if not files.is_local(place) or not os.path.exists(place):
        return None
    # What most users name right is seen without a further import.
    is_table = os.path.isdir(os.path.join(place, COMMITS))
    has_model = os.path.isfile(os.path.join(place, "model.json"))
    if (wanted[0] == MODEL and has_model) or (wanted[0] == IMAGES and not (is_table or has_model)):
        return None
    from beam_flowers.scoring import recognise

    words = recognise.recognise(place)
    found = {
        recognise.STORE: STORE,
        recognise.MODEL: MODEL,
        recognise.SCORES: SCORES,
        recognise.FOLDER: IMAGES,
        recognise.IMAGE: IMAGES,
        recognise.LIST: IMAGES,
    }.get(words or "")
    is_fit = found in wanted or (OUTPUT in wanted and found == STORE)
    # A table that a user has edited is known by its reader alone.
    is_fit = is_fit or (words == recognise.LIST and SCORES in wanted)
    return None if is_fit or not words or not found else _Misfit(path, wanted, found, words)
