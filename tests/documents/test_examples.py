"""The examples: to a real PostgreSQL, and the graph of the one to BigQuery."""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from places import EXAMPLES
from vectors import add, embeddings, train_run

pytestmark = [pytest.mark.readers, pytest.mark.timeout(300)]


def example(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def needs_gcp():
    """Skips where a package is missing without which Beam's BigQuery does not work."""
    for name in ("google.cloud.bigquery", "apitools", "regex"):
        pytest.importorskip(name, reason="pip install 'beam-flowers[gcp]'")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store of 120 rows of one backbone, and a model."""
    folder = tmp_path_factory.mktemp("examples")
    add(folder / "store", "small", embeddings(range(120), 6))
    train_run(str(folder / "store"))
    return str(folder / "store"), str(folder / "model")


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The address of a PostgreSQL server of our own, by Debian's package."""
    pytest.importorskip("psycopg", reason="pip install 'beam-flowers[readers]'")
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not homes:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    folder = tmp_path_factory.mktemp("postgresql")
    # The server refuses to run as root.
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    if user:
        for path in (folder, folder.parent, folder.parent.parent):
            path.chmod(path.stat().st_mode | 0o711)
        shutil.chown(folder, "postgres", "postgres")

    def control(*flags):
        subprocess.run(flags, check=True, cwd=folder, stdout=subprocess.DEVNULL, **user)

    data = folder / "data"
    control(homes[-1] / "initdb", "-D", data, "-U", "flowers", "-A", "trust", "--no-sync")
    options = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    control(homes[-1] / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", options, "start")
    yield f"host={folder} user=flowers dbname=postgres"
    control(homes[-1] / "pg_ctl", "-D", data, "-m", "immediate", "stop")


def test_to_postgresql(trained, database):
    import psycopg

    module = example("to_postgresql")
    for _ in range(2):  # What is written twice is there once.
        module.main([*trained, database])
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT uri, label, score, top_k FROM flower_scores ORDER BY uri"
        ).fetchall()
    assert [row[0] for row in found] == sorted(f"/r/{i}.jpg" for i in range(120))
    for _, label, score, top_k in found:
        assert (top_k[0]["label"], len(top_k)) == (label, 3)
        assert top_k[0]["score"] == pytest.approx(score, rel=1e-6)


def test_to_bigquery_is_built(trained):
    needs_gcp()
    module = example("to_bigquery")
    options = ["--temp_location=gs://bucket/temp", "--project=project"]
    pipeline = beam.Pipeline(options=PipelineOptions(options))
    module.build(pipeline, *trained, "project:dataset.table")
    graph = pipeline.to_runner_api().components
    names = {transform.unique_name for transform in graph.transforms.values()}
    assert {"Vectors", "Labels", "Rows", "Write"} <= {name.split("/")[0] for name in names}
    assert any("BigQueryBatchFileLoads" in name for name in names)


def test_rows_for_bigquery_fit_its_schema(trained):
    needs_gcp()
    from beam_flowers.records import Ranked, Score

    module = example("to_bigquery")
    row = module.row_of(Score("/a", "00", "rose", 0.5, (Ranked("rose", 0.5),), "m"))
    json.dumps(row)
    fields = {field["name"]: field for field in module.SCHEMA["fields"]}
    assert row.keys() == fields.keys()
    assert [f["name"] for f in fields["top_k"]["fields"]] == list(row["top_k"][0])
