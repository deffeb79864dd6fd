"""Labels images into a table of Parquet parts: a Beam pipeline to run on any runner.

    python pipelines/score.py photos --model model --output labels
    python pipelines/score.py s3://archive/photos --model model --output s3://archive/labels ...

It plans nothing: every image is computed, whatever the table has. Rows of files that are gone stay,
and an empty folder is no error. `beam-flowers score` computes only what is new or changed, takes
vectors from a store, writes one file where it is asked to, and takes up what a killed run has
finished.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import apache_beam as beam

import beam_flowers as bf


def run(arguments: Sequence[str] | None = None) -> None:
    """Reads flags, ours and Beam's, and runs the pipeline to its end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("images", nargs="+", help="folders, globs, list files or images")
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--output", required=True, help="folder of the table")
    parser.add_argument("--backbone", help="path of a network that is not known by name")
    parser.add_argument("--threshold", type=float, help="label `unknown` below this score")
    own, beams = parser.parse_known_args(arguments)

    model, rule = bf.read_bundle(own.model), bf.AcceptanceRule(threshold=own.threshold)
    backbone = bf.resolve(own.backbone) if own.backbone else None
    with beam.Pipeline(options=bf.pipeline_options(beams)) as pipeline:
        found = pipeline | bf.FindImages(own.images)
        scored = found.images | bf.ScoreImages(model, backbone, rule=rule)
        rows = (scored.scores, scored.rejects, found.rejects)
        rows | bf.WriteScores(own.output, model, rule=rule)


if __name__ == "__main__":
    run()
