"""Makes an older version of a store or score table the newest again."""

from __future__ import annotations

import argparse

from beam_flowers.cli.shared_flags import BEAM

EXAMPLE = "beam-flowers restore store 1"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers restore`."""
    parser.epilog = (
        "Commits the rows and rejects of version N as a new version; those between stay in the "
        "history,\nso that a restore can be taken back. `history` lists the versions. Computes "
        "nothing, measures\nno accuracy.\n\n" + BEAM
    )
    parser.add_argument("table", metavar="STORE|TABLE", help="folder of a store or of scores")
    parser.add_argument("version", metavar="N", type=int, help="number of the version")


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers restore`."""
    from beam_flowers import files
    from beam_flowers.store.history import restore

    version = restore(files.absolute(arguments.table), arguments.version)
    print(f"version {version} has the rows of version {arguments.version}")
    return 0
