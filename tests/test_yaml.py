"""Pipelines in Beam YAML, run as `python -m apache_beam.yaml.main` does."""

import json
from pathlib import Path

import pictures
import pyarrow.parquet as pq
import pytest
from stores import cli, embed, photos, rows

pytest.importorskip("docstring_parser", reason="pip install 'beam-flowers[yaml]'")
pytest.importorskip("jsonschema", reason="pip install 'beam-flowers[yaml]'")

from apache_beam.yaml import main as yaml_main

EXAMPLE = Path(__file__).parent.parent / "examples" / "label_pictures.yaml"
TYPES = (
    "FindImages",
    "ReadStore",
    "ComputeBottlenecks",
    "WriteStore",
    "ScoreBottlenecks",
    "ScoreImages",
    "WatchImages",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """`pictures`: ten photographs, one truncated, one text; their `store` and a `model`."""
    base = tmp_path_factory.mktemp("yaml")
    folder = photos(base / "pictures", 2)
    embed(folder, base / "store")
    cli("train", base / "store", "--model", base / "model", "--validation-percentage", "0")
    first = sorted((folder / "daisy").iterdir())[0]
    (folder / "daisy" / "truncated.jpg").write_bytes(pictures.truncated(first.read_bytes()))
    (folder / "notes.txt").write_bytes(pictures.TEXT)
    return base


def run(text, **variables):
    """Runs a pipeline whose transforms are those of the package."""
    providers = {name: f"beam_flowers.yaml_transforms.{name}" for name in TYPES}
    spec = {"providers": [{"type": "python", "config": {}, "transforms": providers}]}
    yaml_main.run(
        [
            f"--yaml_pipeline={text}\n{json.dumps(spec)[1:-1]}",
            f"--jinja_variables={json.dumps({k: str(v) for k, v in variables.items()})}",
            "--runner=FnApiRunner",
        ]
    )


def table(prefix):
    """The rows of the files that a pipeline wrote, by uri."""
    parts = sorted(prefix.parent.glob(f"{prefix.name}-*"))
    return {row["uri"]: row for part in parts for row in pq.read_table(part).to_pylist()}


def test_the_example_writes_labels_and_what_gave_none(base, tmp_path):
    variables = {"images": base / "pictures", "model": base / "model", "output": tmp_path}
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
