"""What one image may cost, as commands and the API take it."""

from __future__ import annotations

import csv
import re

import apache_beam as beam
import make_images
import numpy as np
import pytest
from stores import cli, embed, photos, rejects, rows

import beam_flowers as bf
from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.recipe import PixelRecipe
from beam_flowers.scoring.read_table import read_scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten small photographs and a large one."""
    folder = photos(tmp_path_factory.mktemp("limits") / "photos", 2)
    (folder / "roses" / "large.png").write_bytes(make_images.png(700, 500) + bytes(1_000_000))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    """Trained on them, from the store beside it."""
    embed(folder, folder.parent / "store")
    assert cli("train", folder.parent / "store", "--model", folder.parent / "model") == 0
    return folder.parent / "model"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "error_class"), [("--max-pixels", "TooManyPixels"), ("--max-bytes", "TooLarge")]
)
def test_a_limit_rejects_and_a_higher_one_with_retry_accepts(folder, tmp_path, flag, error_class):
    most = 300_000 if flag == "--max-pixels" else 1_000_000
    store, large = tmp_path / "store", str(folder / "roses" / "large.png")
    assert cli("embed", folder, "--store", store, flag, most) == 0
    assert rejects(store) == {large: error_class}
    assert cli("embed", folder, "--store", store, flag, 10_000_000) == 0
    assert rejects(store) == {large: error_class}
    assert cli("embed", folder, "--store", store, "--retry-rejects") == 0
    assert rejects(store) == {}
    assert large in {row["uri"] for row in rows(store)}


def test_a_configuration_and_python_take_limits_too(folder, tmp_path):
    large = str(folder / "roses" / "large.png")
    (tmp_path / "run.yaml").write_text("embed:\n  max-pixels: 300000\n")
    store = tmp_path / "store"
    assert cli("embed", folder, "--store", store, "--config", tmp_path / "run.yaml") == 0
    assert rejects(store) == {large: "TooManyPixels"}
    embed(folder, tmp_path / "other", limits=bf.Limits(max_pixels=300_000))
    assert rejects(tmp_path / "other") == {large: "TooManyPixels"}


def test_score_and_classify_take_limits(folder, model, tmp_path, capsys):
    large = folder / "roses" / "large.png"
    flags = ["--model", model, "--max-pixels", 300_000]
    assert cli("score", folder, *flags, "--output", tmp_path / "scores.parquet") == 0
    assert (tmp_path / "scores.rejects.parquet").exists()
    capsys.readouterr()
    assert cli("classify", large, *flags) == 1
    assert "700 x 500 is 350,000 pixels, above the limit of 300,000" in capsys.readouterr().err
    assert cli("classify", large, "--model", model) == 0


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--max-pixels", 0, "--max-pixels 0 is not possible"),
        ("--max-pixels", 10**9, "--max-pixels 1000000000 is not possible"),
        ("--max-bytes", 0, "limits of 0 bytes"),
    ],
)
def test_impossible_limits_are_named(folder, tmp_path, flag, value, said, capsys):
    assert cli("embed", folder, "--store", tmp_path / "store", flag, value) == 1
    assert said in capsys.readouterr().err


def test_a_cut_jpeg_is_taken_by_salvage_and_its_row_says_so(tmp_path):
    folder, store = photos(tmp_path / "photos", 1), tmp_path / "store"
    whole = make_images.jpeg(640, 480, quality=95)
    for name, kept in {"a.jpg": 0.97, "b.jpg": 0.6}.items():
        (folder / "roses" / name).write_bytes(make_images.truncated(whole, kept))
    (folder / "roses" / "end.jpg").write_bytes(whole[:-2])
    assert cli("embed", folder, "--store", store) == 0
    assert len(rejects(store)) == 2
    flags = ("--salvage", 0.1, "--retry-rejects")
    assert cli("embed", folder, "--store", store, *flags) == 0
    assert list(rejects(store)) == [str(folder / "roses" / "b.jpg")]
    formats = {row["uri"].rpartition("/")[2]: row["format"] for row in rows(store)}
    assert re.fullmatch(r"JPEG, \d\.\d% missing", formats.pop("a.jpg"))
    assert set(formats.values()) == {"JPEG"}


@pytest.fixture
def cut(tmp_path):
    """A folder of a whole image, one that lacks 3 % and one that lacks 40."""
    (tmp_path / "cut").mkdir()
    whole = make_images.jpeg(640, 480, quality=95)
    for name, kept in {"whole.jpg": 1, "a.jpg": 0.97, "b.jpg": 0.6}.items():
        (tmp_path / "cut" / name).write_bytes(make_images.truncated(whole, kept))
    return tmp_path / "cut"


@pytest.mark.slow
@pytest.mark.parametrize("with_store", [False, True])
def test_score_takes_a_cut_jpeg_by_salvage_and_its_row_says_so(cut, model, tmp_path, with_store):
    flags = ["--model", model, *(["--store", tmp_path / "store"] if with_store else [])]
    table = tmp_path / "labels.csv"
    assert cli("score", cut, *flags, "--output", table) == 0
    assert "format" not in (plain := read_rows(table))["whole.jpg"]
    assert list(plain) == ["whole.jpg"]
    salvaging = [*flags, "--salvage", 0.1, *(["--retry-rejects"] if with_store else [])]
    assert cli("score", cut, *salvaging, "--output", table) == 0
    found = read_rows(table)
    assert list(found) == ["a.jpg", "whole.jpg"]
    assert re.fullmatch(r"JPEG, \d\.\d% missing", found["a.jpg"]["format"])
    assert found["whole.jpg"].pop("format") == "JPEG"
    assert found["whole.jpg"] == plain["whole.jpg"]
    assert list(read_rows(tmp_path / "labels.rejects.csv")) == ["b.jpg"]
    scores = read_scores(str(table))
    assert [uri.rpartition("/")[2] for uri in scores.uris] == ["a.jpg", "whole.jpg"]
    # The file is known for ours: it is replaced without --overwrite.
    assert cli("score", cut, *flags, "--output", table) == 0
    assert "format" not in read_rows(table)["whole.jpg"]


def test_a_folder_of_scores_and_one_from_a_store_say_so_too(cut, model, tmp_path):
    store, table = tmp_path / "store", tmp_path / "labels"
    assert cli("embed", cut, "--store", store, "--salvage", 0.1) == 0
    flags = ["--model", model, "--salvage", 0.1]
    for images in (cut, store):
        assert cli("score", images, *flags, "--output", table) == 0
        found = {row["uri"].rpartition("/")[2]: row["format"] for row in rows(table)}
        assert re.fullmatch(r"JPEG, \d\.\d% missing", found.pop("a.jpg"))
        assert found == {"whole.jpg": "JPEG"}
        assert len(read_scores(str(table)).uris) == 2


def test_a_pipeline_says_so_too(cut, model, tmp_path):
    bundle = bf.read_bundle(str(model))
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        found = pipeline | bf.FindImages([str(cut)])
        scored = found.images | bf.ScoreImages(bundle, limits=bf.Limits(salvage=0.1))
        written = (scored.scores, scored.rejects)
        _ = written | bf.WriteScores(str(tmp_path / "labels"), bundle, formats=True)
    found = {row["uri"].rpartition("/")[2]: row["format"] for row in rows(tmp_path / "labels")}
    assert re.fullmatch(r"JPEG, \d\.\d% missing", found.pop("a.jpg"))
    assert found == {"whole.jpg": "JPEG"}


def read_rows(table):
    with table.open(newline="") as file:
        return {row["uri"].rpartition("/")[2]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("share", [-0.1, 1, 1.5])
def test_an_impossible_share_is_named(share, tmp_path, capsys, folder):
    assert cli("embed", folder, "--store", tmp_path / "store", "--salvage", share) == 1
    assert "salvage is a share from 0 to below 1" in capsys.readouterr().err


def test_a_reject_says_how_much_is_missing():
    data = make_images.truncated(make_images.jpeg(640, 480, quality=95), 0.9)
    with pytest.raises(ImageError, match=r"Truncated: .*\d% of its rows are missing: .*--salv"):
        decode(data, PixelRecipe(8, 8))
    cut = decode(data, PixelRecipe(48, 64), bf.Limits(salvage=0.3))
    whole = decode(make_images.jpeg(640, 480, quality=95), PixelRecipe(48, 64))
    np.testing.assert_array_equal(cut.pixels[:36], whole.pixels[:36])
    assert (cut.pixels[46:] == 128).mean() > 0.9
