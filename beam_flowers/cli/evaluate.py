"""Measures a model and prints the result."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from beam_flowers.cli.beam_flags import require_no_pipeline
from beam_flowers.cli.progress import add_progress, print_object, shown
from beam_flowers.cli.screen import visible
from beam_flowers.cli.shared_flags import add_csv, add_overwrite, warn, writing

if TYPE_CHECKING:
    from beam_flowers.workflows.evaluate import EvaluatedModel
    from beam_flowers.workflows.progress import Progress

OUTPUT = "beam-flowers-evaluation"

_EPILOG = """\
Reads STORE and MODEL, no image. Writes DIR/evaluation.json and evaluation.md, confusion.csv,
misclassified.csv and, with matplotlib (pip install 'beam-flowers[plots]'), confusion.png.

The accuracy is, by default, that on the testing side of the very split that MODEL was trained with,
computed again from the rule, percentages and seed in it: images that had no part in the
training, the one to quote. --split training and all flatter; all is for a store of other
images. If STORE has changed since the training, a warning says so. Suspected label errors are
searched among all labelled images, each scored by a head trained without it."""

EXAMPLE = "beam-flowers evaluate store --model model"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers evaluate`."""
    parser.epilog = _EPILOG
    parser.add_argument("store", metavar="STORE", help="folder of the feature store")
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument(
        "--output", metavar="DIR", default=OUTPUT, help=f"folder to write to (default ./{OUTPUT})"
    )
    add_overwrite(parser)
    add_csv(parser)
    parser.add_argument(
        "--split",
        default="testing",
        choices=("testing", "validation", "training", "all"),
        help="which images to measure on (default testing)",
    )
    parser.add_argument("--backbone", help="refuse a model of another backbone than this")
    parser.add_argument(
        "--labels", metavar="MANIFEST", help="corrected labels, as they were given to train"
    )
    parser.add_argument(
        "--neighbours", metavar="IMAGE_URI", help="also list the images nearest to this one"
    )
    parser.add_argument(
        "--folds",
        type=int,
        default=5,
        help="trainings in the search for wrong labels (default 5; 0 leaves it out)",
    )
    add_progress(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers evaluate`."""
    require_no_pipeline("evaluate", beams)
    with shown(arguments.progress) as progress:
        done = _evaluate(arguments, progress)
    for line in done.report["measured"]["warnings"]:
        warn(line)
    print("\n".join(summary_lines(done.report)))
    if not done.has_plot and not done.report["model"]["multi_label"]:
        print("no confusion.png: pip install 'beam-flowers[plots]' gives the drawing library")
    print(f"evaluation: {arguments.output} ({', '.join(done.written)})")
    if arguments.progress == "json":
        seconds = {name: round(value, 2) for name, value in progress.seconds.items()}
        accuracy = done.report["accuracy"]["value"]
        print_object(event="summary", seconds=seconds, accuracy=accuracy, output=arguments.output)
    return 0


def _evaluate(arguments: argparse.Namespace, progress: Progress) -> EvaluatedModel:
    from beam_flowers.workflows.evaluate import EvaluationJob, evaluate_model

    job = EvaluationJob(
        arguments.store,
        arguments.model,
        arguments.output,
        arguments.split,
        arguments.backbone,
        arguments.labels,
        arguments.neighbours,
        arguments.folds,
        writing=writing(arguments),
        exact_csv=arguments.csv == "exact",
    )
    return evaluate_model(job, progress)


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """Returns the report in a few lines; the first names the images that were measured."""
    accuracy = report["accuracy"]
    shares = ", ".join(f"top-{s['k']} {s['value']:.1%}" for s in report["top_k"]["shares"][1:])
    error = report["calibration"]["expected_calibration_error"]
    lines = [
        f"measured on {report['measured']['sentence']}",
        f"accuracy {accuracy['value']:.1%} (95 % interval {accuracy['low']:.1%} to "
        f"{accuracy['high']:.1%}), {shares}",
        f"cross entropy {report['cross_entropy']['value']:.4f} nats, expected calibration error "
        f"{error:.1%}",
        f"misclassified: {len({m['uri'] for m in report['misclassified']['rows']})} images",
    ]
    suspects, near = report["suspected_label_errors"], report["neighbours"]
    if suspects is not None:
        lines.append(
            f"suspected label errors: {len(suspects['rows'])} of {suspects['measured_on']}"
        )
    if near is not None:
        lines.append(f"nearest to {visible(near['uri'])} (label: {visible(str(near['label']))}):")
        lines += [
            f"  {n['similarity']:.4f}  {visible(str(n['label']))}  {visible(n['uri'])}"
            for n in near["rows"]
        ]
    return lines
