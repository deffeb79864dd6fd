"""`embed`: pictures → the store."""

from __future__ import annotations

import argparse

from beam_flowers.cli.shared import (
    BEAM,
    IMAGES,
    add_images,
    add_run,
    add_weights,
    resolve_backbone,
    run_options,
    verdict,
    warn,
)

_BACKBONE = "efficientnet-lite0"


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of `beam-flowers embed`."""
    parser.epilog = (
        f"{IMAGES}\n\nReads IMAGES, writes STORE: a folder of Parquet parts, one row a file, and "
        "STORE/__rejects.\nWhat the store has already is not computed again: not after a crash, "
        "not for moved or copied\nfiles. Measures no accuracy: `train` does.\n\n"
        f"{BEAM}"
    )
    add_images(parser)
    parser.add_argument("--store", required=True, help="folder of the feature store")
    parser.add_argument(
        "--backbone",
        default=_BACKBONE,
        help=f"name, SavedModel folder, .keras file or TF-Hub handle (default {_BACKBONE})",
    )
    add_weights(parser)
    add_run(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers embed`."""
    from beam_flowers.runs.embed import embed_images

    backbone = resolve_backbone(arguments, arguments.backbone)
    summary = embed_images(
        arguments.images, arguments.store, backbone, run_options(arguments, beams), warn=warn
    )
    print(f"{summary} (store: {arguments.store})")
    return verdict(summary, arguments.max_bad_fraction)
