"""`backbones`: what this processor does at each precision, and networks that users quantise."""

import numpy as np
import pytest
from stores import cli, photos

from beam_flowers.backbones import engine, hardware
from beam_flowers.backbones.resolve import resolve
from beam_flowers.workflows import measure, quantise

pytest.importorskip("openvino")
LITE = "efficientnet-lite0"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(measure, "_SECONDS", 0.001)
    monkeypatch.setattr(measure, "_ROUNDS", 1)


@pytest.mark.slow
def test_each_precision_is_measured_on_this_processor(quick, monkeypatch, capsys):
    monkeypatch.setattr(hardware, "flags", lambda: frozenset({"avx2"}))
    assert cli("backbones", "--measure", LITE) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:]}
    assert [*rows] == ["float32", "bfloat16", "int8"]
    assert rows["float32"][1:4] == ["1.00", "x", "1.0000"]
    assert rows["bfloat16"][:2] == ["no:", "the"]
    milliseconds, speed, _, cosine, vectors = rows["int8"]
    assert float(milliseconds) > 0 < float(speed)
    assert 0.9 < float(cosine) < 1
    assert vectors != rows["float32"][4]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--quantize", LITE], "--quantize NAME wants --images"),
        (["--images", "photos"], "--quantize NAME wants --images"),
        (["--quantize", LITE, "--images", "a", "--measure", LITE], "exclude each other; give one"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(flags, told, capsys):
    assert cli("backbones", *flags) == 1
    assert told in capsys.readouterr().err


def test_without_nncf_the_cure_is_named(monkeypatch, capsys):
    real = quantise.require_nncf.__globals__["importlib"].util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n: None if n == "nncf" else real(n))
    assert cli("backbones", "--quantize", LITE, "--images", "photos") == 1
    assert "nncf is not installed" in capsys.readouterr().err


@pytest.fixture
def with_nncf():
    pytest.importorskip("nncf", reason="pip install 'beam-flowers[quantize]'")


@pytest.mark.slow
def test_a_network_of_ones_own_is_quantised_and_taken(with_nncf, tmp_path, monkeypatch, capsys):
    """The way of a user: quantise, embed, train, score; and nothing is replaced unasked."""
    from beam_flowers.backbones.keras_models import keras_library

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keras = keras_library()
    keras.utils.set_random_seed(0)
    pixels = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(pixels)
    x = keras.layers.Conv2D(16, 3, activation="relu")(x)
    x = keras.layers.Conv2D(32, 3, strides=2, activation="relu")(x)
    net = str(tmp_path / "net.keras")
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x)).save(net)
    images = photos(tmp_path / "images", 6)
    wanted = ("backbones", "--quantize", net, "--images", images)
    assert cli(*wanted) == 0
    told = capsys.readouterr().out
    assert "in int8, calibrated on 30 images" in told
    assert "held-out accuracy of heads of their own" in told
    assert cli(*wanted) == 2
    assert "has a quantised network already" in capsys.readouterr().err
    store, model = tmp_path / "store", tmp_path / "model"
    assert cli("embed", images, "--store", store, "--backbone", net, "--precision", "int8") == 0
    assert cli("train", store, "--model", model) == 0
    table = tmp_path / "table.csv"
    path = ("--backbone-path", net)
    assert cli("score", images, "--model", model, "--output", table, *path) == 0
    full = resolve(net, engine="openvino")
    reduced = full.in_precision("int8")
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    found, expected = engine.load(reduced).embed(image), engine.load(full).embed(image)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.slow
def test_a_packaged_network_wants_a_folder_and_images(with_nncf, tmp_path, capsys):
    images = photos(tmp_path / "images", 1)
    assert cli("backbones", "--quantize", LITE, "--images", images) == 1
    assert "--output FOLDER" in capsys.readouterr().err
    few = ("--images", images, "--output", tmp_path / "out")
    assert cli("backbones", "--quantize", LITE, *few) == 1
    assert "is calibrated on 10 at least" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
