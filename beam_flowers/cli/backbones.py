"""Lists the backbones that have a name, with sizes and licences."""

from __future__ import annotations

import argparse

EXAMPLE = "beam-flowers backbones"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers backbones`."""
    parser.epilog = "Lists the networks; reads no image, measures no accuracy, writes nothing."


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers backbones`."""
    from beam_flowers.backbones.catalogue import CATALOGUE
    from beam_flowers.backbones.resolve import whereabouts

    print(f"{'name':<20}{'input':<11}{'vector':<8}{'licence':<12}here")
    for row in CATALOGUE:
        size = f"{row.input_size}x{row.input_size}"
        print(f"{row.name:<20}{size:<11}{row.vector_length:<8}{row.licence:<12}{whereabouts(row)}")
    print("\nAny other: --backbone with a SavedModel folder, a .keras file or a TF-Hub handle.")
    return 0
