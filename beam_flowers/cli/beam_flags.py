"""Tells our flags from those of Beam."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from beam_flowers.errors import InputError
from beam_flowers.files.text import without_secrets

_SECRET = ("secret", "token", "passw", "key", "credential", "connection_string", "sas")
_NEGATIVE = re.compile(r"-[\d.]")


class Split(NamedTuple):
    """Holds the two parts of a command line.

    Attributes:
        ours: arguments for our own parser, flags written with `-`.
        beams: flags for Beam, each `--name=value` or `--name`.
    """

    ours: list[str]
    beams: list[str]


def split_flags(arguments: Sequence[str], parser: argparse.ArgumentParser) -> Split:
    """Sorts `arguments` by whose they are; `-` and `_` in a flag are the same.

    Raises:
        InputError: for a flag that looks like one of ours misspelt, or that is nobody's and
            leaves open whether the next argument belongs to it.
    """
    own = {name: action for action in parser._actions for name in action.option_strings}
    split = Split([], [])
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            split.ours.extend([argument, *rest])
            break
        name, equals, value = argument.partition("=")
        dashed = "--" + name[2:].replace("_", "-")
        if not name.startswith("--"):
            split.ours.append(argument)
        elif dashed in own:
            # argparse would take `-1,1` for a flag.
            if not equals and own[dashed].nargs is None and rest and _NEGATIVE.match(rest[0]):
                equals, value = "=", rest.pop(0)
            split.ours.append(dashed + equals + value)
        else:
            split.beams.append(_beam_flag(name, equals + value, rest, own))
    return split


def _beam_flag(name: str, value: str, rest: list[str], own: Iterable[str]) -> str:
    # Importing Beam takes seconds: only when an unknown flag is there.
    from beam_flowers.transforms.options import beam_actions

    known = beam_actions()
    underscored = "--" + name[2:].replace("-", "_")
    action = known.get(underscored, known.get(name))
    if action is None:
        # The stricter one first: --runer is nearer to --runner than to --prune.
        _refuse_misspelt(underscored, known, 0.9)
        _refuse_misspelt(name, own, 0.8)
        if not value and rest and not rest[0].startswith("-"):
            raise InputError(
                f"unknown flag {name!r}: to hand it to Beam's runner, write {name}=VALUE"
            )
        return name + value
    flag = underscored if underscored in known else name
    if not value and action.nargs != 0 and rest:
        value = "=" + rest.pop(0)
    return flag + value


def require_no_pipeline(command: str, beams: Sequence[str]) -> None:
    """Raises InputError for flags of a runner where none runs; those of file systems may stay."""
    if not beams:
        return
    from beam_flowers.transforms.options import file_system_actions

    known = file_system_actions()
    wrong = [flag for flag in beams if flag.partition("=")[0] not in known]
    if wrong:
        raise InputError(
            f"{command} runs no pipeline; leave out {' '.join(map(without_secret, wrong))}"
        )


def without_secret(flag: str) -> str:
    """Returns a flag without the value of a secret, token, key or password."""
    name, equals, _ = flag.partition("=")
    hidden = any(word in name for word in _SECRET)
    return f"{name}=..." if equals and hidden else without_secrets(flag)


def _refuse_misspelt(name: str, known: Iterable[str], cutoff: float) -> None:
    dashed = {flag.replace("_", "-"): flag for flag in known}
    close = difflib.get_close_matches(name.replace("_", "-"), dashed, n=1, cutoff=cutoff)
    if close:
        raise InputError(f"unknown flag {name!r}; did you mean {dashed[close[0]]}?")
