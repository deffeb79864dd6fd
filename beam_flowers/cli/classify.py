"""`classify`: a few pictures → ranked labels on the screen."""

from __future__ import annotations

import argparse

from beam_flowers.cli.shared import add_top_k, add_weights, backbone_of, table_line, warn


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of `beam-flowers classify`."""
    parser.epilog = (
        "Reads the pictures and MODEL, prints the labels best first, writes nothing. A score is "
        "the softmax\nprobability of a label, not an accuracy: `train` measures that."
    )
    parser.add_argument("images", metavar="PICTURE", nargs="+", help="a picture file")
    parser.add_argument("--model", required=True, help="folder of the model")
    add_top_k(parser)
    add_weights(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers classify`."""
    from beam_flowers import files
    from beam_flowers.head.bundle import read_bundle
    from beam_flowers.records import Reject
    from beam_flowers.runs.classify import classify_pictures

    bundle = read_bundle(files.absolute(arguments.model))
    backbone = backbone_of(bundle, arguments)
    results = classify_pictures(arguments.images, bundle, backbone, arguments.top_k)
    for name, result in zip(arguments.images, results, strict=True):
        if isinstance(result, Reject):
            warn(f"{name}: {result.message}")
        else:
            print(table_line(name, result))
    return int(any(isinstance(result, Reject) for result in results))
