"""Takes the images of a folder, missing ones, or a backbone out of a store."""

from __future__ import annotations

import argparse

from beam_flowers.cli.contrib import contrib
from beam_flowers.cli.shared_flags import BEAM, warn
from beam_flowers.errors import InputError

EXAMPLE = "beam-flowers forget store --missing --dry-run"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers forget`."""
    parser.epilog = (
        "Deletes from STORE the rows, vectors and rejects of all images that were listed as ROOT "
        "or lie\nbelow it, for every backbone. The images themselves are not touched; ROOT need "
        "not be there\nany more. To have its images back, embed ROOT again.\n\n"
        "The bare name of a BACKBONE of the store takes out all its rows instead, those of images "
        "that were\nonly scored and of distorted copies too.\n\n"
        "--missing looks for the file of each row instead, and deletes the rows of those that are "
        "not there\nany more. A folder that cannot be read, or is empty as where a disk is not "
        "mounted, ends it before\nanything is deleted. Measures no accuracy.\n\n" + BEAM
    )
    # parse_args takes an absent ROOT for empty as soon as it meets STORE: STORE --dry-run ROOT.
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]
    parser.add_argument("store", metavar="STORE", help="folder of the feature store")
    parser.add_argument(
        "root",
        metavar="ROOT|BACKBONE",
        nargs="?",
        help="folder or file that was embedded or scored, or name of a backbone",
    )
    parser.add_argument(
        "--missing", action="store_true", help="all images whose files are not there any more"
    )
    parser.add_argument("--dry-run", action="store_true", help="count the rows and change nothing")
    parser.add_argument(
        "--now",
        action="store_true",
        help="delete older versions, too, which have the rows for 7 days otherwise",
    )


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers forget`."""
    from beam_flowers import files
    from beam_flowers.pages.format import counted
    from beam_flowers.store.forget import forget
    from beam_flowers.store.names import AUGMENTED, SCORED

    store, root = files.absolute(arguments.store), arguments.root
    if (root is None) != arguments.missing:
        raise InputError("name what to take out: a ROOT, a BACKBONE or --missing")
    take_out = forget
    if files.is_folder(files.join(store, AUGMENTED)):
        take_out = contrib("augment.table").forget_everywhere
    found = take_out(store, root, dry_run=arguments.dry_run, now=arguments.now)
    verb = "would forget" if arguments.dry_run else "forgot"
    copies = found.inner.get(AUGMENTED, 0)
    print(
        f"{verb} {counted(found.rows, 'row')} and {counted(found.rejects, 'reject')} of "
        f"{root or 'files that are not there any more'}, "
        f"{found.inner[SCORED]} of images that were only scored, {copies} of distorted copies"
    )
    for uri in found.lost:
        warn(f"{uri} is gone or damaged; nobody can say which images it had")
    if not (arguments.dry_run or arguments.now):
        print("older versions have them for 7 days; --now deletes those, too")
    return 0
