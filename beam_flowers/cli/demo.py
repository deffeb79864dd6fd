"""`demo`: the whole way on the photographs that ship with the package."""

from __future__ import annotations

import argparse
import importlib.resources
from contextlib import ExitStack
from pathlib import Path

from beam_flowers.cli.shared import ACCURACY, DEFAULT_BACKBONE, table_line, warn

_FOLDER = "beam-flowers-demo"

_NEXT = """
The same with your own pictures, one folder a label:
  beam-flowers embed PHOTOS --store {store}-mine
  beam-flowers train {store}-mine --model {model}-mine
  beam-flowers score MORE-PHOTOS --model {model}-mine --output labels.csv
  beam-flowers classify PHOTO.jpg --model {model}"""


def fill(parser: argparse.ArgumentParser) -> None:
    """The flags of `beam-flowers demo`."""
    parser.epilog = (
        "Reads the photographs in the package, writes FOLDER: store, model and labelled table.\n\n"
        f"{ACCURACY}"
    )
    parser.add_argument("--folder", default=_FOLDER, help=f"where to work (default ./{_FOLDER})")


def run(arguments: argparse.Namespace, beams: list[str]) -> int:
    """`beam-flowers demo`."""
    from beam_flowers.backbones.resolve import resolve
    from beam_flowers.cli.train import print_trained
    from beam_flowers.head.lbfgs import LbfgsOptions
    from beam_flowers.head.split import SplitOptions
    from beam_flowers.runs.embed import RunOptions, embed_images
    from beam_flowers.runs.score import Job, score_images
    from beam_flowers.runs.train import train_model

    work = Path(arguments.folder).absolute()
    store, model, table = (str(work / name) for name in ("store", "model", "labels.parquet"))
    options = RunOptions(beams)
    backbone = resolve(DEFAULT_BACKBONE)
    with ExitStack() as stack:
        data = importlib.resources.files("beam_flowers") / "data" / "flowers"
        photos = stack.enter_context(importlib.resources.as_file(data))
        print(f"working in {work}\n\n1. embed: photographs -> vectors, with {DEFAULT_BACKBONE}")
        print(embed_images([str(photos / "labelled")], store, backbone, options, warn=warn))
        print("\n2. train: vectors -> softmax head")
        trained = train_model(store, model, LbfgsOptions(), SplitOptions())
        print_trained(trained, model)
        print("\n3. score: photographs that the head has not seen, most confident first")
        job = Job((str(photos / "unseen"),), table)
        score_images(job, trained.bundle, backbone, options, warn)
    _print_table(table)
    print(f"\nstore: {store}\nmodel: {model}\ntable: {table}")
    print(_NEXT.format(store=store, model=model))
    return 0


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
