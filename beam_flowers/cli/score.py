"""`score`: pictures or a store → a labelled table."""

from __future__ import annotations

import argparse

from beam_flowers.cli.shared import (
    BEAM,
    IMAGES,
    add_images,
    add_run,
    add_top_k,
    add_weights,
    backbone_of,
    run_options,
    verdict,
    warn,
)


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of `beam-flowers score`."""
    parser.epilog = (
        f"{IMAGES}\nIMAGES may be a feature store: then no picture is read and no network runs."
        "\n\nReads IMAGES and MODEL, writes OUTPUT.parquet, .csv or .jsonl with OUTPUT.rejects "
        "beside it, or a\nfolder of Parquet parts, which goes on where a killed run stopped. A "
        "score is the softmax\nprobability of a label, not an accuracy: `train` measures that.\n\n"
        f"{BEAM}"
    )
    add_images(parser)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--output", required=True, help=".parquet, .csv, .jsonl or a folder")
    parser.add_argument("--store", help="take vectors from this store; embed what it lacks")
    add_top_k(parser)
    add_weights(parser)
    add_run(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers score`."""
    from beam_flowers import files
    from beam_flowers.head.bundle import read_bundle
    from beam_flowers.runs.score import Job, is_store, score_images

    bundle = read_bundle(files.absolute(arguments.model))
    job = Job(tuple(arguments.images), arguments.output, arguments.store, arguments.top_k)
    from_store = len(job.images) == 1 and is_store(job.images[0])
    from_store = from_store or len(bundle.fingerprints) > 1
    backbone = None if from_store else backbone_of(bundle, arguments)
    summary = score_images(job, bundle, backbone, run_options(arguments, beams), warn)
    print(f"{summary} (table: {arguments.output})")
    return verdict(summary, arguments.max_bad_fraction)
