"""Prints scripts by which shells complete commands, flags, choices and files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

_SHELLS = ("bash", "zsh", "fish")

_EPILOG = """\
Writes a script to standard output that completes commands, flags, the values of flags that have
choices, names of backbones, and files. Reads nothing, measures no accuracy. Set up once:

  bash: beam-flowers completion bash > ~/.local/share/bash-completion/completions/beam-flowers
        (with the package bash-completion; without it: source that file in ~/.bashrc)
  zsh:  beam-flowers completion zsh > FOLDER/_beam-flowers, FOLDER being one of $fpath
  fish: beam-flowers completion fish > ~/.config/fish/completions/beam-flowers.fish"""

EXAMPLE = "beam-flowers completion bash"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers completion`."""
    parser.epilog = _EPILOG
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers completion`."""
    from beam_flowers.cli.beam_flags import require_no_pipeline

    require_no_pipeline("completion", beams)
    print(script(arguments.shell, arguments.make_parser()))
    return 0


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Returns the script for one of bash, zsh and fish, made from the parser of all commands.

    shtab writes it once, so that a press of the tabulator starts no Python.
    """
    import shtab

    from beam_flowers.backbones.catalogue import CATALOGUE
    from beam_flowers.cli.config import command_parsers

    names = [row.name for row in CATALOGUE]
    commands = command_parsers(parser)
    for action in (action for command in commands.values() for action in command._actions):
        if action.metavar == "COMMAND":
            action.choices = list(commands)
        elif action.dest == "backbone":
            setattr(action, "complete", _names_or_files(names))  # noqa: B010
        elif action.type is None and action.nargs != 0 and not action.choices:
            setattr(action, "complete", shtab.FILE)  # noqa: B010
    return shtab.complete(parser, shell)


def _names_or_files(names: Sequence[str]) -> dict[str, Any]:
    """Returns what shtab takes as an action's `complete`: these names, and all files."""
    words, function = " ".join(names), "_beam_flowers_backbones"
    return {
        "bash": function,
        "zsh": function,
        "fish": f"(printf '%s\\n' {words}; __fish_complete_path (commandline -ct))",
        "preamble": {
            "bash": f'{function}() {{ compgen -W "{words}" -- "$1"; compgen -f -- "$1"; }}',
            "zsh": f"{function}() {{ compadd -- {words}; _files; }}",
        },
    }
