"""Lists the versions of a store or a score table."""

from __future__ import annotations

import argparse

from beam_flowers.cli.screen import visible
from beam_flowers.cli.shared_flags import BEAM

EXAMPLE = "beam-flowers history store"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers history`."""
    parser.epilog = (
        "Lists the versions that are still known, the newest first: when and by which "
        "command\neach was committed, its rows and rejects, and how many rows it added, removed "
        "and changed (another\ncontent or label); a dash where that is not known. A replaced "
        "version is kept for 7 days, of at most\n1,000 versions; `restore` makes one of them the "
        "newest again. Writes nothing, measures no accuracy.\n\n" + BEAM
    )
    parser.add_argument("table", metavar="STORE|TABLE", help="folder of a store or of scores")


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers history`."""
    import time

    from beam_flowers import files
    from beam_flowers.store.commits import MOST_VERSIONS
    from beam_flowers.store.history import history

    found = list(history(files.absolute(arguments.table)))
    print(
        f"{'version':>7}  {'time':<19}  {'rows':>9}  {'rejects':>7}  "
        f"{'added':>9}  {'removed':>9}  {'changed':>9}  by"
    )
    for version in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(version.time))
        options = " ".join(f"{name}={value}" for name, value in version.options.items())
        by = " ".join(word for word in (version.command, options) if word) or version.program
        changes = (version.added, version.removed, version.changed)
        counts = "  ".join(f"{'-' if count is None else count:>9}" for count in changes)
        notes = [f"{version.lost} rows lost"] * bool(version.lost)
        notes += ["its parts are gone"] * (not version.readable)
        print(
            f"{version.number:>7}  {when if version.time else 'unknown':<19}  {version.rows:>9}  "
            f"{version.rejects:>7}  {counts}  "
            f"{visible(by)}{' (' + ', '.join(notes) + ')' if notes else ''}"
        )
    if len(found) >= MOST_VERSIONS:
        print(f"older ones went, though they were younger than 7 days: {MOST_VERSIONS:,} are kept")
    return 0
