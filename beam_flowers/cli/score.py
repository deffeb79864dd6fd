"""Labels images or a store into a score table."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from beam_flowers.cli.answer import print_answers
from beam_flowers.cli.model_flags import add_models, backbones_of, fitted, read_models, rule_of
from beam_flowers.cli.progress import conclude, shown
from beam_flowers.cli.shared_flags import (
    BEAM,
    IMAGES,
    add_csv,
    add_images,
    add_overwrite,
    add_run,
    add_salvage,
    add_top_k,
    add_weights,
    run_options,
    sources,
    verdict,
    warn,
    writing,
)

if TYPE_CHECKING:
    from beam_flowers.workflows.progress import Progress
    from beam_flowers.workflows.score import ScoreSummary
    from beam_flowers.workflows.score_options import ScoreOptions

INTERRUPTED = "the same command goes on from what is finished"
"""Shown to the user after Ctrl-C."""

EXAMPLE = "beam-flowers score more-photos --model model --output labels.csv"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers score`."""
    parser.epilog = f"""\
{IMAGES}
IMAGES may be a feature store: then no image is read and no network runs.

Reads IMAGES and MODEL, writes OUTPUT.parquet, .csv, .jsonl or .arrow (or .feather), with
OUTPUT.rejects beside it, or a folder of Parquet parts, which goes on where a killed run stopped.
A file also has `given_label`, of the folder or manifest, the further columns of a manifest
(`input_` before names of ours) and `relative_path`. A score is the softmax probability of a
label, not an accuracy: `train` measures that. Another rule or list of models makes the table
anew: with --store that takes seconds.

{BEAM}"""
    add_images(parser)
    add_models(parser)
    parser.add_argument(
        "--output", required=True, help=".parquet, .csv, .jsonl, .arrow, .feather or a folder"
    )
    add_overwrite(parser)
    parser.add_argument(
        "--store", help="take vectors from this store; keep others in it, beside its collection"
    )
    add_top_k(parser)
    _add_layout(parser)
    add_salvage(
        parser,
        "a column `format` then says how much is, also of rows that a store has. Of images that "
        "were rejected before, with --retry-rejects",
    )
    add_weights(parser)
    add_run(parser)


def _add_layout(parser: argparse.ArgumentParser) -> None:
    add_csv(parser)
    parser.add_argument(
        "--separate-columns",
        action="store_true",
        help="columns label_1, score_1, label_2, ... in place of the list top_k",
    )
    parser.add_argument(
        "--partition-by",
        choices=["label"],
        help="a folder `label=...` for each label, as Hive has it; OUTPUT is a folder then, and "
        "the files have the label's text as label_text",
    )
    parser.add_argument(
        "--copy-to",
        metavar="FOLDER",
        help="copy the images into a folder for each label there; nothing is overwritten",
    )


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers score`."""
    with shown(arguments.progress) as progress:
        summary = _score(arguments, beams, progress)
    output = arguments.output
    if arguments.progress != "json":
        print_answers(summary.answers, summary.reasons, _rejects_of(output))
    following = f"beam-flowers report {shlex.quote(output)} --output report.html"
    conclude(arguments, summary, progress, {"table": output}, following)
    if summary.copied:
        print(f"{summary.copied} (folder: {arguments.copy_to})")
        if summary.copied.failed:
            return 1
    return verdict(summary, arguments.max_bad_fraction)


def _rejects_of(output: str) -> str:
    from beam_flowers.scoring.write_table import rejects_name, suffix

    return rejects_name(output) if suffix(output) else f"{output.rstrip('/')}/__rejects"


def _score(arguments: argparse.Namespace, beams: list[str], progress: Progress) -> ScoreSummary:
    from beam_flowers.images.find import require_sources
    from beam_flowers.workflows.score import score_images
    from beam_flowers.workflows.score_options import check_outputs
    from beam_flowers.workflows.score_stored import is_store

    job = _job(arguments)
    check_outputs(job)
    require_sources(arguments.images)
    bundles = list(read_models(arguments).values())
    from_store = len(job.images) == 1 and is_store(job.images[0])
    needed = arguments.precision or not from_store
    networks = backbones_of(bundles[0], arguments) if needed else []
    bundles = fitted(bundles, networks, arguments)
    options = run_options(arguments, beams)
    return score_images(job, bundles, networks, options, warn, progress)


def _job(arguments: argparse.Namespace) -> ScoreOptions:
    from beam_flowers.workflows.score_options import ScoreOptions

    return ScoreOptions(
        tuple(sources(arguments)),
        arguments.output,
        store=arguments.store,
        top_k=arguments.top_k,
        rule=rule_of(arguments),
        separate_columns=arguments.separate_columns,
        partition_by_label=bool(arguments.partition_by),
        copy_to=arguments.copy_to,
        writing=writing(arguments, *arguments.model),
        exact_csv=arguments.csv == "exact",
    )
