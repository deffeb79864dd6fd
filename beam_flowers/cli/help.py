"""Lays out help, and says in two lines what is wrong with a command line."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import NoReturn

from beam_flowers.cli.screen import visible

COMMAND_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Label images", ("demo", "doctor", "embed", "review", "train", "score", "classify")),
    ("Look at the result", ("evaluate", "report")),
    ("Share it", ("export", "import-bottlenecks")),
    ("Keep a store in order", ("history", "restore", "forget", "vacuum", "fsck")),
    ("Use a cluster, set up", ("check", "backbones", "init", "completion")),
)
"""Titles with the commands below them."""

_LOG = ("verbose", "log_file", "config")
_FLAG_GROUPS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("split", ("train",), "split retrain_image_dir validation_percentage testing_percentage"),
    ("regularisation", (), "l1 l2 dropout label_smoothing class_weights"),
    (
        "steps of the recipes retrain and image-classifier",
        (),
        "how_many_training_steps train_batch_size eval_step_interval validation_batch_size "
        "train_epochs batch_size momentum learning_rate hidden early_stopping",
    ),
    ("choice by cross-validation", ("train",), "sweep sweep_l1 folds"),
    ("labels, copies, records", ("train",), "label_separator augmented summaries_dir"),
    ("fine-tuning", (), "fine_tune fine_tuned flip"),
    ("the table", (), "csv separate_columns partition_by copy_to"),
    ("the page", (), "thumbnails map_points folds"),
    ("the store", (), "vectors encoding max_removed_fraction"),
    (
        "distorted copies",
        (),
        "flip_left_right random_crop random_scale random_brightness rotation_range "
        "width_shift_range height_shift_range shear_range zoom_range",
    ),
    (
        "the network",
        (),
        "backbone_path backbone_sha256 trust_backbone pixel_range backbone_config input_size "
        "backbone_output engine precision",
    ),
    ("limits of an image", (), "max_pixels max_bytes salvage"),
    ("the run", (), "shards retry_rejects verify max_bad_fraction manifest_schemes"),
    ("log and configuration", (), " ".join(_LOG)),
)
"""Titles, the commands that they are for (none: for all), and names of flags behind the common."""


class Parser(argparse.ArgumentParser):
    """Parses a command line; an error is two lines, the second one leading to the help."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {visible(in_plain_words(message))}", file=sys.stderr)
        print(f"How to call it: {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def in_plain_words(message: str) -> str:
    """Returns a message of argparse without Python's words."""
    if found := re.fullmatch(r"argument (\S+): invalid choice: (.*) \(choose from (.*)\)", message):
        flag = found[1].rpartition("/")[2]
        given, choices = found[2].strip("'\""), [c.strip("'\" ") for c in found[3].split(",")]
        return f"{flag} takes {either(choices)}, not {given}{did_you_mean(given, choices)}"
    if found := re.fullmatch(r"argument (\S+): invalid (\w+) value: (.*)", message):
        kinds = {"int": "a whole number", "float": "a number"}
        flag = found[1].rpartition("/")[2]
        return f"{flag} takes {kinds.get(found[2], found[2])}, not {found[3]}"
    if found := re.fullmatch(r"argument (\S+): expected (one|at least one) argument", message):
        return f"{found[1].rpartition('/')[2]} takes a value"
    if found := re.fullmatch(r"the following arguments are required: (.*)", message):
        return f"missing: {found[1]}"
    return message.removeprefix("argument ")


def with_flags(message: str, parser: argparse.ArgumentParser) -> str:
    """Returns a message in which Python's names of a command's settings are its flags."""
    for action in parser._actions:
        flag = next((name for name in action.option_strings if name.startswith("--")), "")
        if not flag:
            continue
        name = action.dest
        if "_" in name:
            message = re.sub(rf"(?<![\w-])'?{name}'?(?![\w(])", flag, message)
        written = re.escape(name).replace("_", "[ _-]")
        message = re.sub(rf"^{written}(?= (?:must|is|are|takes|\S+ is not)\b)", flag, message)
        message = message.replace(f"does not take '{name}'", f"does not take {flag}")
    return message


def either(names: Sequence[str]) -> str:
    """Returns `a`, `a or b`, `a, b or c`."""
    return " or ".join([", ".join(names[:-1])] * (len(names) > 1) + list(names[-1:]))


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Returns a question for the nearest of the known names; nothing if none is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def lay_out(parser: argparse.ArgumentParser, name: str, example: str) -> None:
    """Puts the flags of a command into groups behind the common ones, and its example last."""
    for title, commands, dests in _FLAG_GROUPS:
        if commands and name not in commands:
            continue
        common = parser._optionals._group_actions
        chosen = [action for action in common if action.dest in dests.split()]
        if chosen:
            group = parser.add_argument_group(title)
            group._group_actions.extend(chosen)
            common[:] = [action for action in common if action not in chosen]
    parser._positionals.title, parser._optionals.title = "arguments", "flags"
    parser.usage = " ".join(_usage(parser))
    parser.epilog = f"{(parser.epilog or '').rstrip()}\n\nexample:\n  {example}"


def _usage(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yields the words of a usage line: what has to be given, and a place for the rest."""
    yield "%(prog)s"
    for action in parser._actions:
        if action.option_strings:
            continue
        named = str(action.metavar or action.dest)
        several = {"+": f"{named}...", "*": f"[{named}...]", "?": f"[{named}]"}
        yield several.get(str(action.nargs), named)
    for action in parser._actions:
        if action.option_strings and action.required:
            yield f"{action.option_strings[-1]} {action.metavar or action.dest.upper()}"
    yield "[flags]"


def overview(parser: argparse.ArgumentParser, summaries: dict[str, str]) -> str:
    """Returns the help about all commands."""
    lines = ["usage: beam-flowers COMMAND ...", "", parser.description or ""]
    for title, names in COMMAND_GROUPS:
        lines += ["", f"{title}:"]
        lines += [f"  {name:<20}{summaries[name]}" for name in names]
    lines += [
        "",
        "beam-flowers help COMMAND shows its flags and an example, beam-flowers --version the",
        "version. The first minute: beam-flowers demo",
    ]
    return "\n".join(lines)
