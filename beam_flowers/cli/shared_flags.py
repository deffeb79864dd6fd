"""Flags that several commands share, and what becomes of them. Light, as all of `cli` is: heavy
modules are imported where a command runs."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from beam_flowers.cli.progress import add_progress
from beam_flowers.cli.screen import padded, say, visible
from beam_flowers.errors import InputError, ModelError

if TYPE_CHECKING:
    from beam_flowers.backbones.found_recipe import KnownRecipe
    from beam_flowers.backbones.resolve import ResolvedBackbone
    from beam_flowers.head.bundle import Bundle
    from beam_flowers.images.outputs import Writing
    from beam_flowers.images.recipe import Limits
    from beam_flowers.workflows.embed import EmbedSummary, RunOptions

NAME_THE_PATH = "Give its path or address yourself, as --backbone-path"
"""Cure for a model or a store that names a network outside the catalogue."""

DEFAULT_BACKBONE = "efficientnet-lite0"

EXIT_LOST = 1
"""Parts of the table were gone or damaged: warnings name them."""
EXIT_TOO_MANY_BAD = 3
EXIT_TOO_MANY_GONE = 4

IMAGES = """\
IMAGES is one or several of: a folder (its first-level folders are the labels; folders that are
all of train, val or validation, test are splits, with the labels one level deeper; files directly
in it have no label), a quoted glob, a list of paths (.txt), a manifest (.csv, .tsv, .parquet,
.jsonl) with a column uri, file_name, filename, path, filepath or image and maybe one label, class,
category or target and one split, a tar or WebDataset shard (.tar), a zip or a TFRecord file, by
name or by glob (a folder's first name is the label, or what a WebDataset sibling says), an image.
Files are known by content, never by extension. What cannot be used is written to a reject table
with the reason. Names that start with a dot are hidden: counted and passed over."""

BEAM = """\
Every other flag is handed to Beam unchanged: --runner (default: FnApiRunner, in this process),
--temp_location, --direct_num_workers, filesystem options and so on; `check` tries them out. A
worker process computes as many images at a time as it has cores; several on one machine share
them where --direct_num_workers or --sdk_worker_parallelism says how many they are, otherwise set
BEAM_FLOWERS_THREADS, here or for the workers. Units of work are 64 or more, of 16 files at least:
--shards makes more of a small run. BEAM_FLOWERS_WORKER_TIMEOUT: seconds without a sign of life of
any worker after which a run ends (600)."""

ACCURACY = """\
Accuracies: "train" is measured on the images trained on (in the retrain recipe: on the batch
just trained on) and flatters; "validation" on images held back from the start, to watch the
training; "test", printed at the end, on images that had no part in it: the one to quote."""


def add_images(parser: argparse.ArgumentParser) -> None:
    """Adds IMAGES."""
    parser.add_argument("images", metavar="IMAGES", nargs="*", help="what to read: see below")
    parser.add_argument(
        "--files-from",
        metavar="FILE",
        help="read the files that FILE names, or with - standard input: one path a line, or a NUL "
        "behind each, as of find -print0",
    )


def sources(arguments: argparse.Namespace) -> list[str]:
    """Returns the sources that `add_images`' flags name.

    Standard input is copied to a temporary file, which goes with `arguments`: a run may have to
    list its files again.
    """
    from beam_flowers.images.find import FILES_FROM

    listed = []
    if arguments.files_from == "-":
        arguments.standard_input = tempfile.NamedTemporaryFile(prefix="files-from-")  # noqa: SIM115
        shutil.copyfileobj(sys.stdin.buffer, arguments.standard_input)
        arguments.standard_input.flush()
        listed = [FILES_FROM + arguments.standard_input.name]
    elif arguments.files_from:
        listed = [FILES_FROM + os.path.abspath(arguments.files_from)]
    if not (arguments.images or listed):
        raise InputError("name what to read: IMAGES, or a list of files by --files-from")
    return [*arguments.images, *listed]


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Adds `--overwrite`."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace files that this program did not write, and write into folders that hold "
        "such; what the command reads is never replaced",
    )


def add_csv(parser: argparse.ArgumentParser) -> None:
    """Adds `--csv`."""
    parser.add_argument(
        "--csv",
        choices=("safe", "exact"),
        default="safe",
        help="safe (default): in .csv a ' stands before text that a spreadsheet would run as a "
        "formula (what begins with = + - @, tab or carriage return and is no number), and before "
        "a ' that stands there already; commands that read the table take it off. exact: cells as "
        "they are",
    )


def writing(arguments: argparse.Namespace, *inputs: str | None) -> Writing:
    """Returns the terms of writing, from `add_overwrite`'s flag.

    `inputs` are those that the job itself does not name; files of flags and weights are added.
    """
    from beam_flowers.images.outputs import Writing

    names = ("config", "backbone_path", "backbone_config")
    given = (getattr(arguments, name, None) for name in names)
    return Writing(arguments.overwrite).reading(*given, *inputs)


def add_top_k(parser: argparse.ArgumentParser) -> None:
    """Adds `--top-k`."""
    parser.add_argument("--top-k", type=int, default=5, help="labels an image (default 5)")


def add_weights(parser: argparse.ArgumentParser, precision: bool = True) -> None:
    """Adds the flags for weights that a user has: where they are, which input they take."""
    parser.add_argument(
        "--backbone-path",
        help="where a named backbone's weights lie: a Keras "
        "weights file, a SavedModel folder, a folder with model.onnx or a TF-Hub handle",
    )
    parser.add_argument(
        "--backbone-sha256",
        metavar="HEX",
        help="what the sha256 of the weights must be; of a TF-Hub handle that of its archive, "
        "which is compared before it is unpacked",
    )
    parser.add_argument(
        "--trust-backbone",
        action="store_true",
        help="load a SavedModel or an ONNX network although it holds operations that may do more "
        "than compute, such as reading files: it can then do all that you can do",
    )
    parser.add_argument(
        "--pixel-range",
        metavar="LOW,HIGH",
        help="pixel range that the network expects, e.g. 0,1, or 0,255 if it scales by itself "
        "(default: as a store or a model knows it, or as the network's own files say; where "
        "nothing does, the run refuses and says what it would have guessed)",
    )
    parser.add_argument(
        "--backbone-config",
        metavar="FILE",
        help="the whole recipe of the pixels in the form of preprocessor_config.json: size, crop, "
        "filter, mean, deviation and order of the channels",
    )
    parser.add_argument(
        "--input-size",
        type=int,
        metavar="N",
        help="side in pixels of the images of a network that leaves it open (default: that of "
        "well-known TF-Hub handles)",
    )
    parser.add_argument(
        "--backbone-output",
        metavar="LAYER",
        default="",
        help="output or layer whose values are the vector, of a network with several outputs or "
        "one that ends in classes; [N, h, w, C] is averaged over h and w. Of an ONNX network also "
        "class or mean, of an image's tokens in last_hidden_state, and as in mean:NAME of others "
        "(default: image_embeds, else pooler_output)",
    )
    add_engine(parser, precision)


def add_engine(parser: argparse.ArgumentParser, precision: bool = True) -> None:
    """Adds the flags for engine and, unless a command has none, precision."""
    parser.add_argument(
        "--engine",
        choices=("auto", "tensorflow", "openvino", "onnxruntime"),
        default="auto",
        help="what runs the network (default: OpenVINO; where it has no wheels, TensorFlow, and "
        "ONNX Runtime for ONNX files)",
    )
    if not precision:
        return
    parser.add_argument(
        "--precision",
        choices=("float32", "bf16", "int8"),
        help="of the arithmetic (default float32; for a model, as it was trained). bf16 is faster "
        "on CPUs that have it, and refused on others; int8 is faster everywhere, on OpenVINO, with "
        "a network that `backbones --quantize` made or the package has. Vectors of each are "
        "others, for heads of their own; `backbones --measure` says what each takes here",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of every run over images: see `RunOptions`."""
    add_progress(parser)
    add_limits(parser)
    parser.add_argument(
        "--manifest-schemes",
        metavar="S3,GS",
        default="",
        help="let rows of lists and manifests name files of these schemes, besides local files and "
        "those of the manifest's own scheme: all are read with your rights",
    )
    parser.add_argument("--shards", type=int, help="units of work (default: by number of files)")
    parser.add_argument(
        "--retry-rejects",
        action="store_true",
        help="try files again that were rejected for what they hold (those that could not be read "
        "always are)",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="trust neither size nor date: read and hash every file again",
    )
    parser.add_argument(
        "--max-bad-fraction",
        type=float,
        default=1.0,
        help="exit with 3, after "
        "all is written, if more of the images than this fail (default 1.0)",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that bound the cost of one image: see `Limits`."""
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="reject images of more pixels than this, counted as they are decoded: plain JPEGs "
        "are decoded at a fraction of their size (default 120000000)",
    )
    parser.add_argument(
        "--max-bytes",
        type=int,
        metavar="N",
        help="reject images whose files are larger (default 268435456)",
    )


def add_salvage(parser: argparse.ArgumentParser, rows_help: str) -> None:
    """Adds `--salvage`; `rows_help` is the part of its help about the rows."""
    parser.add_argument(
        "--salvage",
        type=float,
        metavar="SHARE",
        help="take JPEGs that end early, if no larger share of their rows is missing; "
        f"{rows_help} (default 0)",
    )


_LIMITS = ("max_pixels", "max_bytes", "salvage")


def limits_of(arguments: argparse.Namespace) -> Limits:
    """Returns the bounds on the cost of one image, from `add_limits`' flags."""
    from beam_flowers.images.recipe import DEFAULT_LIMITS

    given = {name: getattr(arguments, name, None) for name in _LIMITS}
    return replace(DEFAULT_LIMITS, **{k: v for k, v in given.items() if v is not None})


def warn(message: str) -> None:
    """Prints a warning for the user."""
    say("warning", message)


def table_line(name: str, ranking: Sequence[tuple[str, float]], width: int = 0) -> str:
    """Returns the labels of one image as a line, best first."""
    scores = (f"{visible(label)} {score:.4f}" for label, score in ranking)
    return f"{padded(visible(name), width)}  " + "  ".join(scores)


def run_options(arguments: argparse.Namespace, beams: list[str]) -> RunOptions:
    """Returns the options of a run, from `add_run`'s flags."""
    from beam_flowers.workflows.embed import RunOptions

    if not 0 <= arguments.max_bad_fraction <= 1:
        raise InputError(
            f"--max-bad-fraction is a share from 0 to 1, not {arguments.max_bad_fraction!r}"
        )
    # For the history of a table: flags whose values cannot be secret, as an address may be.
    given = {name: getattr(arguments, name, None) for name in _TOLD}
    given_options = {name: value for name, value in given.items() if value not in (None, False)}
    options = RunOptions(
        beams,
        arguments.shards,
        arguments.retry_rejects,
        arguments.verify,
        made={"command": arguments.command, "options": given_options},
        limits=limits_of(arguments),
        manifest_schemes=[s for s in arguments.manifest_schemes.split(",") if s],
    )
    # Of `embed` alone.
    most = getattr(arguments, "max_removed_fraction", options.max_removed_fraction)
    return replace(options, max_removed_fraction=most)


_TOLD = (
    "encoding",
    "max_bytes",
    "max_pixels",
    "min_margin",
    "prune",
    "retry_rejects",
    "salvage",
    "shards",
    "target_precision",
    "threshold",
    "top_k",
    "vectors",
    "verify",
)


def resolve_backbone(
    arguments: argparse.Namespace, name: str, known: Sequence[KnownRecipe] = ()
) -> ResolvedBackbone:
    """Returns the backbone of a name, from `add_weights`' flags.

    `known` are recipes of the store or model that the command is about.
    """
    from beam_flowers.backbones.resolve import resolve

    return resolve(
        name,
        arguments.backbone_path,
        arguments.backbone_sha256,
        _pixel_range(arguments.pixel_range),
        engine=arguments.engine,
        trust=arguments.trust_backbone,
        config=arguments.backbone_config,
        input_size=arguments.input_size,
        output=arguments.backbone_output,
        known=known,
    )


def _pixel_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--pixel-range takes two numbers, as in -1,1, not {text!r}") from None
    return low, high


def backbone_of(bundle: Bundle, arguments: argparse.Namespace) -> ResolvedBackbone:
    """Finds the backbone that a model was trained on.

    Raises:
        BackboneError: it is not in the catalogue, and no `--backbone-path` says where it lies.
        ModelError: the one here is another.
    """
    from beam_flowers.backbones.catalogue import require_in_catalogue
    from beam_flowers.head.backbones import recipes_of_model
    from beam_flowers.head.bundle import require_backbone

    if len(bundle.fingerprints) > 1:
        raise ModelError(
            f"the model takes the vectors of {bundle.backbone} side by side; embed the images"
            " with each of them into one store and `score` that"
        )
    if not arguments.backbone_path:
        require_in_catalogue(bundle.backbone, "the model", NAME_THE_PATH)
    known = recipes_of_model(bundle)
    backbone = resolve_backbone(arguments, bundle.backbone, known).in_form(bundle.fingerprint)
    require_backbone(bundle, backbone.row.name, backbone.fingerprint, backbone.about()["pixels"])
    return in_precision(backbone, arguments)


def in_precision(backbone: ResolvedBackbone, arguments: argparse.Namespace) -> ResolvedBackbone:
    """Returns the backbone in the precision asked for, else as it is."""
    from beam_flowers.backbones.resolve import parse_precision

    if arguments.precision:
        return backbone.in_precision(parse_precision(arguments.precision))
    return backbone


def verdict(summary: EmbedSummary, most: float) -> int:
    """Returns the exit code of a run over images."""
    code = EXIT_TOO_MANY_GONE if summary.held else 0
    if summary.bad_fraction <= most:
        return code or (EXIT_LOST if summary.lost else 0)
    warn(
        f"{summary.failures} of {summary.failures + summary.rows} images failed, "
        f"{summary.bad_fraction:.1%}; --max-bad-fraction allows {most:.1%}"
    )
    return code or EXIT_TOO_MANY_BAD
