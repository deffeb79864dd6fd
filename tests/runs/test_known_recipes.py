"""A network without a name, from the first run that refuses to a model that knows its pixels."""

import json

import make_images
import numpy as np
import pytest
from stores import cli

from beam_flowers.backbones.resolve import resolve
from beam_flowers.head.backbones import recipes_of_model
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.softmax import Head
from beam_flowers.store.commits import latest
from beam_flowers.workflows.known_recipes import notes_on_recipe, recipes_of_store

KERNEL = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def base(tf, tmp_path_factory):
    """A folder with two images and the network `net`."""
    folder = tmp_path_factory.mktemp("known")
    module = tf.Module()
    module.__call__ = tf.function(
        lambda pixels: tf.reduce_mean(pixels, [1, 2]) @ tf.constant(KERNEL),
        input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32)],
    )
    tf.saved_model.save(module, str(folder / "net"))
    for seed in range(2):
        path = folder / "images" / f"{seed}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(make_images.jpeg(seed=seed))
    return folder


def test_a_store_keeps_to_the_recipe_that_it_knows(base, capsys):
    store = base / "store"
    embed = ("embed", base / "images", "--store", store, "--backbone", base / "net")
    assert cli(*embed) == 1
    assert "nothing says which pixels" in capsys.readouterr().err
    assert not store.exists()

    assert cli(*embed, "--pixel-range=-1,1") == 0
    assert "other pixels" not in capsys.readouterr().err
    assert cli(*embed) == 0
    assert "embedded 0, reused 2" in capsys.readouterr().out

    # Another recipe names the old rows once, and the flag that keeps to them.
    config = base / "config.json"
    config.write_text(json.dumps({"pixel_range": [0, 255]}))
    for is_first in (True, False):
        assert cli(*embed, "--backbone-config", config) == 0
        said = capsys.readouterr().err
        assert (
            "the store has 2 rows of these weights by other pixels or another" in said
        ) == is_first
        assert ("--pixel-range=-1,1 adds to them instead" in said) == is_first
    assert len(latest(str(store)).sections) == 2


def test_a_run_that_keeps_to_old_pixels_says_what_the_network_says(base, tmp_path):
    old = resolve(str(base / "net"), pixel_range=(-1, 1))
    store = str(tmp_path / "store")
    images = str(base / "images")
    assert cli("embed", images, "--store", store, "--backbone", old.path, "--pixel-range=-1,1") == 0
    assert list(notes_on_recipe(old, store)) == []
    config = base / "net" / "preprocessor_config.json"
    config.write_text('{"pixel_range": [0, 1], "crop_fraction": 0.9}')
    kept = resolve(old.path, known=recipes_of_store(store))
    assert kept.fingerprint == old.fingerprint
    (note,) = notes_on_recipe(kept, store)
    config.unlink()
    assert "were made with --pixel-range=-1,1, and this run keeps to that" in note
    assert f"by {config} it would be --backbone-config of a file with {{" in note
    assert '"crop_fraction": 0.9' in note


def test_a_model_knows_the_recipe_of_its_vectors(base):
    old = resolve(str(base / "net"), pixel_range=(0, 255))
    head = Head(np.zeros((6, 2), np.float32), np.zeros(2, np.float32))
    empty = {key: {} for key in ("recipe", "split", "metrics", "versions")}
    model = Bundle(
        head,
        ("a", "b"),
        "net",
        old.fingerprint,
        old.about()["pixels"],
        seed=0,
        dataset_hash="",
        **empty,
    )
    assert resolve(old.path, known=recipes_of_model(model)).fingerprint == old.fingerprint
