"""Computes embeddings of images into a store."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from beam_flowers.cli.augment_flags import HELP, add_augment, augmentation
from beam_flowers.cli.contrib import contrib
from beam_flowers.cli.progress import conclude, shown
from beam_flowers.cli.screen import say
from beam_flowers.cli.shared_flags import (
    BEAM,
    DEFAULT_BACKBONE,
    IMAGES,
    add_images,
    add_run,
    add_salvage,
    add_weights,
    in_precision,
    resolve_backbone,
    run_options,
    sources,
    verdict,
    warn,
)

if TYPE_CHECKING:
    from beam_flowers.workflows.progress import Progress
    from beam_flowers.workflows.summary import EmbedSummary

INTERRUPTED = "the same command goes on from what is finished"
"""Shown to the user after Ctrl-C."""

EXAMPLE = "beam-flowers embed photos --store store"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers embed`."""
    parser.epilog = (
        f"{IMAGES}\n\nReads IMAGES, writes STORE: a folder of Parquet parts, one row a file, and "
        "STORE/__rejects.\nWhat the store has already is not computed again: not after a crash, "
        "not for moved or copied\nfiles. Measures no accuracy: `train` does.\n\n"
        f"{HELP}\n\n{BEAM}"
    )
    add_images(parser)
    parser.add_argument("--store", required=True, help="folder of the feature store")
    parser.add_argument(
        "--backbone",
        default=DEFAULT_BACKBONE,
        help="name, SavedModel folder, .keras file, folder with model.onnx or TF-Hub handle "
        f"(default {DEFAULT_BACKBONE})",
    )
    parser.add_argument(
        "--vectors",
        choices=("float32", "float16"),
        default="float32",
        help="what the numbers of a vector are rounded to (default float32). float16 halves the "
        "store; its fingerprint is another, so that its rows lie beside those of float32, and "
        "its models label with vectors rounded alike. pandas, pyarrow, Polars and DuckDB read it, "
        "Spark 3.5 does not",
    )
    parser.add_argument(
        "--encoding",
        choices=("split", "plain"),
        help="of the vectors in Parquet: BYTE_STREAM_SPLIT (default, smaller) or PLAIN, for "
        "Spark's vectorised reader; of a store that has the other one all parts are written again",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="take out all rows of this backbone whose files IMAGES does not name, wherever they "
        "were found, so that the store holds exactly this list, glob or manifest",
    )
    parser.add_argument(
        "--max-removed-fraction",
        type=float,
        default=0.25,
        help="if the files of more of the stored images than this are gone, and of more than 100, "
        "take none out of the store, add what is new and exit with 4 (default 0.25; 1 allows all)",
    )
    add_salvage(parser, "the column `format` then says how much is")
    add_weights(parser)
    add_augment(parser)
    add_run(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers embed`."""
    from beam_flowers import files
    from beam_flowers.store.features import has_labels

    with shown(arguments.progress) as progress:
        summary, augmented = _embed(arguments, beams, progress)
    store = arguments.store
    places = {"store": store}
    if summary.rejected:
        places["rejects"] = f"{store.rstrip('/')}/__rejects"
    following = f"beam-flowers train {shlex.quote(store)} --model MODEL"
    if summary.rows and not has_labels(files.absolute(store)):
        following = f"beam-flowers review {shlex.quote(store)}"
    conclude(arguments, summary, progress, places, following)
    if augmented:
        print(augmented)
    return verdict(summary, arguments.max_bad_fraction)


def _warn_of_wrapper(images: Sequence[str]) -> None:
    """Warns of folders that hold one folder alone, whose name would be the label of all images."""
    for folder in filter(os.path.isdir, images):
        (name, *others) = _visible(folder) or ("",)
        inner = os.path.join(folder, name)
        within = [] if others else _visible(inner)
        if sum(os.path.isdir(os.path.join(inner, each)) for each in within) > 1:
            warn(
                f"all images of {folder} lie in its only folder, {name}, which is the one label of "
                f"all of them; name {inner} to have its folders as labels"
            )


def _visible(folder: str) -> list[str]:
    """Returns the names in a folder; none if it cannot be listed, as the run says itself."""
    with contextlib.suppress(OSError):
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    return []


def _embed(
    arguments: argparse.Namespace, beams: list[str], progress: Progress
) -> tuple[EmbedSummary, str]:
    """Computes the images, then their distorted copies if any are asked for."""
    from beam_flowers import files
    from beam_flowers.images.find import require_sources
    from beam_flowers.store.names import AUGMENTED
    from beam_flowers.workflows.embed import embed_images
    from beam_flowers.workflows.known_recipes import notes_on_recipe, recipes_of_store

    options, copies = run_options(arguments, beams), augmentation(arguments)
    require_sources(arguments.images)
    _warn_of_wrapper(arguments.images)
    store = arguments.store
    network = resolve_backbone(arguments, arguments.backbone, recipes_of_store(store))
    backbone = replace(in_precision(network, arguments), vectors=arguments.vectors)
    for note in notes_on_recipe(backbone, store):
        say("note", note)
    summary = embed_images(
        sources(arguments),
        store,
        backbone,
        options,
        warn=warn,
        encoding=arguments.encoding,
        progress=progress,
        prune=arguments.prune,
    )
    if not copies:
        return summary, ""
    augmented = contrib("augment.job").augment_store(
        store, backbone, copies, options, warn=warn, progress=progress
    )
    return summary, f"{augmented} (store: {files.join(store, AUGMENTED)})"
