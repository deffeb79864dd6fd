"""Stores for TensorBoard's projector and for FiftyOne."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from PIL import Image
from stores import cli, rows
from vectors import add, embeddings, train_run

from beam_flowers.contrib import export_store as runs
from beam_flowers.contrib.export_store import export_store, tile_side
from beam_flowers.errors import InputError
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions


@pytest.fixture
def scores(original, tmp_path):
    """Of the ten photographs of `original`."""
    shutil.copytree(original / "store", tmp_path / "store")
    model = train_run(str(tmp_path / "store"), "efficientnet-lite0").bundle
    score_images(
        ScoreOptions((str(original / "store"),), str(tmp_path / "s.csv")), model, warn=pytest.fail
    )
    return tmp_path / "s.csv"


def export(store, kind, output, *flags):
    return cli("export", store, "--to", kind, "--output", output, *flags)


def test_projector(original, scores, tmp_path):
    out = tmp_path / "out"
    assert export(original / "store", "projector", out, "--scores", scores) == 0
    stored = sorted(rows(original / "store"), key=lambda row: row["sha256"])
    vectors = np.loadtxt(out / "tensors.tsv", delimiter="\t")
    np.testing.assert_allclose(vectors, [row["vector"] for row in stored], rtol=1e-5)
    header, *lines = [line.split("\t") for line in (out / "metadata.tsv").read_text().splitlines()]
    assert header == ["label", "uri", "prediction", "score"]
    assert [line[:2] for line in lines] == [[row["label"], row["uri"]] for row in stored]
    assert all(line[2] and 0 <= float(line[3]) <= 1 for line in lines)
    sprite = Image.open(out / "sprite.png")
    assert sprite.size == (4 * 64, 4 * 64)  # Ten images, so a square of four by four.
    with Image.open(stored[5]["uri"]) as picture:
        mean = np.asarray(picture.convert("RGB").resize((64, 64)), float).mean()
    tile = np.asarray(sprite.crop((64, 64, 128, 128)), float)
    assert tile.mean() == pytest.approx(mean, abs=3)
    assert 'tensor_path: "tensors.tsv"' in (out / "projector_config.pbtxt").read_text()


def test_fiftyone(original, scores, tmp_path):
    """By the documented form; see `export_store._write_fiftyone`."""
    out = tmp_path / "out"
    assert export(original / "store", "fiftyone", out, "--scores", scores) == 0
    data, labels, predictions = (
        json.loads((out / f"{name}.json").read_text()) for name in ("data", "labels", "predictions")
    )
    stored = {row["uri"]: row for row in rows(original / "store")}
    assert set(data.values()) == set(stored)
    assert data.keys() == labels["labels"].keys() == predictions["labels"].keys()
    assert labels["classes"] == sorted({row["label"] for row in stored.values()})
    vectors = np.load(out / "vectors.npy")
    assert vectors.dtype == np.float32
    for vector, key in zip(vectors, sorted(labels["labels"]), strict=True):
        row = stored[data[key]]
        assert labels["classes"][labels["labels"][key]] == row["label"]
        np.testing.assert_array_equal(vector, np.float32(row["vector"]))
        assert set(predictions["labels"][key]) == {"label", "confidence"}
    assert "." not in "".join(data)  # FiftyOne takes what follows a dot off a key.


def test_labels_of_all_kinds_and_images_that_are_gone(tmp_path):
    odd = [b._replace(image=b.image._replace(label=name)) for b, name in zip(
        embeddings(range(3), 6), ["tab\there\nand line", None, "玫瑰"], strict=True)]  # fmt: skip
    add(tmp_path / "store", "small", odd)
    warnings = []
    export_store(str(tmp_path / "store"), "projector", str(tmp_path / "p"), warn=warnings.append)
    lines = (tmp_path / "p" / "metadata.tsv").read_text().splitlines()
    assert len(lines) == 4
    assert {line.split("\t")[0] for line in lines[1:]} == {"tab here and line", "", "玫瑰"}
    assert warnings == ["3 of the images cannot be read any more: grey in the sprite"]
    export_store(str(tmp_path / "store"), "fiftyone", str(tmp_path / "f"))
    found = json.loads((tmp_path / "f" / "labels.json").read_text())
    key = hashlib.sha256(b"/r/1.jpg").hexdigest()[:24]
    assert found["labels"][key] is None
    assert not (tmp_path / "f" / "predictions.json").exists()


def test_the_projector_gets_no_more_than_it_shows(tmp_path, monkeypatch):
    add(tmp_path / "store", "small", embeddings(range(30), 6))
    monkeypatch.setattr(runs, "MOST_POINTS", 10)
    warnings = []
    store = str(tmp_path / "store")
    exported = export_store(store, "projector", str(tmp_path / "p"), warn=warnings.append)
    assert exported == (10, 30)
    assert "10 points" in warnings[0]
    assert len((tmp_path / "p" / "tensors.tsv").read_text().splitlines()) == 10


@pytest.mark.parametrize(("count", "side"), [(1, 64), (16_384, 64), (16_385, 63), (100_000, 25)])
def test_sprites_fit_a_texture(count, side):
    assert tile_side(count) == side


def test_wrong_input(tmp_path, capsys):
    add(tmp_path / "store", "small", embeddings(range(3), 6))
    store = str(tmp_path / "store")
    (tmp_path / "there").mkdir()
    assert export(store, "fiftyone", tmp_path / "there") == 2
    assert "is there already" in capsys.readouterr().err
    assert export(tmp_path / "none", "projector", tmp_path / "o") == 1
    assert export(store, "projector", tmp_path / "o", "--backbone", "x") == 1
    assert "holds: small" in capsys.readouterr().err
    assert export(tmp_path, "labels", tmp_path / "o", "--scores", "x") == 1
    assert "exports of a store" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"no table of scores|cannot be read"):
        export_store(store, "fiftyone", str(tmp_path / "o"), scores=str(tmp_path / "no.csv"))
    assert not (tmp_path / "o").exists()


@pytest.mark.readers
@pytest.mark.timeout(300)
def test_tensorboard_serves_the_folder(original, tmp_path):
    program = pytest.importorskip("tensorboard.program", reason="pip install tensorboard")
    out = tmp_path / "out"
    assert export(original / "store", "projector", out) == 0
    board = program.TensorBoard()
    board.configure(argv=[None, "--logdir", str(out), "--port", "0", "--host", "127.0.0.1"])
    base = board.launch() + "data/plugin/projector/"

    def get(path):
        with urllib.request.urlopen(base + path, timeout=60) as answer:
            return answer.read()

    name = json.loads(get("runs"))[0]
    (found,) = json.loads(get(f"info?run={name}"))["embeddings"]
    assert found["tensorShape"] == [10, 1280]
    which = f"run={name}&name={found['tensorName']}"
    assert len(np.frombuffer(get(f"tensor?{which}"), np.float32)) == 10 * 1280
    assert get(f"metadata?{which}") == (out / "metadata.tsv").read_bytes()
    assert get(f"sprite_image?{which}") == (out / "sprite.png").read_bytes()


FIFTYONE = """\
import json, sys
from fiftyone.utils.data.importers import FiftyOneImageClassificationDatasetImporter as Importer
found = []
folder = sys.argv[1]
for name in ("labels", "predictions"):
    with Importer(data_path=f"{folder}/data.json", labels_path=f"{folder}/{name}.json") as rows:
        found.append([(path, label.label, label.confidence) for path, _, label in rows])
print(json.dumps(found))
"""


@pytest.mark.readers
@pytest.mark.timeout(300)
def test_fiftyone_s_own_reader_finds_images_labels_and_predictions(original, scores, tmp_path):
    """Its reader of files alone: a dataset of FiftyOne's lies in MongoDB, which Debian lacks."""
    python = os.environ.get("BEAM_FLOWERS_FIFTYONE_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import fiftyone"], capture_output=True).returncode:
        pytest.skip("pip install fiftyone, here or for BEAM_FLOWERS_FIFTYONE_PYTHON")
    out = tmp_path / "out"
    assert export(original / "store", "fiftyone", out, "--scores", scores) == 0
    done = subprocess.run([python, "-c", FIFTYONE, out], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    labels, predictions = json.loads(done.stdout.splitlines()[-1])
    stored = {row["uri"]: row for row in rows(original / "store")}
    assert {uri: label for uri, label, _ in labels} == {u: r["label"] for u, r in stored.items()}
    for (uri, _, _), vector in zip(labels, np.load(out / "vectors.npy"), strict=True):
        np.testing.assert_array_equal(vector, np.float32(stored[uri]["vector"]))
    table = read_scores(str(scores))
    given = dict(zip(table.uris, zip(table.given, table.scores, strict=True), strict=True))
    for uri, label, confidence in predictions:
        assert (label, confidence) == (given[uri][0], pytest.approx(float(given[uri][1])))
