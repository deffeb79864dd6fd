"""`vacuum`: clears what no commit names."""

from __future__ import annotations

import argparse

from beam_flowers.cli.shared import BEAM


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of `beam-flowers vacuum`."""
    parser.epilog = (
        "Reads the newest commit of STORE, deletes what a killed run left there and the records of "
        "older\nversions. Not to be run "
        "while\nanother command writes to STORE. Measures no accuracy.\n\n" + BEAM
    )
    parser.add_argument("store", metavar="STORE", help="folder of a store or of scores")


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers vacuum`."""
    from beam_flowers import files
    from beam_flowers.store.commits import vacuum

    deleted = vacuum(files.absolute(arguments.store))
    print(f"deleted {len(deleted)} files that the newest commit of {arguments.store} does not name")
    return 0
