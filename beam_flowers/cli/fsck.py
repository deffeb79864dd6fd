"""Checks every file of a store or a score table."""

from __future__ import annotations

import argparse

from beam_flowers.cli.screen import visible
from beam_flowers.cli.shared_flags import BEAM, warn

_EXIT_DAMAGED = 1

EXAMPLE = "beam-flowers fsck store"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers fsck`."""
    parser.epilog = (
        "Reads all parts of the newest version and compares each with the digest that was written "
        "down\nwith it; names what is damaged, missing, lost earlier, left over or foreign. Exit "
        "code 1 if rows\nare damaged, missing or lost. Writes nothing without --repair. Measures "
        "no accuracy.\n\n--repair takes damaged and missing parts out of the table, in one commit; "
        "damaged files go to\n__damaged. Rows of lost parts whose files have come back are added, "
        "of images that have no row\nnow. Embed the images again to have the other rows made anew."
        "\n\n" + BEAM
    )
    parser.add_argument("table", metavar="STORE|TABLE", help="folder of a store or of scores")
    parser.add_argument("--repair", action="store_true", help="commit what is sound, see below")


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers fsck`."""
    from beam_flowers import files
    from beam_flowers.pages.format import counted
    from beam_flowers.store.fsck import fsck

    found = fsck(files.absolute(arguments.table), repair=arguments.repair)
    for name in ("damaged", "missing", "lost"):
        for uri, rows in getattr(found, name).items():
            print(f"{name}: {visible(uri)} ({counted(rows, 'row')})")
    for name in ("left_over", "foreign"):
        for uri in getattr(found, name):
            print(f"{name.replace('_', ' ')}: {visible(uri)}")
    gone = sum(sum(getattr(found, name).values()) for name in ("damaged", "missing", "lost"))
    size = f"{found.bytes / 1e6:,.1f} MB"
    print(
        f"checked {counted(found.parts, 'part')}, {size}: "
        + ("all rows are as they were written" if found.is_sound else f"{gone} rows are not sound")
    )
    if arguments.repair and not found.is_sound:
        print(f"repaired: {found.back} rows came back; embed the images again for the others")
        return 0
    if found.left_over:
        print(f"next: beam-flowers vacuum {arguments.table}")
    if not found.is_sound:
        warn(f"`beam-flowers fsck {arguments.table} --repair` takes out what is not sound")
        return _EXIT_DAMAGED
    return 0
