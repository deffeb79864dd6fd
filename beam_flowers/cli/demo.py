"""Runs embed, train and score on the photos that ship with the package."""

from __future__ import annotations

import argparse
import importlib.resources
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from beam_flowers.cli.progress import add_progress, shown
from beam_flowers.cli.screen import tell
from beam_flowers.cli.shared_flags import (
    ACCURACY,
    DEFAULT_BACKBONE,
    add_overwrite,
    table_line,
    warn,
    writing,
)

if TYPE_CHECKING:
    from beam_flowers.images.outputs import Writing
    from beam_flowers.workflows.progress import Progress

INTERRUPTED = "the same command goes on from what is finished"
"""Shown to the user after Ctrl-C."""

_FOLDER = "beam-flowers-demo"
_NAMES = ("store", "model", "labels.parquet", "labels.rejects.parquet")

_NEXT = """
The same with your own images, one folder a label:
  beam-flowers embed PHOTOS --store {store}-mine
  beam-flowers train {store}-mine --model {model}-mine
  beam-flowers score MORE-PHOTOS --model {model}-mine --output labels.csv
  beam-flowers classify PHOTO.jpg --model {model}"""

EXAMPLE = "beam-flowers demo --folder demo"


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `beam-flowers demo`."""
    parser.epilog = (
        "Reads the photographs in the package, writes FOLDER: store, model and labelled table.\n\n"
        f"{ACCURACY}"
    )
    parser.add_argument("--folder", default=_FOLDER, help=f"where to work (default ./{_FOLDER})")
    add_overwrite(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """Runs `beam-flowers demo`."""
    work = Path(arguments.folder).absolute()
    store, model, table = (str(work / name) for name in ("store", "model", "labels.parquet"))
    terms = writing(arguments)
    _check(str(work), model, table, terms)
    with ExitStack() as stack:
        data = importlib.resources.files("beam_flowers") / "data" / "flowers"
        photos = stack.enter_context(importlib.resources.as_file(data))
        progress = stack.enter_context(shown(arguments.progress))
        tell(f"working in {work}")
        _run(photos, store, model, table, beams, progress, terms)
    _print_table(table)
    print(f"\nstore: {store}\nmodel: {model}\ntable: {table}")
    print(_NEXT.format(store=store, model=model))
    return 0


def _check(work: str, model: str, table: str, terms: Writing) -> None:
    from beam_flowers.head.bundle import check_model_folder
    from beam_flowers.workflows.score_options import ScoreOptions, check_outputs

    terms.check_folder(work, "the demo", _NAMES.__contains__, lambda folder: True)
    check_model_folder(model, terms)
    check_outputs(ScoreOptions((), table, writing=terms))


def _run(
    photos: Path,
    store: str,
    model: str,
    table: str,
    beams: list[str],
    progress: Progress,
    terms: Writing,
) -> None:
    """Runs the three commands, each below its headline."""
    from beam_flowers.backbones.resolve import resolve
    from beam_flowers.cli.train import print_trained
    from beam_flowers.head.lbfgs import LbfgsOptions
    from beam_flowers.head.split import SplitOptions
    from beam_flowers.workflows.embed import RunOptions, embed_images
    from beam_flowers.workflows.score import score_images
    from beam_flowers.workflows.score_options import ScoreOptions
    from beam_flowers.workflows.train import TrainOptions, train_model

    options, backbone = RunOptions(beams), resolve(DEFAULT_BACKBONE)
    tell(f"\n1. embed: photographs -> vectors, with {DEFAULT_BACKBONE}")
    source = [str(photos / "labelled")]
    tell(str(embed_images(source, store, backbone, options, warn=warn, progress=progress)))
    tell("\n2. train: vectors -> softmax head")
    trained = train_model(
        store,
        model,
        LbfgsOptions(),
        SplitOptions(),
        options=TrainOptions(writing=terms),
        progress=progress,
    )
    print_trained(trained, model)
    tell("\n3. score: photographs that the head has not seen, most confident first")
    job = ScoreOptions((str(photos / "unseen"),), table, writing=terms)
    score_images(job, trained.bundle, backbone, options, warn, progress)


def _print_table(table: str) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(table).sort_by([("score", "descending")]).to_pylist()
    right = 0
    for row in rows:
        path = Path(row["uri"])
        right += path.parent.name == row["label"]
        ranking = [(best["label"], best["score"]) for best in row["top_k"]]
        print(table_line(f"{path.parent.name}/{path.name}", ranking[:3], 44))
    print(f"{right} of {len(rows)} carry the name of their folder")
