"""Reads flags from the YAML file of `--config FILE`.

The parser says which keys the file may have, so that there is no second list of flags. PyYAML is
imported only if there is a file.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_flowers.cli.beam_flags import split_flags
from beam_flowers.errors import InputError, InputFieldError

if TYPE_CHECKING:
    import yaml

BEAM = "beam"
"""Key of a command's section below which Beam's own flags stand."""

_ASIDE = "x-"
"""Begin of top-level keys that are passed over: a place for anchors."""

MOST_BYTES = 2 << 20
"""Of a file. One that names 10,000 images by paths of 200 letters has as many."""
MOST_VALUES = 20_000
"""In a file, with each alias counted as what it names."""
MOST_DEPTH = 16
"""Of lists and mappings inside of each other; flags have 4."""
MOST_LETTERS = 4_300
"""Of a value. Paths have 4,096 at most on Linux, and longer numbers Python does not print."""

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def command_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Returns the parsers of the commands by name."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def command_parser(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser | None:
    """Returns the parser of one command."""
    return command_parsers(parser).get(name)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="read flags from this YAML file, whose section of the command's name has them; flags "
        "on the command line win (`beam-flowers init` writes such a file)",
    )


class Setting(NamedTuple):
    """Holds a value of the file and its line number, from 1 on."""

    value: Any
    line: int


@dataclass(frozen=True)
class Config:
    """Holds a configuration file.

    Attributes:
        path: as the user gave it.
        sections: settings by command and key; `beam`'s value is a dict of settings.
        lines: of the sections' names.
    """

    path: str
    sections: Mapping[str, Mapping[str, Setting]]
    lines: Mapping[str, int]

    def error(self, line: int, message: str) -> InputFieldError:
        """Returns an error that names a line."""
        place = f"line {line}"
        return InputFieldError(f"{self.path}, {place}: {message}", self.path, place)


def config_named_in(arguments: Sequence[str]) -> str | None:
    """Returns the file that a command line names, before the rest of it is parsed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="?")
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    path: str | None = parser.parse_known_args(list(before))[0].config
    return path


def read_config(path: str) -> Config:
    """Reads a file.

    Raises:
        InputError: it is not there, or no YAML with a mapping of settings for each command.
    """
    from beam_flowers import files

    try:
        # No more than is looked at: it may be a pipe of the shell, or a device.
        data = files.read_bytes(files.absolute(path), MOST_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"--config {path} cannot be read: {error.strerror or error}; "
            f"`beam-flowers init --output {path}` writes one"
        ) from error
    return parse_config(data, path)


def parse_config(data: bytes, path: str = "config") -> Config:
    """Returns the settings in a file's content; raises as `read_config` does."""
    import yaml

    if len(data) > MOST_BYTES:
        raise InputFieldError(f"{path}: more than {MOST_BYTES} bytes are no configuration", path)
    try:
        _require_bounded(yaml.parse(data, yaml.SafeLoader), Config(path, {}, {}))
        loader = yaml.SafeLoader(data)
        root = loader.get_single_node()
        sections = _mapping(root, loader, Config(path, {}, {})) if root else {}
        lines = {str(k.value): k.start_mark.line + 1 for k, _ in root.value} if root else {}
        ours = {name: s for name, s in sections.items() if not name.startswith(_ASIDE)}
        return Config(path, ours, lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{place}: no YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: no YAML: {' '.join(str(error).split())}") from error


@dataclass
class _Extent:
    """Measures a value once its aliases are written out.

    Attributes:
        values: number of them.
        depth: of the deepest one.
    """

    values: int = 0
    depth: int = 0


def _require_bounded(events: Iterable[yaml.Event], config: Config) -> None:
    """Refuses a document that grows too large by aliases: 300 bytes can stand for a billion values.

    Raises:
        InputFieldError: it has too many values, is too deep, or contains itself.
    """
    import yaml

    anchors: dict[str, _Extent | None] = {}
    open_ones: list[tuple[str | None, _Extent]] = [(None, _Extent())]
    for event in events:
        if not isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
            continue
        line = event.start_mark.line + 1
        if isinstance(event, yaml.CollectionStartEvent):
            # Until its end nothing can name it.
            anchors |= {event.anchor: None} if event.anchor else {}
            open_ones.append((event.anchor, _Extent()))
            if len(open_ones) > MOST_DEPTH:
                raise config.error(line, f"more than {MOST_DEPTH} levels deep")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, extent = open_ones.pop()
        elif isinstance(event, yaml.AliasEvent):
            anchor, named = None, anchors.get(event.anchor, _Extent())
            if named is None:
                raise config.error(line, f"{event.anchor!r} would contain itself")
            extent = named
        else:
            anchor, extent = event.anchor, _Extent()
            if len(event.value) > MOST_LETTERS:
                raise config.error(line, f"more than {MOST_LETTERS} letters are no value of a flag")
        if anchor:
            anchors[anchor] = extent
        around = open_ones[-1][1]
        around.values += extent.values + 1
        around.depth = max(around.depth, extent.depth + 1)
        if around.values > MOST_VALUES or around.depth > MOST_DEPTH:
            counted = "each alias counted as what it names"
            message = f"more than {MOST_VALUES} values or {MOST_DEPTH} levels, {counted}"
            raise config.error(line, message)


def _mapping(node: yaml.Node, loader: yaml.SafeLoader, config: Config, depth: int = 0) -> Any:
    """Returns a mapping's values by key: sections at the top, settings in these."""
    import yaml

    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        what = "a section for each command" if depth == 0 else "a setting a line"
        raise config.error(line, f"here must be {what}, each `name: value`")
    _refuse_twice(node, config)
    loader.flatten_mapping(node)
    found: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        inner = depth == 0 or (depth == 1 and name == BEAM)
        if inner and not name.startswith(_ASIDE):
            empty = value.tag.endswith(":null")
            content: Any = {} if empty else _mapping(value, loader, config, depth + 1)
        else:
            content = _content(value, loader, config)
        found[name] = content if depth == 0 else Setting(content, key.start_mark.line + 1)
    return found


def _content(node: yaml.Node, loader: yaml.SafeLoader, config: Config) -> Any:
    """Returns a value of YAML. PyYAML raises errors of Python, too, for values of a wrong form."""
    try:
        return loader.construct_object(node, deep=True)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        message = f"this value cannot be read: {error}; for text, put it between quotes"
        raise config.error(node.start_mark.line + 1, message) from error


def _refuse_twice(node: yaml.MappingNode, config: Config) -> None:
    """Refuses a key that occurs twice, or is a list or mapping as `{{ name }}` of a template."""
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key.value, str):
            raise config.error(line, "a name must be text, not a list or a mapping")
        if key.value in seen and key.value != "<<":
            first = seen[key.value]
            raise config.error(line, f"{key.value!r} stands here and in line {first}; keep one")
        seen[key.value] = line


def keys_of(command: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Returns the keys that a section of a command may set: flags without `--`, and arguments."""
    found = {}
    for action in command._actions:
        names = [name[2:] for name in action.option_strings if name.startswith("--")]
        for name in names or [action.dest]:
            found[name.replace("_", "-")] = action
    return {name: found[name] for name in found if name not in ("help", "config")}


def check_sections(config: Config, commands: Mapping[str, argparse.ArgumentParser]) -> None:
    """Raises InputError for what no command knows, and for values of another type."""
    for name in config.sections:
        if name not in commands:
            hint = _hint(name, commands) or f"commands are {', '.join(commands)}"
            raise config.error(config.lines[name], f"there is no command {name!r}; {hint}")
        values_of(config, name, commands[name])


def values_of(
    config: Config, name: str, command: argparse.ArgumentParser
) -> dict[str, tuple[argparse.Action, Any]]:
    """Returns the settings of one command by key, as the parser has them; null is left out.

    Raises:
        InputError: there is no such flag, or its value is of another type.
    """
    known, found = keys_of(command), {}
    for key, (value, line) in config.sections.get(name, {}).items():
        action = known.get(key.replace("_", "-"))
        if key == BEAM or (action and value is None):
            continue
        if action is None:
            rest = f"`beam-flowers {name} --help` lists them; those of Beam stand below `{BEAM}:`"
            raise config.error(line, f"{name} has no flag {key!r}; {_hint(key, known) or rest}")
        try:
            found[key] = (action, _fitted(action, value))
        except ValueError as error:
            raise config.error(line, f"{key} of {name} must be {error}") from error
    return found


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.replace("_", "-"), list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _fitted(action: argparse.Action, value: Any) -> Any:
    """Returns a value as argparse gives it; ValueError says the form that it must have."""
    if action.nargs == 0:
        return _of_kind(bool, value)
    several = action.nargs in ("*", "+") or isinstance(action, argparse._AppendAction)
    if several:
        return [_single(action, each) for each in (value if isinstance(value, list) else [value])]
    return _single(action, value)


def _single(action: argparse.Action, value: Any) -> Any:
    kind = action.type if action.type in (int, float) else str
    value = _of_kind(kind, value)
    if action.choices and value not in action.choices:
        hint = _hint(str(value), map(str, action.choices))
        among = ", ".join(map(str, action.choices))
        raise ValueError(f"one of {among}, not {value!r}" + (f"; {hint}" if hint else ""))
    return value


def _of_kind(kind: Any, value: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is kind:
        return value
    quotes = f": put it between quotes, '{value}'" if kind is str and _is_scalar(value) else ""
    raise ValueError(f"{_NAMES[kind]}, not {value!r}{quotes}")


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, list | dict)


def given_flags(arguments: Sequence[str]) -> set[str]:
    """Returns the flags of a command line, without values."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return {word.partition("=")[0] for word in before if word.startswith("--")}


def set_defaults(
    config: Config, name: str, command: argparse.ArgumentParser, given: Collection[str]
) -> None:
    """Makes the settings of a command its parser's defaults, but for flags that are given."""
    for action, value in values_of(config, name, command).values():
        if not set(action.option_strings) & set(given):
            action.default = value
            action.required = False
            if not action.option_strings and action.nargs in (None, "+"):
                action.nargs = "*" if action.nargs else "?"


def beam_flags(
    config: Config, name: str, command: argparse.ArgumentParser, given: Sequence[str]
) -> list[str]:
    """Returns Beam's flags as `--name=value`: those of the section, then those `given`, which win.

    Raises:
        InputError: one is a flag of ours, or like one of Beam's misspelt.
    """
    section = config.sections.get(name, {}).get(BEAM)
    taken, found = given_flags(given), []
    for key, (value, line) in (section.value if section else {}).items():
        try:
            split = split_flags(_words(key, value), command)
        except InputError as error:
            raise config.error(line, f"{BEAM}: {error}") from error
        if split.ours:
            raise config.error(line, f"{key!r} is a flag of {name}, not of Beam; move it up")
        found += [flag for flag in split.beams if flag.partition("=")[0] not in taken]
    return [*found, *given]


def _words(key: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{key}"]
    return [f"--{key}={each}" for each in (value if isinstance(value, list) else [value])]
