"""Makes the parser of all commands. It imports neither Beam nor TensorFlow nor NumPy."""

from __future__ import annotations

import argparse
from types import ModuleType

from beam_flowers.cli import (
    backbones,
    check,
    classify,
    completion,
    demo,
    doctor,
    embed,
    evaluate,
    export,
    forget,
    fsck,
    history,
    import_bottlenecks,
    init,
    report,
    restore,
    review,
    score,
    train,
    vacuum,
)
from beam_flowers.cli.config import add_config
from beam_flowers.cli.help import Parser, lay_out
from beam_flowers.cli.log import add_log

COMMANDS: dict[str, tuple[str, ModuleType]] = {
    "doctor": ("say what is wrong with a collection, before any network runs", doctor),
    "embed": ("compute the vectors of images into a feature store", embed),
    "train": ("train a softmax head on a feature store", train),
    "evaluate": ("measure a model on the images of a store", evaluate),
    "score": ("label a collection into a table", score),
    "classify": ("print the labels of a few images", classify),
    "report": ("draw a model, a store or a table of scores as one HTML page", report),
    "review": ("label by key the images whose labels are worth most", review),
    "export": ("write a model for TensorFlow, TFLite, Keras or ONNX", export),
    "check": ("find out whether the workers have all that a run needs", check),
    "backbones": ("list the networks; time or quantise one", backbones),
    "vacuum": ("delete files left by interrupted runs", vacuum),
    "forget": ("take images of a folder, missing ones, or a backbone out of a store", forget),
    "fsck": ("check every file of a store or table against its digest", fsck),
    "history": ("list the versions of a store or table", history),
    "restore": ("make an older version of a store or table the newest again", restore),
    "import-bottlenecks": ("take over the text files that retrain.py kept", import_bottlenecks),
    "init": ("write a configuration file with every flag, for --config", init),
    "completion": ("write what lets a shell complete commands and flags", completion),
    "demo": ("embed, train and score the photographs that ship with the package", demo),
}
"""Name → summary and module: `fill` adds the flags, `EXAMPLE` shows a call, `run` runs it."""


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands."""
    parser = Parser(
        "beam-flowers",
        description="Labels for folders of images. A pre-trained network turns each image into a "
        "vector, once;\nlabels are learnt from the vectors in seconds.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, module) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.fill(command)
        add_log(command)
        add_config(command)
        lay_out(command, name, module.EXAMPLE)
    return parser
