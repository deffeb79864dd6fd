"""Trains a head from a store."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from beam_flowers.cli.contrib import contrib
from beam_flowers.cli.fine_tune_flags import HELP, add_fine_tune, run_fine_tune
from beam_flowers.cli.progress import add_progress, print_object, shown
from beam_flowers.cli.screen import tell
from beam_flowers.cli.shared_flags import ACCURACY, BEAM, add_overwrite, warn, writing
from beam_flowers.errors import InputError, StoreError, TrainingError

if TYPE_CHECKING:
    from beam_flowers.head.softmax import TrainingStep
    from beam_flowers.head.split import SplitOptions
    from beam_flowers.head.store_examples import StoredExamples
    from beam_flowers.head.sweep import SweepTrial
    from beam_flowers.workflows.progress import Progress
    from beam_flowers.workflows.train import TrainedModel

_SPLIT = """\
The split follows from a hash of each image's content: copies stay on one side, moving or adding
files changes nothing, and no class is left out of a side while it has images for it. --split
retrain divides by path, bit for bit as retrain.py did: by absolute path, or with
--retrain-image-dir by the path that retrain.py was given. Splits that a manifest or train/val/test
folders fix are kept."""

INTERRUPTED = "store and model are as they were; the same command begins anew"
"""Shown to the user after Ctrl-C."""

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

EXAMPLE = "beam-flowers train store --model model"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers train`."""
    parser.epilog = (
        "Reads STORE, writes the folder MODEL: model.json, weights.npy, bias.npy, labels.txt, and "
        "the arrays\nof a hidden layer.\n\n"
        f"{ACCURACY}\n\n{_SPLIT}\n\n{HELP}\n\n{BEAM}"
    )
    parser.add_argument("store", metavar="STORE", help="folder of the feature store")
    parser.add_argument("--model", help="folder to write the model to")
    add_overwrite(parser)
    add_fine_tune(parser)
    parser.add_argument(
        "--backbone", help="whose vectors, where the store has several; a+b: both side by side"
    )
    parser.add_argument(
        "--recipe",
        default="lbfgs",
        choices=("lbfgs", "retrain", "image-classifier"),
        help="full-batch L-BFGS, in seconds (default), retrain.py's steps, or "
        "make_image_classifier's epochs",
    )
    parser.add_argument("--seed", type=int, default=0, help="of split and training (default 0)")
    _add_labels(parser)
    _add_split(parser)
    _add_regularisation(parser)
    _add_steps(parser)
    _add_choice(parser)
    add_progress(parser)


def _add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--augmented",
        action="store_true",
        help="train on the distorted copies of `embed --augment` as well, those of the training "
        "side only",
    )
    parser.add_argument(
        "--labels",
        metavar="MANIFEST",
        help="table of label and uri or sha256: labels for images of the store, "
        "which stays as it is; an empty label takes an image out",
    )
    parser.add_argument(
        "--label-separator",
        metavar="SIGN",
        help="an image's label text is several labels with SIGN between them: "
        "a sigmoid for each label (default: one label an image)",
    )


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="hash", choices=("hash", "retrain"), help="see below")
    parser.add_argument(
        "--retrain-image-dir",
        metavar="DIR",
        help="--split retrain: --image_dir as retrain.py was given it, such as flower_photos; "
        "needed where that was a relative path, as it was hashed along",
    )
    parser.add_argument(
        "--min-images",
        type=int,
        default=1,
        metavar="N",
        help="leave labels with fewer than N different images out (default 1)",
    )
    for name in ("validation", "testing"):
        parser.add_argument(
            f"--{name}-percentage",
            type=int,
            help=f"percent of the images for {name} (default 10); where it is given, a label "
            "without an image there is an error, not a warning"
            + ("; lbfgs trains on them, too" if name == "validation" else ""),
        )


def _add_regularisation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--l1", "--l1-regularizer", dest="l1", type=float, help="weight of sum|W| (default 0)"
    )
    parser.add_argument(
        "--l2",
        "--l2-regularizer",
        dest="l2",
        type=float,
        help="weight of half the sum of W² (default in lbfgs, over scaled vectors: 0.25 / number "
        "of labels, at most 0.05; 0 in retrain); in image-classifier of the whole sum, as its "
        "ancestor had it (default 0.0001)",
    )
    parser.add_argument(
        "--dropout",
        "--dropout-rate",
        dest="dropout",
        type=float,
        help="retrain, image-classifier: share of the last layer's inputs dropped in training "
        "(default 0 and 0.2)",
    )
    parser.add_argument(
        "--label-smoothing",
        type=float,
        help="retrain, image-classifier: share of the target spread over all labels (default 0 "
        "and 0.1)",
    )
    parser.add_argument(
        "--class-weights",
        choices=("balanced",),
        help="lbfgs, image-classifier: let every label count alike (retrain draws so already)",
    )


def _add_steps(parser: argparse.ArgumentParser) -> None:
    settings: dict[str, tuple[Callable[[str], float], str]] = {
        "how-many-training-steps": (int, "retrain: batches, not epochs (default 4000)"),
        "train-batch-size": (int, "retrain: images a step (default 100; the paper had 10)"),
        "eval-step-interval": (int, "retrain: steps between reports (default 10)"),
        "validation-batch-size": (
            int,
            "retrain: images drawn for a report, -1 for all (default 100)",
        ),
        "train-epochs": (int, "image-classifier: passes over the images (default 5)"),
        "batch-size": (int, "image-classifier: images a step (default 32)"),
        "momentum": (float, "image-classifier: of gradient descent (default 0.9)"),
        "learning-rate": (
            float,
            "retrain, image-classifier: of gradient descent (default 0.01 and 0.005)",
        ),
        "hidden": (
            int,
            "retrain, image-classifier: width of a hidden ReLU layer, behind which dropout then "
            "acts (default: none; the flowers sample had 512, with dropout 0.5)",
        ),
        "early-stopping": (
            int,
            "retrain, image-classifier: end after so many reports without a lower validation "
            "cross entropy, and keep the best step (default: go on)",
        ),
    }
    for name, (kind, text) in settings.items():
        parser.add_argument(f"--{name}", type=kind, help=text)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--warm-start", metavar="MODEL", help="begin from an older model's head")
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="choose l2, and where --backbone is not given the backbone, by the cross entropy of a "
        "cross-validation on the training and validation images",
    )
    parser.add_argument("--sweep-l1", action="store_true", help="--sweep over l1 as well")
    parser.add_argument(
        "--folds",
        type=int,
        default=5,
        help="of the sweep, and in which lbfgs chooses l2 and temperature (default 5); 0: choose "
        "them by the validation images, which then train nothing",
    )
    parser.add_argument(
        "--drop-suspects",
        type=float,
        nargs="?",
        const=0.3,
        metavar="SHARE",
        help="train without images whose label is probably wrong, at most SHARE of those of a "
        "label (0.3 if not named); test images stay, and STORE as it is",
    )
    parser.add_argument(
        "--min-accuracy",
        type=float,
        help="0 to 1: write no model, and exit with 1, if the accuracy on the test images (or "
        "else the validation images) is below",
    )
    parser.add_argument(
        "--summaries-dir",
        help="folder for the steps as JSON lines and TensorBoard summaries, in a new sub-folder",
    )


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers train`."""
    with shown(arguments.progress) as progress:
        if arguments.fine_tune:
            return run_fine_tune(arguments, _split(arguments), progress)
        if arguments.flip is not None:
            raise InputError("--no-flip is of --fine-tune; heads are trained on vectors")
        if not arguments.model:
            raise InputError("name a folder to write the model to with --model")
        try:
            trained = _train(arguments, progress)
        except TrainingError:
            _require_labels(arguments)
            raise
    print_trained(trained, arguments.model)
    _note_copies(arguments, trained)
    if arguments.progress == "json":
        accuracies = {name: found.accuracy for name, found in trained.result.metrics.items()}
        seconds = {name: round(value, 2) for name, value in progress.seconds.items()}
        print_object(
            event="summary", seconds=seconds, model_id=trained.model_id, accuracies=accuracies
        )
    return 0


def _require_labels(arguments: argparse.Namespace) -> None:
    """Raises InputError for a store without a label, which is worse than any other fault."""
    from beam_flowers import files
    from beam_flowers.store.features import has_labels

    with contextlib.suppress(StoreError):
        if not arguments.labels and not has_labels(files.absolute(arguments.store)):
            raise InputError(
                f"no image of {arguments.store!r} has a label. First: beam-flowers review "
                f"{shlex.quote(arguments.store)}, then this with --labels corrections.csv; or "
                "embed images that lie in a folder for each label"
            )


def _train(arguments: argparse.Namespace, progress: Progress) -> TrainedModel:
    from beam_flowers.head.recipes import recipe
    from beam_flowers.head.sweep import SweepOptions
    from beam_flowers.workflows.train import TrainOptions, train_model

    settings = {name: getattr(arguments, name) for name in _RECIPE_FLAGS}
    sweeps = arguments.sweep or arguments.sweep_l1
    options = TrainOptions(
        arguments.labels,
        arguments.label_separator,
        arguments.warm_start,
        SweepOptions(arguments.folds, arguments.sweep_l1) if sweeps else None,
        arguments.min_accuracy,
        arguments.summaries_dir,
        tuple(_percentages(arguments)),
        writing(arguments),
        arguments.folds,
        arguments.drop_suspects,
    )
    # L-BFGS reports each iteration, the others when it is time to.
    log = StepLog(10 if arguments.recipe == "lbfgs" else 1)
    trained = train_model(
        arguments.store,
        arguments.model,
        recipe(arguments.recipe, **settings),
        _split(arguments),
        arguments.backbone,
        arguments.seed,
        log.report,
        options,
        print_trial,
        progress,
        _copies_of(arguments.store) if arguments.augmented else None,
    )
    log.finish()
    return trained


def _percentages(arguments: argparse.Namespace) -> dict[str, int]:
    """Returns the percentages that are given, by their splits."""
    names = ("validation", "testing")
    given = {name: getattr(arguments, f"{name}_percentage") for name in names}
    return {name: value for name, value in given.items() if value is not None}


def _split(arguments: argparse.Namespace) -> SplitOptions:
    from beam_flowers.head.split import SplitOptions

    given = {f"{name}_percentage": value for name, value in _percentages(arguments).items()}
    return SplitOptions(
        arguments.split,
        **given,
        retrain_image_dir=arguments.retrain_image_dir,
        min_images=arguments.min_images,
    )


def _copies_of(store: str) -> Callable[[StoredExamples], StoredExamples]:
    """Returns a function that adds the distorted copies of a store to its rows."""
    from beam_flowers import files

    return partial(contrib("augment.training").with_copies, files.absolute(store))


def _note_copies(arguments: argparse.Namespace, trained: TrainedModel) -> None:
    from beam_flowers import files
    from beam_flowers.store.names import AUGMENTED

    store = files.absolute(arguments.store)
    if arguments.augmented or not files.is_folder(files.join(store, AUGMENTED)):
        return
    held = contrib("augment.training").copies_held(store, trained.bundle.fingerprint)
    if held:
        print(f"note: the store has {held} distorted copies an image; --augmented trains on them")


def print_trial(trial: SweepTrial) -> None:
    """Prints a line of the sweep's table."""
    penalties = f"l1 {trial.recipe.l1:<7g} l2 {trial.recipe.l2:<7g}"
    found = trial.result
    tell(
        f"{trial.backbone:<30} {penalties} accuracy {found.accuracy:.2%} "
        f"(deviation {found.deviation:.2%}), cross entropy {found.cross_entropy:.4f} "
        f"({len(found.folds)} folds, {found.count} images)"
    )


class StepLog:
    """Prints the steps that `interval` divides, and the last."""

    def __init__(self, interval: int = 10) -> None:
        self._interval = interval
        self._waiting: TrainingStep | None = None

    def report(self, step: TrainingStep) -> None:
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
        tell(
            f"step {step.step}: train accuracy {step.train_accuracy:.1%}, {middle}"
            f"cross entropy {step.cross_entropy:.4f}"
        )


_NOTES = {
    "tuned": ", each by a head trained without it; l2 and temperature were chosen by them",
    "nested": ", each by a head trained, and all chosen, without it: the one to quote",
}
"""Names the images of an accuracy that belongs to no split."""


def print_trained(trained: TrainedModel, model: str) -> None:
    """Prints the measured accuracy and the folder of the model."""
    for line in trained.result.warnings:
        warn(line)
    if trained.bundle.sweep:
        chosen = trained.bundle.recipe
        tell(f"chosen: {trained.bundle.backbone}, l1 {chosen['l1']:g}, l2 {chosen['l2']:g}")
    names = {"training": "train", "validation": "validation", "testing": "test"}
    for split, metrics in trained.result.metrics.items():
        tell(
            f"{names.get(split, split)} accuracy {metrics.accuracy:.1%} "
            f"(95 % interval {metrics.accuracy_low:.1%} to {metrics.accuracy_high:.1%}, "
            f"{metrics.count} images{_NOTES.get(split, '')})"
        )
    crossed = "folds" in (trained.result.choices or {})
    held_out = "images held out by fold" if crossed else "validation images"
    if fitted := trained.result.calibration:
        tell(
            f"temperature {fitted.temperature:.3f}: cross entropy {fitted.cross_entropy_before:.4f}"
            f" -> {fitted.cross_entropy_after:.4f} on the {fitted.count} {held_out}"
        )
    choices = trained.result.choices or {}
    if "dropped" in choices:
        tell(f"dropped {choices['dropped']['images']} images whose label is probably wrong")
    if len(choices.get("tried", ())) > 1:
        tell(f"l2 {trained.bundle.recipe['l2']:g}, of the lowest cross entropy on those")
    tell(f"model: {model} ({len(trained.bundle.labels)} labels, id {trained.model_id[:12]})")
