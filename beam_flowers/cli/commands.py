"""The commands: arguments → a run → lines on the screen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from beam_flowers import files
from beam_flowers.backbones.catalogue import CATALOGUE
from beam_flowers.backbones.resolve import ResolvedBackbone, resolve, whereabouts
from beam_flowers.errors import InputError, ModelError
from beam_flowers.head.bundle import Bundle, read_bundle, require_backbone
from beam_flowers.head.recipes import recipe
from beam_flowers.head.softmax import Step
from beam_flowers.head.split import SplitOptions
from beam_flowers.head.sweep import SweepOptions, Trial
from beam_flowers.records import Reject
from beam_flowers.runs.embed import RunOptions, Summary, embed_images
from beam_flowers.runs.score import Job, is_store, score_images
from beam_flowers.runs.train import Trained, TrainOptions, train_model

EXIT_TOO_MANY_BAD = 3
_RECIPE_FLAGS = (
    "how_many_training_steps",
    "train_batch_size",
    "eval_step_interval",
    "validation_batch_size",
    "train_epochs",
    "batch_size",
    "learning_rate",
    "momentum",
    "dropout",
    "l1",
    "l2",
    "label_smoothing",
    "hidden",
    "early_stopping",
    "class_weights",
)


def run(command: str, arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs a command; returns its exit code."""
    commands: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
        "embed": embed,
        "train": train,
        "score": score,
        "classify": classify,
        "backbones": backbones,
        "vacuum": vacuum,
        "demo": demo,
    }
    return commands[command](arguments, beams)


def warn(message: str) -> None:
    """A line for the user that ends nothing."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def embed(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers embed`."""
    backbone = _resolve(arguments, arguments.backbone)
    summary = embed_images(
        arguments.images, arguments.store, backbone, _options(arguments, beams), warn=warn
    )
    print(f"{summary} (store: {arguments.store})")
    return _verdict(summary, arguments.max_bad_fraction)


def train(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers train`."""
    settings = {name: getattr(arguments, name) for name in _RECIPE_FLAGS}
    asked = {name: f"{name}_percentage" for name in ("validation", "testing")}
    given = {name: flag for name, flag in asked.items() if getattr(arguments, flag) is not None}
    percentages = {flag: getattr(arguments, flag) for flag in given.values()}
    split = SplitOptions(arguments.split, **percentages)
    sweeps = arguments.sweep or arguments.sweep_l1
    options = TrainOptions(
        arguments.labels,
        arguments.label_separator,
        arguments.warm_start,
        SweepOptions(arguments.folds, arguments.sweep_l1) if sweeps else None,
        arguments.min_accuracy,
        arguments.summaries_dir,
        tuple(given),
    )
    # L-BFGS reports each iteration, the others when it is time to.
    log = StepLog(10 if arguments.recipe == "lbfgs" else 1)
    trained = train_model(
        arguments.store,
        arguments.model,
        recipe(arguments.recipe, **settings),
        split,
        arguments.backbone,
        arguments.seed,
        log.report,
        options,
        print_trial,
    )
    log.finish()
    print_trained(trained, arguments.model)
    return 0


def print_trial(trial: Trial) -> None:
    """A line of the sweep's table."""
    penalties = f"l1 {trial.recipe.l1:<7g} l2 {trial.recipe.l2:<7g}"
    found = trial.result
    print(
        f"{trial.backbone:<30} {penalties} accuracy {found.accuracy:.2%} "
        f"(deviation {found.deviation:.2%}), cross entropy {found.cross_entropy:.4f} "
        f"({len(found.folds)} folds, {found.count} pictures)",
        flush=True,
    )


class StepLog:
    """Prints the steps that `interval` divides, and the last."""

    def __init__(self, interval: int = 10) -> None:
        self._interval = interval
        self._waiting: Step | None = None

    def report(self, step: Step) -> None:
        """Takes a step."""
        self._waiting = step
        if step.step % self._interval == 0:
            self.finish()

    def finish(self) -> None:
        """Prints the last step, if it was not printed."""
        step, self._waiting = self._waiting, None
        if step is None:
            return
        validation = step.validation_accuracy
        middle = "" if validation is None else f"validation accuracy {validation:.1%}, "
        print(
            f"step {step.step}: train accuracy {step.train_accuracy:.1%}, {middle}"
            f"cross entropy {step.cross_entropy:.4f}",
            flush=True,
        )


def print_trained(trained: Trained, model: str) -> None:
    """What was measured, and where the model lies."""
    for line in trained.result.warnings:
        warn(line)
    if trained.bundle.sweep:
        chosen = trained.bundle.recipe
        print(f"chosen: {trained.bundle.backbone}, l1 {chosen['l1']:g}, l2 {chosen['l2']:g}")
    names = {"training": "train", "validation": "validation", "testing": "test"}
    for split, metrics in trained.result.metrics.items():
        print(
            f"{names[split]} accuracy {metrics.accuracy:.1%} "
            f"(95 % interval {metrics.accuracy_low:.1%} to {metrics.accuracy_high:.1%}, "
            f"{metrics.count} pictures)"
        )
    if fitted := trained.result.calibration:
        print(
            f"temperature {fitted.temperature:.3f}: cross entropy {fitted.cross_entropy_before:.4f}"
            f" -> {fitted.cross_entropy_after:.4f} on the {fitted.count} validation pictures"
        )
    print(f"model: {model} ({len(trained.bundle.labels)} labels, id {trained.model_id[:12]})")


def score(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers score`."""
    bundle = read_bundle(files.absolute(arguments.model))
    job = Job(tuple(arguments.images), arguments.output, arguments.store, arguments.top_k)
    from_store = len(job.images) == 1 and is_store(job.images[0])
    from_store = from_store or len(bundle.fingerprints) > 1
    backbone = None if from_store else backbone_of(bundle, arguments)
    summary = score_images(job, bundle, backbone, _options(arguments, beams), warn)
    print(f"{summary} (table: {arguments.output})")
    return _verdict(summary, arguments.max_bad_fraction)


def classify(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers classify`."""
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


def table_line(name: str, ranking: Sequence[tuple[str, float]], width: int = 0) -> str:
    """One picture's labels, best first."""
    return f"{name:<{width}}  " + "  ".join(f"{label} {score:.4f}" for label, score in ranking)


def backbones(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers backbones`."""
    print(f"{'name':<20}{'input':<11}{'vector':<8}{'licence':<12}here")
    for row in CATALOGUE:
        size = f"{row.input_size}x{row.input_size}"
        print(f"{row.name:<20}{size:<11}{row.vector_length:<8}{row.licence:<12}{whereabouts(row)}")
    print("\nAny other: --backbone with a SavedModel folder, a .keras file or a TF-Hub handle.")
    return 0


def vacuum(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers vacuum`."""
    from beam_flowers.store.commits import vacuum as clear

    deleted = clear(files.absolute(arguments.store))
    print(f"deleted {len(deleted)} files that the newest commit of {arguments.store} does not name")
    return 0


def demo(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers demo`."""
    from beam_flowers.cli.demo import run_demo

    return run_demo(arguments.folder or "beam-flowers-demo", beams)


def _options(arguments: argparse.Namespace, beams: list[str]) -> RunOptions:
    if not 0 <= arguments.max_bad_fraction <= 1:
        raise InputError(
            f"--max-bad-fraction is a share from 0 to 1, not {arguments.max_bad_fraction!r}"
        )
    return RunOptions(beams, arguments.shards, arguments.retry_rejects, arguments.verify)


def _resolve(arguments: argparse.Namespace, name: str) -> ResolvedBackbone:
    return resolve(
        name,
        arguments.backbone_path,
        arguments.backbone_sha256,
        _pixel_range(arguments.pixel_range),
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
    if len(bundle.fingerprints) > 1:
        raise ModelError(
            f"the model takes the vectors of {bundle.backbone} side by side; embed the pictures"
            " with each of them into one store and `score` that"
        )
    backbone = _resolve(arguments, bundle.backbone)
    require_backbone(bundle, backbone.row.name, backbone.fingerprint, backbone.about()["pixels"])
    return backbone


def _verdict(summary: Summary, most: float) -> int:
    if summary.bad_fraction <= most:
        return 0
    warn(
        f"{summary.failures} of {summary.failures + summary.rows} pictures failed, "
        f"{summary.bad_fraction:.1%}; --max-bad-fraction allows {most:.1%}"
    )
    return EXIT_TOO_MANY_BAD
