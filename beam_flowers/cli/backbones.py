"""Lists the backbones that have a name; installs, measures and quantises networks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from beam_flowers.cli.beam_flags import require_no_pipeline
from beam_flowers.cli.shared_flags import (
    add_overwrite,
    add_weights,
    resolve_backbone,
    warn,
    writing,
)
from beam_flowers.errors import InputError

if TYPE_CHECKING:
    from beam_flowers.workflows.quantise import QuantiseResult

INTERRUPTED = "nothing was written; the same command begins anew"
"""Shown to the user after Ctrl-C."""

EXAMPLE = "beam-flowers backbones"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers backbones`."""
    parser.epilog = (
        "Without a flag it lists the networks; reads no image, measures no accuracy, writes "
        "nothing.\n--install writes a network and its lock file, over nothing.\n"
        "--quantize reads IMAGES and measures the accuracy of heads on held-out images "
        "(5 folds) in float32\nand int8; it wants beam-flowers[quantize]."
    )
    parser.add_argument(
        "--install",
        metavar="hf://ORG/REPO@REVISION",
        help="fetch an ONNX network of Hugging Face, with its preprocessor_config.json, check it, "
        "and record commit and digests in a lock file. The address is its --backbone from then "
        "on. After the revision another file may be named, as in @main/onnx/model_fp16.onnx",
    )
    parser.add_argument(
        "--measure",
        metavar="NAME",
        help="time this network at each precision on this processor, on photographs of the package",
    )
    parser.add_argument(
        "--quantize",
        metavar="NAME",
        help="make the 8-bit network that --precision int8 takes, calibrated on up to 300 of "
        "IMAGES, and say on others what it changes",
    )
    parser.add_argument(
        "--images",
        metavar="IMAGES",
        action="append",
        default=[],
        help="for --quantize: a folder whose first-level folders are the labels, as `embed` "
        "takes it; may be given several times",
    )
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        help="for --install and --quantize: where to write (default: the cache). If a lock file is "
        "there, --install fetches what it says, and nothing else",
    )
    add_overwrite(parser)
    add_weights(parser, precision=False)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers backbones`."""
    require_no_pipeline("backbones", beams)
    if sum(map(bool, (arguments.install, arguments.measure, arguments.quantize))) > 1:
        raise InputError("--install, --measure and --quantize exclude each other; give one")
    if bool(arguments.quantize) != bool(arguments.images):
        raise InputError("--quantize NAME wants --images IMAGES to calibrate on, and the other way")
    if arguments.install:
        _install(arguments)
    elif arguments.quantize:
        _quantise(arguments)
    elif arguments.measure:
        _measure(arguments)
    else:
        _list()
    return 0


def _list() -> None:
    from beam_flowers.backbones.catalogue import CATALOGUE
    from beam_flowers.backbones.resolve import whereabouts

    print(f"{'name':<20}{'input':<11}{'vector':<8}{'licence':<12}here")
    for row in CATALOGUE:
        size = f"{row.input_size}x{row.input_size}"
        print(f"{row.name:<20}{size:<11}{row.vector_length:<8}{row.licence:<12}{whereabouts(row)}")
    print(
        "\nAny other: --backbone with a SavedModel folder, a .keras file, a folder of Hugging Face "
        "with\nmodel.onnx and preprocessor_config.json (--install fetches one), or a TF-Hub handle."
    )


def _install(arguments: argparse.Namespace) -> None:
    from beam_flowers import files
    from beam_flowers.backbones.huggingface import install

    output = arguments.output
    if output and not files.is_local(output):
        raise InputError(f"--output {output} is no folder of this machine")
    path = install(arguments.install, files.absolute(output) if output else None, print)
    named = path if output else arguments.install
    print(f"installed: beam-flowers embed IMAGES --store STORE --backbone {named}")


def _measure(arguments: argparse.Namespace) -> None:
    from beam_flowers.workflows.measure import measure

    backbone = resolve_backbone(arguments, arguments.measure)
    found = measure(backbone)
    full = next((m.milliseconds for m in found if m.precision == "float32" and not m.problem), None)
    print(f"{backbone.row.name}, {backbone.engine}, network alone, CPU time of one core")
    print(f"{'precision':<11}{'ms an image':<13}{'speed':<8}{'cosine':<9}vectors")
    for one in found:
        if one.problem:
            print(f"{one.precision:<11}no: {one.problem}")
            continue
        speed = f"{full / one.milliseconds:.2f} x" if full else ""
        print(
            f"{one.precision:<11}{one.milliseconds:<13.2f}{speed:<8}{one.cosine:<9.4f}{one.vectors}"
        )


def _quantise(arguments: argparse.Namespace) -> None:
    from beam_flowers.workflows.quantise import quantise

    backbone = resolve_backbone(arguments, arguments.quantize)
    terms = writing(arguments)
    result = quantise(backbone, arguments.images, arguments.output, terms, warn)
    print(_described(result, backbone.row.name))
    if not arguments.output:
        print(f"take it by --precision int8, as in `embed --backbone {arguments.quantize}`")


def _described(result: QuantiseResult, name: str) -> str:
    which = "others" if result.are_others else "images, most of them the same"
    lines = [
        f"{name} in int8, calibrated on {result.calibrated:,} images: {result.folder}, weights of "
        f"{result.megabytes:.1f} MB, sha256 {result.sha256}",
        f"against float32 on {result.measured:,} {which}:",
        f"  cosine of the vectors {result.cosine:.4f} on average, {result.low_cosine:.4f} at the "
        "first percentile",
    ]
    if result.comparison:
        ((full, reduced),) = result.comparison.right
        lost, margin = result.comparison.lost
        lines += [
            f"  held-out accuracy of heads of their own, 5 folds: float32 {full:.2%}, int8 "
            f"{reduced:.2%} ({100 * lost:+.2f} points lost, 95 % interval ± {100 * margin:.2f})",
            f"  labels that change: {result.comparison.changed[0]:.1%} of the held-out images",
        ]
    return "\n".join(lines)
