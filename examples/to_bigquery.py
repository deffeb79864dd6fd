"""Scores of a feature store → a BigQuery table.

    pip install 'beam-flowers[gcp]'
    python to_bigquery.py STORE MODEL PROJECT:DATASET.TABLE --temp_location=gs://BUCKET/tmp \\
        [--runner=DataflowRunner ...]

By file loads: they cost nothing, are atomic and take the table's rows anew with each run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.bigquery import BigQueryDisposition, WriteToBigQuery
from apache_beam.options.pipeline_options import PipelineOptions

from beam_flowers import ReadStore, Score, ScoreEmbeddings, read_bundle


def _field(name: str, kind: str, mode: str = "REQUIRED", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": kind, "mode": mode, **more}


_RANKED = [_field("label", "STRING"), _field("score", "FLOAT")]
SCHEMA = {
    "fields": [
        *(_field(name, "STRING") for name in ("uri", "sha256", "label", "model_id")),
        _field("score", "FLOAT"),
        _field("top_k", "RECORD", "REPEATED", fields=_RANKED),
    ]
}


def row_of(score: Score) -> dict[str, Any]:
    """A row of the table."""
    row = {name: getattr(score, name) for name in ("uri", "sha256", "label", "model_id", "score")}
    return {**row, "top_k": [ranked._asdict() for ranked in score.top_k]}


def build(pipeline: beam.Pipeline, store: str, model: str, table: str) -> Any:
    """The pipeline's steps."""
    return (
        pipeline
        | "Vectors" >> ReadStore(store)
        | "Labels" >> ScoreEmbeddings(read_bundle(model))
        | "Rows" >> beam.Map(row_of)
        | "Write"
        >> WriteToBigQuery(
            table,
            schema=SCHEMA,
            method=WriteToBigQuery.Method.FILE_LOADS,
            create_disposition=BigQueryDisposition.CREATE_IF_NEEDED,
            write_disposition=BigQueryDisposition.WRITE_TRUNCATE,
        )
    )


def main(flags: Sequence[str] | None = None) -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("store", "model", "table"):
        parser.add_argument(name)
    arguments, beams = parser.parse_known_args(flags)
    with beam.Pipeline(options=PipelineOptions(beams)) as pipeline:
        build(pipeline, arguments.store, arguments.model, arguments.table)


if __name__ == "__main__":
    main()
