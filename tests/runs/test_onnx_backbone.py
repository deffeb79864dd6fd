"""Commands with a network of Hugging Face: `--backbone FOLDER`."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from stores import cli, photos

pytest.importorskip("onnx", reason="pip install 'beam-flowers[test]'")

from onnx_networks import VIT, publish, vit


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Twenty photographs, a network that gives tokens only, its store and a model."""
    base = tmp_path_factory.mktemp("onnx")
    photos(base / "photos", 4)
    publish(base / "tiny-vit", vit(outputs=["last_hidden_state"]), data="model.onnx_data")
    embed = ("embed", base / "photos", "--store", base / "store", "--backbone", base / "tiny-vit")
    assert cli(*embed) == 1
    assert cli(*embed, "--backbone-output", "mean") == 0
    assert cli("train", base / "store", "--model", base / "model") == 0
    return base


def test_vectors_of_its_name_are_in_the_store(work):
    parts = list((work / "store").glob("backbone=tiny-vit-*/part-*.parquet"))
    assert sum(pq.read_metadata(part).num_rows for part in parts) == 20


@pytest.mark.parametrize("path", ["tiny-vit", "tiny-vit/onnx/model.onnx"])
def test_a_model_and_a_store_know_output_and_pixels(work, capsys, path):
    image = next((work / "photos" / "roses").iterdir())
    assert cli("classify", image, "--model", work / "model", "--backbone-path", work / path) == 0
    assert image.name in capsys.readouterr().out
    if path == "tiny-vit":
        again = ("embed", work / "photos", "--store", work / "store")
        assert cli(*again, "--backbone", work / path) == 0
        assert len(list((work / "store").glob("backbone=*"))) == 1


def test_another_output_stands_beside_and_names_the_first(work, tmp_path, capsys):
    store = tmp_path / "store"
    shutil.copytree(work / "store", store)
    given = ("--backbone", work / "tiny-vit", "--backbone-output", "class")
    assert cli("embed", work / "photos" / "roses", "--store", store, *given) == 0
    assert "--backbone-output mean adds to them instead" in capsys.readouterr().err
    assert len(list(store.glob("backbone=tiny-vit-*"))) == 2


def test_a_network_of_other_data_is_not_the_models(work, tmp_path, capsys):
    shutil.copytree(work / "tiny-vit", tmp_path / "tiny-vit")
    data = tmp_path / "tiny-vit" / "onnx" / "model.onnx_data"
    content = bytearray(data.read_bytes())
    content[1000] ^= 1
    data.write_bytes(content)
    image = next((work / "photos" / "roses").iterdir())
    model = ("--model", work / "model", "--backbone-path", tmp_path / "tiny-vit")
    assert cli("classify", image, *model, "--backbone-output", "mean") == 1
    assert "tiny-vit" in capsys.readouterr().err


def test_an_unknown_processor_ends_the_run_by_its_name(tmp_path, capsys):
    config = VIT | {"image_processor_type": "DonutImageProcessor"}
    publish(tmp_path / "net", vit(), config)
    store = ("--store", tmp_path / "store", "--backbone", tmp_path / "net")
    assert cli("embed", photos(tmp_path / "photos", 1), *store) == 1
    assert "DonutImageProcessor" in capsys.readouterr().err


def test_the_recipe_of_a_file_is_taken_before_that_of_the_folder(work, tmp_path, capsys):
    config = tmp_path / "other.json"
    config.write_text(json.dumps(VIT | {"resample": 3}))
    given = ("--backbone", work / "tiny-vit", "--backbone-output", "mean")
    store = ("--store", tmp_path / "store", "--backbone-config", config)
    assert cli("embed", work / "photos" / "roses", *given, *store) == 0
    (part,) = (tmp_path / "store").glob("backbone=tiny-vit-*/part-*.parquet")
    (old,) = (work / "store").glob("backbone=tiny-vit-*")
    assert part.parent.name != old.name
