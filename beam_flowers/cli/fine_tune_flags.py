"""Adds the flags of `train --fine-tune`, and runs it."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from beam_flowers.cli.screen import tell
from beam_flowers.cli.shared_flags import (
    NAME_THE_PATH,
    add_weights,
    resolve_backbone,
    warn,
    writing,
)
from beam_flowers.errors import InputError

if TYPE_CHECKING:
    from beam_flowers.backbones.resolve import ResolvedBackbone
    from beam_flowers.head.split import SplitOptions
    from beam_flowers.workflows.progress import Progress

HELP = """\
--fine-tune trains the network itself, not a head on its vectors: all layers, on the images, for
minutes to hours, at several times the cost of embedding them in each epoch. It takes labels and
split from STORE, begins with the backbone of STORE and a head trained on its vectors, and writes a
new backbone, the folder --fine-tuned, and with --model the head that was trained together with it:
`score IMAGES --model MODEL --backbone-path FOLDER` labels with the two. Of the flags it takes those
of labels, split and seed, --train-epochs (default 6), --batch-size, --momentum, --dropout and
--label-smoothing with image-classifier's defaults, and --learning-rate (default 0.0001). It trains
by AdamW on images that are mirrored, cut and brightened by chance, each time anew, and keeps the
epoch with the lowest validation cross entropy. --no-flip leaves the mirroring out, where left and
right matter, as in text. One seed gives the same weights on one machine, as far as TensorFlow's
determinism goes. A head trained anew on the new vectors can be worse than that
of --model, as its training images are ones that the network knows by heart; give it the same
split and seed: else such images would be among the test images."""

SETTINGS = (
    "train_epochs",
    "batch_size",
    "learning_rate",
    "momentum",
    "dropout",
    "label_smoothing",
    "flip",
)
_OTHERS = (
    "how_many_training_steps",
    "train_batch_size",
    "eval_step_interval",
    "validation_batch_size",
    "l1",
    "l2",
    "hidden",
    "early_stopping",
    "class_weights",
    "label_separator",
    "warm_start",
    "sweep",
    "sweep_l1",
    "min_accuracy",
    "summaries_dir",
    "augmented",
    "drop_suspects",
)


def add_fine_tune(parser: argparse.ArgumentParser) -> None:
    """Adds `--fine-tune` and what goes with it."""
    parser.add_argument(
        "--fine-tune",
        metavar="IMAGES",
        nargs="+",
        help="train the backbone itself on the images of STORE that are in IMAGES: see below",
    )
    parser.add_argument(
        "--fine-tuned", metavar="FOLDER", help="folder to write the fine-tuned backbone to"
    )
    parser.add_argument(
        "--no-flip",
        dest="flip",
        action="store_false",
        default=None,
        help="--fine-tune: mirror no image; for text, and where left and right matter",
    )
    add_weights(parser)


def run_fine_tune(arguments: argparse.Namespace, split: SplitOptions, progress: Progress) -> int:
    """Runs `beam-flowers train --fine-tune`."""
    _check(arguments)
    progress.begin("fine-tuning")
    from beam_flowers import files
    from beam_flowers.backbones.catalogue import require_in_catalogue
    from beam_flowers.images.outputs import check_target
    from beam_flowers.store.features import choose_section, open_store
    from beam_flowers.workflows.fine_tune import FineTuneOptions, fine_tune
    from beam_flowers.workflows.known_recipes import recipes_of_store

    check_target(arguments.fine_tuned, "a backbone", writing(arguments, arguments.store))
    root = files.absolute(arguments.store)
    _, section = choose_section(root, open_store(root), arguments.backbone)
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    options = FineTuneOptions(**{n: v for n, v in settings.items() if v is not None})
    name = str(section.about["name"])
    if not arguments.backbone_path:
        require_in_catalogue(name, "the store", NAME_THE_PATH)
    network = resolve_backbone(arguments, name, recipes_of_store(root))
    backbone = network.in_form(section.fingerprint)
    tuned = fine_tune(
        root,
        backbone,
        arguments.fine_tune,
        arguments.fine_tuned,
        options,
        split,
        seed=arguments.seed,
        labels=arguments.labels,
        model=arguments.model,
        say=tell,
        warn=warn,
        progress=progress,
        writing=writing(arguments),
    )
    tell(f"backbone: {tuned.backbone.path} (fingerprint {tuned.backbone.short})")
    if tuned.model_id:
        tell(f"model: {arguments.model} (id {tuned.model_id[:12]})")
    tell(_next(arguments, tuned.backbone))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not arguments.fine_tuned:
        raise InputError("--fine-tune writes a new backbone: name its folder with --fine-tuned")
    given = [name for name in _OTHERS if getattr(arguments, name) not in (None, False)]
    if given or arguments.recipe == "retrain":
        flag = given[0].replace("_", "-") if given else "recipe retrain"
        raise InputError(f"--fine-tune does not take --{flag}; it trains the network, no head")
    if arguments.backbone and "+" in arguments.backbone:
        raise InputError(f"--fine-tune trains one backbone at a time, not {arguments.backbone!r}")


def _next(arguments: argparse.Namespace, backbone: ResolvedBackbone) -> str:
    """Returns the commands that use the new backbone, with the same labels and split."""
    flags = (
        "seed",
        "split",
        "validation_percentage",
        "testing_percentage",
        "labels",
        "retrain_image_dir",
        "min_images",
    )
    given = [(flag, getattr(arguments, flag)) for flag in flags]
    kept = [w for f, v in given if v is not None for w in (f"--{f.replace('_', '-')}", str(v))]
    store, name = arguments.store, f"{backbone.row.name}-{backbone.short}"
    embed = ["embed", *arguments.fine_tune, "--store", store, "--backbone", backbone.path]
    train = ["train", store, "--backbone", name, "--model", "MODEL", *kept]
    score = ["score", *arguments.fine_tune, "--model", str(arguments.model)]
    score += ["--output", "TABLE.csv", "--backbone-path", backbone.path]
    for command in (embed, score):
        command += ["--trust-backbone"] if backbone.trusted else []
    commands = [score] if arguments.model else [embed, train]
    return "\n  beam-flowers ".join(["next:", *map(shlex.join, commands)])
