"""Deletes files that interrupted runs left in a store or a score table."""

from __future__ import annotations

import argparse
import re

from beam_flowers.cli.screen import visible
from beam_flowers.cli.shared_flags import BEAM

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST_LINES = 20
"""Files that are not ours and are named; a folder of images kept in a store may have millions."""

EXAMPLE = "beam-flowers vacuum store --dry-run"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers vacuum`."""
    parser.epilog = (
        "Deletes what interrupted runs left in STORE, and versions with the parts that only they "
        "need, if\nthey were replaced more than 7 days ago; the newest two stay. Files that "
        "beam-flowers did not\nwrite are named and never deleted. Left-over files younger than "
        "--older-than stay, since another\ncommand may be at work on them: give more than your "
        "longest run takes. Given, it is also the\nage of versions: 0 makes most room. Measures no "
        "accuracy.\n\n" + BEAM
    )
    parser.add_argument("store", metavar="STORE", help="folder of a store or of scores")
    parser.add_argument(
        "--older-than",
        metavar="AGE",
        type=parse_age,
        help="least age of what is deleted: a number with s, m, h or d, or 0 (default: left-over "
        "files 24h, versions 7d)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be deleted and change nothing"
    )


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers vacuum`."""
    from beam_flowers import files
    from beam_flowers.pages.format import counted
    from beam_flowers.store.vacuum import vacuum

    store = arguments.store
    age = arguments.older_than
    ages = {} if age is None else {"older_than": age, "retention": age}
    found = vacuum(files.absolute(store), dry_run=arguments.dry_run, **ages)
    if arguments.dry_run:
        for uri in found.deleted:
            print(f"would delete {visible(uri)}")
    named = found.foreign if arguments.dry_run else found.foreign[:_MOST_LINES]
    for uri in named:
        print(f"not written by beam-flowers, left alone: {visible(uri)}")
    if rest := len(found.foreign) - len(named):
        print(f"and {rest:,} more, which --dry-run names")
    verb = "would delete" if arguments.dry_run else "deleted"
    print(f"{verb} {counted(len(found.deleted), 'file')} that no version of {store} needs")
    if found.young:
        kept = counted(found.young, "file")
        print(f"kept {kept} younger than --older-than, which a run may be using")
    return 0


def parse_age(text: str) -> float:
    """Returns the seconds of a text such as `90m`, `24h` or `7d`.

    Raises:
        argparse.ArgumentTypeError: it is no such text.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])|0", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no age: give a number with s, m, h or d, such as 24h or 7d"
        )
    return float(found[1]) * _SECONDS[found[2]] if found[1] else 0.0
