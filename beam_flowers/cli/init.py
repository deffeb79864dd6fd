"""Writes a configuration file with every flag, made from the parser."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Iterable, Iterator, Mapping

from beam_flowers.cli.config import BEAM, command_parsers, keys_of
from beam_flowers.cli.shared_flags import add_overwrite, writing
from beam_flowers.errors import InputError

_FILE = "beam-flowers.yaml"
_COLUMNS = 100

_HEADER = """\
# Flags for `beam-flowers COMMAND --config {path}`, a section for each command. Take the `#` away
# from what you want to set; what stays behind one has its default. A list is [a, b]. Flags on the
# command line win over this file. Relative paths are relative to the folder that you start in.
"""

_BEAM = """\
  # Beam's own flags, each `name: value`: runner, temp_location, options of file systems, ...
  #{key}:
  #  runner: FnApiRunner
"""

_NO_PIPELINE = {"init", "completion"}

EXAMPLE = "beam-flowers init embed score"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers init`."""
    parser.epilog = (
        "Writes FILE: a section for each command, with all flags as comments, their defaults and\n"
        "what `--help` says of them. Reads nothing, measures no accuracy. Replaces no\n"
        "file unless with --overwrite."
    )
    parser.add_argument(
        "commands", metavar="COMMAND", nargs="*", help="commands to have in it (default: all)"
    )
    parser.add_argument("--output", metavar="FILE", default=_FILE, help=f"(default ./{_FILE})")
    add_overwrite(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers init`."""
    from beam_flowers import files
    from beam_flowers.cli.beam_flags import require_no_pipeline
    from beam_flowers.images.outputs import require_ending

    require_no_pipeline("init", beams)
    parsers = command_parsers(arguments.make_parser())
    chosen = arguments.commands or [name for name in parsers if name not in _NO_PIPELINE]
    if unknown := [name for name in chosen if name not in parsers]:
        raise InputError(f"there is no command {unknown[0]!r}; choose of {', '.join(parsers)}")
    path = arguments.output
    require_ending(path, (".yaml", ".yml"), "a configuration file")
    # It is edited by hand: also one that this command wrote is replaced with the flag only.
    writing(arguments).check_file(path, "a new configuration file")
    text = template({name: parsers[name] for name in chosen}, path)
    target = files.absolute(path)
    files.write_atomic(target, text.encode())
    if files.is_local(target):
        # Who sets Beam's flags in it may write passwords there.
        os.chmod(target, 0o600)
    print(f"written: {path} ({', '.join(chosen)})")
    print(f"next: edit it, then beam-flowers {chosen[0]} --config {path}")
    return 0


def template(commands: Mapping[str, argparse.ArgumentParser], path: str = _FILE) -> str:
    """Returns the file's text, in which each setting is a comment."""
    parts = [_HEADER.format(path=path)]
    parts += ["".join(_section(name, command)) for name, command in commands.items()]
    return "\n".join(parts)


def _section(name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    yield f"# {command.description}\n{name}:\n"
    keys: dict[argparse.Action, list[str]] = {}
    for key, action in keys_of(command).items():
        keys.setdefault(action, []).append(key)
    for action, names in keys.items():
        yield from (f"  # {line}\n" for line in _help(action, names[1:]))
        yield f"  #{names[0]}: {_as_yaml(action)}".rstrip() + "\n"
    yield _BEAM.format(key=BEAM)


def _help(action: argparse.Action, others: Iterable[str]) -> list[str]:
    words = [(action.help or "").replace("%%", "%")]
    if action.choices:
        words.append(f"one of {', '.join(map(str, action.choices))}")
    if action.required and action.nargs != "*":
        words.append("must be given, here or on the command line")
    words += [f"also called {other}" for other in others]
    return textwrap.wrap("; ".join(words), _COLUMNS - 4, break_on_hyphens=False)


def _as_yaml(action: argparse.Action) -> str:
    """Returns the default in the form of the file, or an empty text."""
    import yaml

    default = False if action.nargs == 0 and action.default is None else action.default
    if default is None:
        return ""
    return yaml.safe_dump(default, default_flow_style=True).removesuffix("\n...\n").strip()
