"""Images that arrive in a folder → lines of JSON with their labels, as they come.

    python label_arrivals.py INCOMING MODEL OUTPUT --runner=PrismRunner --streaming

Runs until it is stopped. Every few seconds a file of labels comes into OUTPUT, and one of rejects
where images gave none. Write images under a name that starts with a dot and rename them: what
is seen half written is a reject first, and labelled when it has changed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows

from beam_flowers import Reject, Score, ScoreImages, WatchImages, read_bundle


def label_line(score: Score) -> str:
    """A line of the labels."""
    return json.dumps({"uri": score.uri, "label": score.label, "score": score.score})


def reject_line(reject: Reject) -> str:
    """A line of the rejects."""
    return json.dumps({"uri": reject.image.uri, "reason": reject.message})


def write(lines: beam.PCollection[str], prefix: str, seconds: float) -> Any:
    """A file for each span of time in which there were lines."""
    return (
        lines
        | f"Spans of {prefix}" >> beam.WindowInto(FixedWindows(seconds))
        | f"Write {prefix}"
        >> beam.io.WriteToText(
            prefix, file_name_suffix=".jsonl", shard_name_template="-V-SSSSS-of-NNNNN"
        )
    )


def build(pipeline: beam.Pipeline, incoming: str, model: str, output: str, seconds: float) -> None:
    """The pipeline's steps."""
    arrivals = pipeline | "Arrivals" >> WatchImages(incoming, seconds)
    scored = arrivals | "Score" >> ScoreImages(read_bundle(model))
    labels = scored.scores | "LabelLines" >> beam.Map(label_line)
    rejects = scored.rejects | "RejectLines" >> beam.Map(reject_line)
    write(labels, f"{output}/labels", seconds)
    write(rejects, f"{output}/rejects", seconds)


def main(flags: Sequence[str] | None = None) -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("incoming", "model", "output"):
        parser.add_argument(name)
    parser.add_argument("--seconds", type=float, default=5, help="between two looks, and of a file")
    arguments, beams = parser.parse_known_args(flags)
    with beam.Pipeline(options=PipelineOptions(beams)) as pipeline:
        build(pipeline, arguments.incoming, arguments.model, arguments.output, arguments.seconds)


if __name__ == "__main__":
    main()
