"""Checks that the workers have all that a run needs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from beam_flowers.cli.progress import add_progress, shown
from beam_flowers.cli.shared_flags import (
    BEAM,
    DEFAULT_BACKBONE,
    add_weights,
    in_precision,
    resolve_backbone,
    warn,
)

if TYPE_CHECKING:
    from beam_flowers.transforms.check import Finding

EXIT_WRONG = 1

EXAMPLE = "beam-flowers check --store store"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers check`."""
    parser.epilog = (
        "Runs ten images over the workers and says for each what it is and whether it is set up "
        "as this\nmachine is: packages, weights, STORE, IMAGES. Exits with 1 if something is "
        "wrong. Reads IMAGES,\nwrites STORE and leaves nothing there. Measures no accuracy.\n\n"
        + BEAM
    )
    parser.add_argument(
        "images", metavar="IMAGES", nargs="*", help="what the workers shall be able to read"
    )
    parser.add_argument("--store", required=True, help="what they shall be able to write")
    parser.add_argument(
        "--backbone",
        default=DEFAULT_BACKBONE,
        help=f"what they shall compute with (default {DEFAULT_BACKBONE})",
    )
    parser.add_argument(
        "--shards", type=int, help="images (default 10); take several for each worker"
    )
    add_weights(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers check`."""
    from beam_flowers.workflows.check import check_workers
    from beam_flowers.workflows.embed import RunOptions
    from beam_flowers.workflows.known_recipes import recipes_of_store

    network = resolve_backbone(arguments, arguments.backbone, recipes_of_store(arguments.store))
    backbone = in_precision(network, arguments)
    options = RunOptions(beams, arguments.shards)
    with shown(arguments.progress) as progress:
        progress.begin("checking")
        findings = check_workers(arguments.images, arguments.store, backbone, options)
    for host in sorted({finding.host for finding in findings}):
        print(_described([f for f in findings if f.host == host], bool(arguments.images)))
    if len({f.vector for f in findings if f.vector}) > 1:
        warn(
            "the workers' vectors of one image differ in their last bits, as on different kinds "
            "of processors; what is computed again elsewhere will not be equal to the bit"
        )
    problems = sorted({f.problem for f in findings if f.problem})
    for problem in problems:
        warn(problem)
    if not problems:
        print("all is well")
    return EXIT_WRONG if problems else 0


def _described(findings: Sequence[Finding], has_images: bool) -> str:
    first = findings[0]
    processes = {f.pid for f in findings}
    good = [f for f in findings if not f.problem]
    can = f"computed {len(good)} of {len(findings)} images"
    if good:
        seconds = sorted(f.seconds for f in good)[len(good) // 2]
        can += f", {seconds:.2f} s each after {max(f.loading for f in good):.1f} s of loading"
        can += ", writes STORE" + ", reads IMAGES" * has_images
    return (
        f"{first.host}: {len(processes)} process{'es' * (len(processes) > 1)}, {first.cores} "
        f"core{'s' * (first.cores > 1)} and {first.threads} threads each, "
        f"{max(f.megabytes for f in findings)} MB, {first.engine}\n"
        f"  {', '.join(f'{name} {version}' for name, version in first.versions.items())}\n  {can}"
    )
