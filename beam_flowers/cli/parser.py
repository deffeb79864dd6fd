"""The commands and their flags. Light: `--help` imports neither Beam nor TensorFlow."""

from __future__ import annotations

import argparse
from collections.abc import Callable

_IMAGES = """\
IMAGES is one or several of: a folder (its first-level folders are the labels; folders that are
all of train, val or validation, test are splits, with the labels one level deeper; files directly
in it have no label), a quoted glob, a list of paths (.txt), a manifest of uri[,label[,split]]
(.csv, .tsv, .parquet, .jsonl), a picture. Files are told by content, never by extension. What
cannot be used is written to a reject table with the reason. Names that start with a dot are
hidden: counted and passed over."""

_BEAM = """\
Every other flag is handed to Beam unchanged: --runner (default: FnApiRunner, in this process),
--temp_location, --direct_num_workers, filesystem options and so on."""

_ACCURACY = """\
Accuracies: "train" is measured on the pictures trained on (in the retrain recipe: on the batch
just trained on) and flatters; "validation" on pictures held back from the start, to watch the
training; "test", printed at the end, on pictures that had no part in it: the one to quote."""

_SPLIT = """\
The split follows from a hash of each picture's content: copies stay on one side, moving or adding
files changes nothing, and no class is left out of a side while it has pictures for it. --split
retrain divides by path, bit for bit as retrain.py did. Splits that a manifest or train/val/test
folders fix are kept."""


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        "beam-flowers",
        description="Labels for folders of pictures: vectors are computed once, with Apache Beam, "
        "and only a softmax head is trained.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, fill) in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        fill(command)
    return parser


def command_parser(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser | None:
    """The parser of one command."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found: argparse.ArgumentParser | None = action.choices.get(name)
            return found
    return None


def _embed(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        f"{_IMAGES}\n\nReads IMAGES, writes STORE: a folder of Parquet parts, one row a file, and "
        "STORE/__rejects.\nWhat the store has already is not computed again: not after a crash, "
        "not for moved or copied\nfiles. Measures no accuracy: `train` does.\n\n"
        f"{_BEAM}"
    )
    _add_images(parser)
    parser.add_argument("--store", required=True, help="folder of the feature store")
    _add_backbone(parser, "efficientnet-lite0")
    _add_run(parser)


def _train(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Reads STORE, writes the folder MODEL: model.json, weights.npy, bias.npy, labels.txt, and "
        "the arrays\nof a hidden layer.\n\n"
        f"{_ACCURACY}\n\n{_SPLIT}\n\n{_BEAM}"
    )
    parser.add_argument("store", metavar="STORE", help="folder of the feature store")
    parser.add_argument("--model", required=True, help="folder to write the model to")
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


def _score(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        f"{_IMAGES}\nIMAGES may be a feature store: then no picture is read and no network runs."
        "\n\nReads IMAGES and MODEL, writes OUTPUT.parquet, .csv or .jsonl with OUTPUT.rejects "
        "beside it, or a\nfolder of Parquet parts, which goes on where a killed run stopped. A "
        "score is the softmax\nprobability of a label, not an accuracy: `train` measures that.\n\n"
        f"{_BEAM}"
    )
    _add_images(parser)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--output", required=True, help=".parquet, .csv, .jsonl or a folder")
    parser.add_argument("--store", help="take vectors from this store; embed what it lacks")
    _add_top_k(parser)
    _add_weights(parser)
    _add_run(parser)


def _classify(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Reads the pictures and MODEL, prints the labels best first, writes nothing. A score is "
        "the softmax\nprobability of a label, not an accuracy: `train` measures that."
    )
    parser.add_argument("images", metavar="PICTURE", nargs="+", help="a picture file")
    parser.add_argument("--model", required=True, help="folder of the model")
    _add_top_k(parser)
    _add_weights(parser)


def _backbones(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Reads no picture, writes nothing, measures no accuracy."


def _vacuum(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Reads the newest commit of STORE, deletes what a killed run left there and the records of "
        "older\nversions. Not to be run "
        "while\nanother command writes to STORE. Measures no accuracy.\n\n" + _BEAM
    )
    parser.add_argument("store", metavar="STORE", help="folder of a store or of scores")


def _demo(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Reads the photographs in the package, writes FOLDER: store, model and labelled table.\n\n"
        f"{_ACCURACY}"
    )
    parser.add_argument("--folder", help="where to work (default: ./beam-flowers-demo)")


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGES", nargs="+", help="what to read: see below")


def _add_top_k(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--top-k", type=int, default=5, help="labels a picture (default 5)")


def _add_backbone(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--backbone",
        default=default,
        help=f"name, SavedModel folder, .keras file or TF-Hub handle (default {default})",
    )
    _add_weights(parser)


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backbone-path",
        help="where a named backbone's weights lie: a Keras "
        "weights file, a SavedModel folder or a TF-Hub handle",
    )
    parser.add_argument("--backbone-sha256", help="what the weights' sha256 must be")
    parser.add_argument(
        "--pixel-range",
        metavar="LOW,HIGH",
        help="what the network takes black and white as (default for an unnamed network: -1,1)",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shards", type=int, help="units of work (default: by number of files)")
    parser.add_argument(
        "--retry-rejects", action="store_true", help="try files again that were rejected"
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
        "all is written, if more of the pictures than this fail (default 1.0)",
    )


def _add_split(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--split", default="hash", choices=("hash", "retrain"), help="see below")
    for name in ("validation", "testing"):
        parser.add_argument(
            f"--{name}-percentage",
            type=int,
            help=f"percent of the pictures for {name} (default 10); where it is given, a label "
            "without a picture there is an error, not a warning",
        )


def _add_labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        metavar="MANIFEST",
        help="table of label and uri or sha256: labels for pictures of the store, "
        "which stays as it is; an empty label takes a picture out",
    )
    parser.add_argument(
        "--label-separator",
        metavar="SIGN",
        help="a picture's label text is several labels with SIGN between them: "
        "a sigmoid for each label (default: one label a picture)",
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
        help="weight of half the sum of W² (default 0.05 in lbfgs, over scaled vectors; 0 in "
        "retrain); in image-classifier of the whole sum, as its ancestor had it (default 0.0001)",
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
        "train-batch-size": (int, "retrain: pictures a step (default 100; the paper had 10)"),
        "eval-step-interval": (int, "retrain: steps between reports (default 10)"),
        "validation-batch-size": (
            int,
            "retrain: pictures drawn for a report, -1 for all (default 100)",
        ),
        "train-epochs": (int, "image-classifier: passes over the pictures (default 5)"),
        "batch-size": (int, "image-classifier: pictures a step (default 32)"),
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
        help="choose l2, and where --backbone is not given the backbone, by cross-validation on "
        "the training and validation pictures",
    )
    parser.add_argument("--sweep-l1", action="store_true", help="--sweep over l1 as well")
    parser.add_argument("--folds", type=int, default=5, help="of the sweep (default 5)")
    parser.add_argument(
        "--min-accuracy",
        type=float,
        help="0 to 1: write no model, and exit with 1, if the accuracy on the test pictures (or "
        "else the validation pictures) is below",
    )
    parser.add_argument(
        "--summaries-dir",
        help="folder for the steps as JSON lines and TensorBoard summaries, in a new sub-folder",
    )


_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "embed": ("compute the vectors of pictures into a feature store", _embed),
    "train": ("train a softmax head on a feature store", _train),
    "score": ("label a collection into a table", _score),
    "classify": ("print the labels of a few pictures", _classify),
    "backbones": ("list the networks", _backbones),
    "vacuum": ("clear what no commit of a store names", _vacuum),
    "demo": ("embed, train and score the photographs that ship with the package", _demo),
}
