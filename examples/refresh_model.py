"""Images that arrive are labelled, and a model that was trained meanwhile takes over, by
RunInference.

    python refresh_model.py INCOMING MODELS OUTPUT --runner=PrismRunner --streaming

`beam-flowers train STORE --model MODELS/NAME`, each time a new NAME, is all that it takes: the job
goes on, and `model_id` in each line says which model gave the label. What gives no label is not
written here; see label_arrivals.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import apache_beam as beam
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows

from beam_flowers import (
    ComputeEmbeddings,
    Embedding,
    NewestModelHandler,
    Score,
    WatchImages,
    resolve,
)


def by_folder(embedding: Embedding) -> tuple[str, Embedding]:
    """The key of an image: the folder that it came in."""
    return embedding.image.label or "", embedding


def line(keyed: tuple[str, Score]) -> str:
    """A line of the output."""
    folder, score = keyed
    return json.dumps(
        {"folder": folder, "uri": score.uri, "label": score.label, "model_id": score.model_id}
    )


def build(pipeline: beam.Pipeline, incoming: str, models: str, output: str, seconds: float) -> None:
    """The pipeline's steps."""
    arrivals = pipeline | "Arrivals" >> WatchImages(incoming, seconds)
    computed = arrivals | "Vectors" >> ComputeEmbeddings(resolve("efficientnet-lite0"))
    handler = KeyedModelHandler(NewestModelHandler(models, seconds))
    (
        computed.embeddings
        | "Spans" >> beam.WindowInto(FixedWindows(seconds))
        | "Key" >> beam.Map(by_folder)
        | "Label" >> RunInference(handler, metrics_namespace="flowers")
        | "Lines" >> beam.Map(line)
        | "Write"
        >> beam.io.WriteToText(
            output, file_name_suffix=".jsonl", shard_name_template="-V-SSSSS-of-NNNNN"
        )
    )


def main(flags: Sequence[str] | None = None) -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("incoming", "models", "output"):
        parser.add_argument(name)
    parser.add_argument("--seconds", type=float, default=5, help="between two looks, and of a file")
    arguments, beams = parser.parse_known_args(flags)
    with beam.Pipeline(options=PipelineOptions(beams)) as pipeline:
        build(pipeline, arguments.incoming, arguments.models, arguments.output, arguments.seconds)


if __name__ == "__main__":
    main()
