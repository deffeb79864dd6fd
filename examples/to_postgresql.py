"""Scores of a feature store → a PostgreSQL table.

    pip install beam-flowers 'psycopg[binary]'
    python to_postgresql.py STORE MODEL 'postgresql://user:password@host/database' [BEAM FLAGS]

By psycopg in a DoFn, not by Beam's `WriteToJdbc`: that starts a Java expansion service, which it
downloads when the pipeline is built, and it only inserts. Runners repeat bundles; here a repeated
row replaces itself (`ON CONFLICT`). A bundle's rows are committed in batches, a connection a
worker thread. The table is made if it is absent.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence

import apache_beam as beam
import psycopg
from apache_beam.options.pipeline_options import PipelineOptions

from beam_flowers import ReadStore, Score, ScoreEmbeddings, read_bundle

CREATE = """
CREATE TABLE IF NOT EXISTS flower_scores (
    uri text, model_id text, sha256 text NOT NULL, label text NOT NULL, score real NOT NULL,
    top_k jsonb NOT NULL, PRIMARY KEY (uri, model_id))
"""
INSERT = """
INSERT INTO flower_scores (uri, model_id, sha256, label, score, top_k)
VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (uri, model_id) DO UPDATE SET
    sha256 = excluded.sha256, label = excluded.label, score = excluded.score, top_k = excluded.top_k
"""
BATCH = 1000


def row_of(score: Score) -> tuple[object, ...]:
    """The columns of one score, in the order of `INSERT`."""
    top_k = json.dumps([ranked._asdict() for ranked in score.top_k])
    return score.uri, score.model_id, score.sha256, score.label, score.score, top_k


class WriteRows(beam.DoFn):
    """Batches of scores → rows; yields how many."""

    def __init__(self, database: str) -> None:
        self._database = database

    def setup(self) -> None:
        self._connection = psycopg.connect(self._database)

    def process(self, batch: Sequence[Score]) -> Iterator[int]:
        # One transaction a batch; rows in one order, so that two workers cannot lock each other.
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(INSERT, map(row_of, sorted(batch)))
        yield len(batch)

    def teardown(self) -> None:
        self._connection.close()


def build(pipeline: beam.Pipeline, store: str, model: str, database: str) -> beam.PCollection[int]:
    """The pipeline's steps; gives the sizes of the batches written."""
    return (
        pipeline
        | "Vectors" >> ReadStore(store)
        | "Labels" >> ScoreEmbeddings(read_bundle(model))
        | "Batches" >> beam.BatchElements(min_batch_size=1, max_batch_size=BATCH)
        | "Rows" >> beam.ParDo(WriteRows(database))
    )


def main(flags: Sequence[str] | None = None) -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("store", "model", "database"):
        parser.add_argument(name)
    arguments, beams = parser.parse_known_args(flags)
    with psycopg.connect(arguments.database) as connection:
        connection.execute(CREATE)
    with beam.Pipeline(options=PipelineOptions(beams)) as pipeline:
        build(pipeline, arguments.store, arguments.model, arguments.database)


if __name__ == "__main__":
    main()
