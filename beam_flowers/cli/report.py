"""Writes an HTML page about a store, model, score table or collection."""

from __future__ import annotations

import argparse

from beam_flowers.cli.beam_flags import require_no_pipeline
from beam_flowers.cli.progress import add_progress, shown
from beam_flowers.cli.shared_flags import add_overwrite, writing

OUTPUT = "report.html"

_EPILOG = """\
SOURCE is the folder of a model (with --store: its accuracy, mistakes, confusion, calibration), of
a store (labels, labels to check, map, rejects) or a table of scores (labels given, samples,
threshold). Reads them and the images to be shown, whose small copies go into the file; changes
none. OUTPUT is one file that needs no network and opens by double click.

The accuracy is the one of `evaluate`: on the testing side of the split that the model was trained
with, by default."""

EXAMPLE = "beam-flowers report model --store store --output report.html"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers report`."""
    parser.epilog = _EPILOG
    parser.add_argument("source", metavar="SOURCE", help="a model, a store or a table of scores")
    parser.add_argument(
        "--output", metavar="FILE", default=OUTPUT, help=f"file to write (default ./{OUTPUT})"
    )
    add_overwrite(parser)
    parser.add_argument("--store", help="the store to measure a model on, or of scored images")
    parser.add_argument(
        "--split",
        default="testing",
        choices=("testing", "validation", "training", "all"),
        help="which images to measure a model on (default testing)",
    )
    parser.add_argument(
        "--labels", metavar="MANIFEST", help="corrected labels, as they were given to train"
    )
    parser.add_argument("--backbone", help="whose vectors, of a store with several")
    parser.add_argument("--model-id", help="whose scores, of a table with several models")
    parser.add_argument(
        "--summaries-dir", metavar="DIR", help="step logs of train; the newest run is shown"
    )
    parser.add_argument(
        "--folds",
        type=int,
        default=5,
        help="trainings in the search for wrong labels (default 5; 0 leaves it out)",
    )
    parser.add_argument(
        "--thumbnails",
        type=int,
        default=600,
        help="most images to show, 5 KB each (default 600)",
    )
    parser.add_argument(
        "--map-points", type=int, default=1000, help="most points of the map (default 1000)"
    )
    add_progress(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers report`."""
    from beam_flowers.workflows.report import ReportJob, write_report

    require_no_pipeline("report", beams)
    job = ReportJob(
        arguments.source,
        arguments.output,
        arguments.store,
        arguments.split,
        arguments.labels,
        arguments.backbone,
        arguments.summaries_dir,
        arguments.folds,
        arguments.thumbnails,
        arguments.map_points,
        arguments.model_id,
        writing(arguments),
    )
    with shown(arguments.progress) as progress:
        done = write_report(job, progress)
    print(
        f"report: {arguments.output} ({len(done.html.encode()) / 1e6:.1f} MB, "
        f"{done.thumbnails} thumbnails)"
    )
    if done.unavailable:
        print(f"{done.unavailable} images cannot be shown; their places in the report say why")
    return 0
