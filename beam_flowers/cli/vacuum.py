"""`vacuum`: deletes what interrupted runs left in a store or a table of scores."""

from __future__ import annotations

import argparse
import re

from beam_flowers.cli.shared_flags import BEAM

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST_LINES = 20
"""Files that are not ours and are named; a folder of images kept in a store may have millions."""


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of `beam-flowers vacuum`."""
    parser.epilog = (
        "Deletes what interrupted runs left in STORE, replaced parts, and the records of all "
        "versions\nbut the newest two. Files that beam-flowers did not write are named and never "
        "deleted. What is\nyounger than --older-than stays, since another command may be at work "
        "on it: give more than\nyour longest run takes. Measures no accuracy.\n\n" + BEAM
    )
    parser.add_argument("store", metavar="STORE", help="folder of a store or of scores")
    parser.add_argument(
        "--older-than",
        metavar="AGE",
        default="24h",
        type=parse_age,
        help="least age of what is deleted: a number with s, m, h or d, or 0 (default 24h)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be deleted and change nothing"
    )


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers vacuum`."""
    from beam_flowers import files
    from beam_flowers.pages.format import counted
    from beam_flowers.store.vacuum import vacuum

    store = arguments.store
    found = vacuum(
        files.absolute(store), older_than=arguments.older_than, dry_run=arguments.dry_run
    )
    if arguments.dry_run:
        for uri in found.deleted:
            print(f"would delete {uri}")
    named = found.foreign if arguments.dry_run else found.foreign[:_MOST_LINES]
    for uri in named:
        print(f"not written by beam-flowers, left alone: {uri}")
    if rest := len(found.foreign) - len(named):
        print(f"and {rest:,} more, which --dry-run names")
    verb = "would delete" if arguments.dry_run else "deleted"
    print(f"{verb} {counted(len(found.deleted), 'file')} that no version of {store} needs")
    if found.young:
        kept = counted(found.young, "file")
        print(f"kept {kept} younger than --older-than, which a run may be using")
    return 0


def parse_age(text: str) -> float:
    """Return the seconds that a text such as `90m`, `24h` or `7d` stands for.

    Raises:
        argparse.ArgumentTypeError: it is no such text.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])|0", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no age: give a number with s, m, h or d, such as 24h or 7d"
        )
    return float(found[1]) * _SECONDS[found[2]] if found[1] else 0.0
