"""Embeds images into a feature store: a Beam pipeline to read, change and run on any runner.

    python pipelines/embed.py photos --store store
    python pipelines/embed.py s3://archive/photos --store s3://archive/store --runner=...

It plans nothing: every image is computed, whatever the store has. Rows of files that are gone stay,
an image that is listed without a label loses the one that it had, and an empty folder is no error.
`beam-flowers embed` keeps such labels, computes only what is new or changed, takes out what is
gone, checks the workers first and takes up what a killed run has finished.
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
    parser.add_argument("--store", required=True, help="folder of the feature store")
    parser.add_argument("--backbone", default="efficientnet-lite0", help="name, path or handle")
    own, beams = parser.parse_known_args(arguments)

    backbone = bf.resolve(own.backbone)
    with beam.Pipeline(options=bf.pipeline_options(beams)) as pipeline:
        found = pipeline | bf.FindImages(own.images)
        computed = found.images | bf.ComputeEmbeddings(backbone)
        rows = (computed.embeddings, computed.rejects, found.rejects)
        rows | bf.WriteStore(own.store, backbone)


if __name__ == "__main__":
    run()
