"""The tables, unconverted, in the programs that people open them with."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from stores import cli, embed, photos, rejects, rows
from vectors import train_run

from beam_flowers.scoring.read_table import read_scores
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions

pytestmark = [pytest.mark.readers, pytest.mark.timeout(600)]

NAMES = ("a, b", "007", 'with "quotes"', "玫瑰", "line\nbreak")
TEXTS = ["uri", "sha256", "label", "model_id"]


def package(name):
    """The package, or the test is skipped."""
    why = f"{name} is not installed: pip install 'beam-flowers[readers]'"
    return pytest.importorskip(name, reason=why)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A store and every kind of score table made of it, of ten photographs and one text."""
    folder = tmp_path_factory.mktemp("readers")
    images = photos(folder / "images")
    (images / "LICENSE.txt").write_text("No image.\n")
    embed(images, folder / "store")
    assert cli("embed", images, "--store", folder / "plain", "--encoding", "plain") == 0
    model = replace(train_run(str(folder / "store"), "efficientnet-lite0").bundle, labels=NAMES)
    for name in ("t.parquet", "t.csv", "t.jsonl", "t.arrow", "t.feather", "parts"):
        job = ScoreOptions((str(folder / "store"),), str(folder / name))
        assert score_images(job, model, warn=pytest.fail).rejected == 1
    assert len(rejects(folder / "store")) == len(rejects(folder / "parts")) == 1
    return folder


@pytest.fixture(scope="module")
def expected(base):
    """Of each image the texts, score, ranking and class number that every reader must find."""
    found = pq.read_table(base / "t.parquet").to_pylist()
    assert len(found) == 10
    assert len({row["label"] for row in found}) > 1
    assert all(NAMES[row["label_id"]] == row["label"] for row in found)
    return found


@pytest.fixture(scope="module")
def stored(base):
    return rows(base / "store")


def same(found, expected):
    """Whether rows are those expected, of whatever kind the numbers have become."""
    found = sorted(found, key=lambda row: row["uri"])
    assert len(found) == len(expected)
    for row, right in zip(found, expected, strict=True):
        assert [row[name] for name in TEXTS] == [right[name] for name in TEXTS]
        assert row["score"] == pytest.approx(right["score"], rel=1e-6)
        assert row["label_id"] == right["label_id"]
        ranked = json.loads(row["top_k"]) if isinstance(row["top_k"], str) else row["top_k"]
        assert [r["label"] for r in ranked] == [r["label"] for r in right["top_k"]]
        scores = [r["score"] for r in right["top_k"]]
        assert [r["score"] for r in ranked] == pytest.approx(scores, rel=1e-6)


def same_store(found, stored):
    found = sorted(found, key=lambda row: row["uri"])
    assert [r["label"] for r in found] == [r["label"] for r in stored]
    assert [r["uri"] for r in found] == [r["uri"] for r in stored]
    assert [r["bytes"] for r in found] == [r["bytes"] for r in stored]
    vectors = np.stack([np.asarray(row["vector"], np.float32) for row in found])
    np.testing.assert_array_equal(vectors, np.array([r["vector"] for r in stored], np.float32))


class TestPandas:
    @pytest.mark.parametrize(
        ("name", "read"),
        [
            ("t.parquet", pd.read_parquet),
            ("parts", pd.read_parquet),
            ("t.arrow", pd.read_feather),
            ("t.feather", pd.read_feather),
            ("t.csv", pd.read_csv),
            ("t.jsonl", lambda path: pd.read_json(path, lines=True, dtype={"label": str})),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_scores(self, base, expected, name, read):
        same(read(base / name).to_dict("records"), expected)

    def test_types(self, base):
        kinds = pd.read_parquet(base / "t.parquet").dtypes
        assert (str(kinds["score"]), str(kinds["label_id"])) == ("float32", "int64")

    def test_store(self, base, stored):
        frame = pd.read_parquet(base / "store")
        same_store(frame.to_dict("records"), stored)
        assert str(frame["modified"].dtype) == "datetime64[us, UTC]"


class TestPyarrow:
    def test_scores(self, base, expected):
        same(pyarrow.dataset.dataset(base / "t.parquet").to_table().to_pylist(), expected)
        same(pyarrow.dataset.dataset(base / "parts").to_table().to_pylist(), expected)

    @pytest.mark.parametrize("name", ["t.arrow", "t.feather"])
    def test_arrow_files_are_mapped_and_carry_the_class_names(self, base, expected, name):
        with pa.memory_map(str(base / name)) as source:
            table = pa.ipc.open_file(source).read_all()
        assert table.schema.equals(pq.read_schema(base / "t.parquet"), check_metadata=True)
        same(table.to_pylist(), expected)
        dataset = pyarrow.dataset.dataset(base / name, format="ipc")
        same(dataset.to_table().to_pylist(), expected)

    def test_store(self, base, stored):
        dataset = pyarrow.dataset.dataset(base / "store", partitioning="hive")
        found = dataset.to_table()
        same_store(found.to_pylist(), stored)
        assert found.schema.field("vector").type == pa.list_(pa.float32(), 1280)
        assert set(found["backbone"].to_pylist()) == {
            path.name.partition("=")[2] for path in (base / "store").glob("backbone=*")
        }


@pytest.fixture
def pl():
    return package("polars")


class TestPolars:
    """On a folder Polars reads all files in all folders, whatever their names: hence patterns."""

    @pytest.mark.parametrize(
        ("name", "reader"),
        [
            ("t.parquet", "read_parquet"),
            ("parts/*.parquet", "read_parquet"),
            ("t.arrow", "read_ipc"),
            ("t.feather", "read_ipc"),
            ("t.csv", "read_csv"),
            ("t.jsonl", "read_ndjson"),
        ],
    )
    def test_scores(self, pl, base, expected, name, reader):
        options = {"schema_overrides": {"label": pl.String}} if name == "t.csv" else {}
        frame = getattr(pl, reader)(base / name, **options)
        same(frame.to_dicts(), expected)
        if reader in ("read_parquet", "read_ipc"):
            ranked = pl.List(pl.Struct({"label": pl.String, "score": pl.Float32}))
            kinds = [frame.schema[name] for name in ("label", "score", "top_k", "label_id")]
            assert kinds == [pl.String, pl.Float32, ranked, pl.Int64]

    def test_store(self, pl, base, stored):
        frame = pl.scan_parquet(base / "store" / "backbone=*" / "*.parquet").collect()
        same_store(frame.to_dicts(), stored)
        assert frame.schema["vector"] == pl.Array(pl.Float32, 1280)
        assert frame.schema["label"] == pl.String


@pytest.fixture
def sql():
    return package("duckdb").sql


class TestDuckDB:
    @pytest.mark.parametrize("name", ["t.parquet", "parts/*.parquet", "t.csv", "t.jsonl"])
    def test_scores(self, sql, base, expected, name):
        found = sql(f"SELECT * FROM '{base / name}'")
        same(_records(found), expected)
        kinds = dict(zip(found.columns, map(str, found.types), strict=True))
        assert (kinds["label"], kinds["label_id"]) == ("VARCHAR", "BIGINT")
        if name.endswith("parquet"):
            assert kinds["score"] == "FLOAT"
            assert kinds["top_k"].endswith("score FLOAT)[]")

    def test_store(self, sql, base, stored):
        found = sql(f"SELECT * FROM '{base / 'store' / 'backbone=*' / '*.parquet'}'")
        same_store(_records(found), stored)


def _records(relation):
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]


class TestHuggingFace:
    @pytest.fixture
    def load(self, tmp_path):
        datasets = package("datasets")
        datasets.disable_progress_bars()

        def load(path, **options):
            return datasets.load_dataset(path, split="train", cache_dir=tmp_path, **options)

        return load

    @pytest.mark.parametrize("name", ["t.parquet", "t.arrow"])
    def test_class_names_come_with_a_file(self, load, base, expected, name):
        found = load(name.partition(".")[2], data_files=str(base / name))
        same(found, expected)
        feature = found.features["label_id"]
        assert type(feature).__name__ == "ClassLabel"
        assert feature.names == list(NAMES)
        assert [feature.int2str(row["label_id"]) for row in found] == found["label"][:]
        assert found.features["score"].dtype == "float32"

    def test_class_names_come_with_a_folder_and_rejects_do_not(self, load, base, expected):
        found = load(str(base / "parts"))
        same(found, expected)
        assert found.features["label_id"].names == list(NAMES)

    @pytest.mark.parametrize("kind", ["csv", "json"])
    def test_texts(self, load, base, expected, kind):
        same(load(kind, data_files=str(base / f"t.{kind}".replace("json", "jsonl"))), expected)

    def test_store(self, load, base, stored):
        found = load(str(base / "store"))
        same_store(found, stored)
        assert (found.features["label"].dtype, found.features["vector"].length) == ("string", 1280)


@pytest.fixture(scope="module")
def spark(tmp_path_factory):
    sql = package("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java: apt-get install default-jre-headless")
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(tmp_path_factory.mktemp("spark")),
        "spark.log.level": "OFF",
    }
    session = sql.SparkSession.builder.master("local[1]").config(map=options).getOrCreate()
    yield session
    session.stop()


class TestSpark:
    @pytest.mark.parametrize("name", ["t.parquet", "parts"])
    def test_scores(self, spark, base, expected, name):
        found = spark.read.parquet(str(base / name))
        same(_dicts(found), expected)
        kinds = dict(found.dtypes)
        assert (kinds["label"], kinds["score"], kinds["label_id"]) == ("string", "float", "bigint")
        assert kinds["top_k"] == "array<struct<label:string,score:float>>"

    def test_texts(self, spark, base, expected):
        same(_dicts(spark.read.json(str(base / "t.jsonl"))), expected)
        csv = spark.read.csv(
            str(base / "t.csv"),
            schema="uri string, sha256 string, label string, score float, top_k string, "
            "model_id string, label_id long",
            header=True,
            escape='"',
            multiLine=True,
        )
        same(_dicts(csv), expected)

    def test_store_of_plain_encoding(self, spark, base, stored):
        found = spark.read.parquet(str(base / "plain"))
        same_store(_dicts(found), stored)
        kinds = dict(found.dtypes)
        assert (kinds["vector"], kinds["modified"]) == ("array<float>", "timestamp")

    def test_store_of_split_encoding_without_the_vectorised_reader(self, spark, base, stored):
        flag = "spark.sql.parquet.enableVectorizedReader"
        spark.conf.set(flag, "false")
        try:
            same_store(_dicts(spark.read.parquet(str(base / "store"))), stored)
        finally:
            spark.conf.set(flag, "true")


def _dicts(frame):
    return [row.asDict(recursive=True) for row in frame.collect()]


def test_our_own_reader_finds_the_same_in_each(base, expected):
    for name in ("t.parquet", "t.csv", "t.jsonl", "t.arrow", "t.feather", "parts"):
        table = read_scores(str(base / name))
        assert table.given == [row["label"] for row in expected]
        assert len(table.rejects) == 1
