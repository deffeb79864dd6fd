"""Embeds labelled images and trains a model on them: a Beam pipeline, then a training here.

    python pipelines/train.py photos --store store --model model

The pipeline is that of `embed.py`: every image is computed, and rows of files that are gone stay
in the store and are trained on. Use `beam-flowers embed` and `beam-flowers train` to compute only
what is new, and for all options of a training.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import apache_beam as beam

import beam_flowers as bf


def run(arguments: Sequence[str] | None = None) -> None:
    """Reads flags, ours and Beam's, runs the pipeline to its end and trains."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("images", nargs="+", help="folders, a label each, or a manifest")
    parser.add_argument("--store", required=True, help="folder of the feature store")
    parser.add_argument("--model", required=True, help="folder to write the model to")
    parser.add_argument("--backbone", default="efficientnet-lite0", help="name, path or handle")
    own, beams = parser.parse_known_args(arguments)

    # Before the long part: a folder of other things is refused.
    bf.check_model_folder(own.model)
    backbone = bf.resolve(own.backbone)
    with beam.Pipeline(options=bf.pipeline_options(beams)) as pipeline:
        found = pipeline | bf.FindImages(own.images)
        computed = found.images | bf.ComputeEmbeddings(backbone)
        rows = (computed.embeddings, computed.rejects, found.rejects)
        rows | bf.WriteStore(own.store, backbone)

    name = backbone.row.name
    trained = bf.train_model(own.store, own.model, bf.LbfgsOptions(), bf.SplitOptions(), name)
    for warning in trained.result.warnings:
        print(f"warning: {warning}")
    for split, metrics in trained.result.metrics.items():
        print(f"{split} accuracy {metrics.accuracy:.1%} ({metrics.count} images)")


if __name__ == "__main__":
    run()
