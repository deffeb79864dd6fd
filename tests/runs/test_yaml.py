"""Pipelines in Beam YAML, run as `python -m apache_beam.yaml.main` does."""

import json
from pathlib import Path
from textwrap import dedent

import apache_beam as beam
import make_images
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from memory_files import OBJECTS
from places import EXAMPLES
from stores import cli, embed, photos, rows

pytest.importorskip("docstring_parser", reason="pip install 'beam-flowers[yaml]'")
pytest.importorskip("jsonschema", reason="pip install 'beam-flowers[yaml]'")

from apache_beam.yaml import main as yaml_main

from beam_flowers.errors import InputError
from beam_flowers.records import Embedding, Image
from beam_flowers.transforms.beam_yaml import with_errors
from beam_flowers.transforms.yaml_rows import embedding_of, embedding_row, image_of

EXAMPLE = EXAMPLES / "label_images.yaml"
TYPES = (
    "FindImages",
    "ReadStore",
    "ComputeEmbeddings",
    "WriteStore",
    "ScoreEmbeddings",
    "ScoreImages",
    "WatchImages",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """`images`: ten photographs, one truncated, one text; their `store` and a `model`."""
    base = tmp_path_factory.mktemp("yaml")
    folder = photos(base / "images", 2)
    embed(folder, base / "store")
    on_all = ("--validation-percentage", "0", "--testing-percentage", "0")
    cli("train", base / "store", "--model", base / "model", *on_all)
    first = sorted((folder / "daisy").iterdir())[0]
    (folder / "daisy" / "truncated.jpg").write_bytes(make_images.truncated(first.read_bytes()))
    (folder / "notes.txt").write_bytes(make_images.TEXT)
    return base


def run(text, **variables):
    """Runs a pipeline whose transforms are those of the package."""
    providers = {name: f"beam_flowers.yaml_transforms.{name}" for name in TYPES}
    spec = {"providers": [{"type": "python", "config": {}, "transforms": providers}]}
    yaml_main.run(
        [
            f"--yaml_pipeline={dedent(text)}\n{yaml.safe_dump(spec)}",
            f"--jinja_variables={json.dumps({k: str(v) for k, v in variables.items()})}",
            "--runner=FnApiRunner",
        ]
    )


def table(prefix):
    """The rows of the files that a pipeline wrote, by uri."""
    parts = sorted(prefix.parent.glob(f"{prefix.name}-*"))
    return {row["uri"]: row for part in parts for row in pq.read_table(part).to_pylist()}


def test_the_example_writes_labels_and_what_gave_none(base, tmp_path):
    variables = {"images": base / "images", "model": base / "model", "output": tmp_path}
    yaml_main.run(
        [
            f"--yaml_pipeline_file={EXAMPLE}",
            f"--jinja_variables={json.dumps({k: str(v) for k, v in variables.items()})}",
        ]
    )
    cli("score", base / "store", "--model", base / "model", "--output", tmp_path / "expected")
    expected = {row["uri"]: row["label"] for row in rows(tmp_path / "expected")}
    found = table(tmp_path / "labels.parquet")
    assert {uri: row["top_k"][0]["label"] for uri, row in found.items()} == expected
    assert {len(row["top_k"]) for row in found.values()} == {3}
    assert all((row["label"] == "unknown") == (row["score"] < 0.5) for row in found.values())
    rejects = {
        Path(u).name: r["error_class"] for u, r in table(tmp_path / "rejects.parquet").items()
    }
    assert rejects == {"truncated.jpg": "Truncated", "notes.txt": "NotAnImage"}


def test_vectors_are_written_read_and_labelled(base, tmp_path):
    run(
        """
        pipeline:
          type: chain
          transforms:
            - type: Create
              config:
                elements: [{uri: "{{ one }}", label: Rosa}, {uri: "{{ two }}", label: Bellis}]
            - type: ComputeEmbeddings
            - type: WriteStore
              config: {store: "{{ base }}/store"}
            - type: AssertEqual
              config:
                elements: [{rows: 2}]
        """,
        one=(one := sorted((base / "images" / "roses").iterdir())[0]),
        two=(two := sorted((base / "images" / "daisy").glob("1*.jpg"))[0]),
        base=tmp_path,
    )
    stored = {row["uri"]: row for row in rows(tmp_path / "store")}
    expected = {row["uri"]: row for row in rows(base / "store")}
    assert {uri: row["label"] for uri, row in stored.items()} == {
        str(one): "Rosa",
        str(two): "Bellis",
    }
    for uri, row in stored.items():
        np.testing.assert_array_equal(row["vector"], expected[uri]["vector"])
    run(
        """
        pipeline:
          type: chain
          transforms:
            - type: ReadStore
              config: {store: "{{ base }}/store"}
            - type: ScoreEmbeddings
              config: {model: "{{ model }}", top_k: 1}
            - type: WriteToParquet
              config: {path: "{{ base }}/labels"}
        """,
        base=tmp_path,
        model=base / "model",
    )
    labels = {Path(uri).name: row["label"] for uri, row in table(tmp_path / "labels").items()}
    assert labels == {one.name: "roses", two.name: "daisy"}


def test_without_error_handling_a_reject_ends_the_pipeline_and_says_what_to_do(base):
    with pytest.raises(
        Exception, match=r"truncated.jpg' gives no row: Truncated \(decode\)"
    ) as found:
        run(
            """
            pipeline:
              type: chain
              transforms:
                - type: FindImages
                  config: {sources: "{{ sources }}"}
                - type: ScoreImages
                  config: {model: "{{ model }}"}
            """,
            sources=base / "images" / "daisy" / "truncated.jpg",
            model=base / "model",
        )
    assert "With `error_handling: {output: rejects}` the step goes on" in str(found.value)


def test_rows_of_a_manifest_may_name_the_schemes_that_are_allowed(tmp_path):
    OBJECTS["mem://b/a.jpg"] = b"123"
    (tmp_path / "list.csv").write_text("mem://b/a.jpg\ns3://b/a.jpg\n")
    run(
        """
        pipeline:
          transforms:
            - type: FindImages
              config:
                sources: "{{ base }}/list.csv"
                manifest_schemes: [mem]
                error_handling: {output: rejects}
            - type: WriteToParquet
              name: images
              input: FindImages
              config: {path: "{{ base }}/images"}
            - type: WriteToParquet
              name: rejects
              input: FindImages.rejects
              config: {path: "{{ base }}/rejects"}
        """,
        base=tmp_path,
    )
    assert {uri: row["bytes"] for uri, row in table(tmp_path / "images").items()} == {
        "mem://b/a.jpg": 3
    }
    rejects = table(tmp_path / "rejects")
    assert rejects["s3://b/a.jpg"]["error_class"] == "SchemeNotAllowed"


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([beam.Row(path="/a.jpg")], r"needs the text field 'uri', here is \['path'\]"),
        ([beam.Row(uri="")], "needs the text field 'uri'"),
    ],
)
def test_rows_that_name_no_image_are_refused(rows, error):
    with pytest.raises(InputError, match=error):
        image_of(rows[0])


def test_what_a_table_lacks_is_lacking_in_the_row():
    image = image_of(beam.Row(uri="/a/b.jpg", label=float("nan")))
    assert image == Image("/a/b.jpg", "/a", "b.jpg")
    nothing = beam.Row(uri="/a/b.jpg", root=float("nan"), relative_path=float("nan"), label="")
    assert image_of(nothing) == image


@pytest.mark.parametrize(
    ("written", "label", "split"),
    [
        ("train", "3.0", "training"),
        ("val", "a", "validation"),
        ("Testing", "a", "testing"),
        ("", "a", None),
        (float("nan"), "a", None),
    ],
)
def test_splits_of_a_table_are_those_of_a_manifest(written, label, split):
    image = image_of(beam.Row(uri="/a/b.jpg", label=label, split=written))
    assert (image.label, image.split) == (label, split)


@pytest.mark.parametrize(("number", "label"), [(3, "3"), (3.0, "3"), (2.5, "2.5")])
def test_numbers_of_a_table_become_labels(number, label):
    assert image_of(beam.Row(uri="/a/b.jpg", label=number)).label == label


def test_a_split_that_is_none_is_refused():
    with pytest.raises(InputError, match="split is 'holdout'; write one of"):
        image_of(beam.Row(uri="/a/b.jpg", split="holdout"))


def test_vectors_of_another_backbone_are_refused():
    embedding = Embedding(Image("/a", "/", "a"), "00", 1, 1, "JPEG", np.ones(3, np.float32))
    row = embedding_row(embedding, "a" * 64)
    assert embedding_of(row, "a" * 64).image == embedding.image
    with pytest.raises(InputError, match="is of the backbone aaaaaaaa, not of bbbbbbbb"):
        embedding_of(row, "b" * 64)


def test_other_settings_of_error_handling_are_refused():
    with pytest.raises(InputError, match=r"takes `output: NAME` and nothing else: \['thres"):
        with_errors(None, None, {"output": "rejects", "threshold": 0.1})
