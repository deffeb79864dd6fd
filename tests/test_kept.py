"""Networks are kept: later starts go without their origin; what is damaged is made again."""

import pwd
import subprocess
import sys

import numpy as np
import pytest

from beam_flowers.backbones import engine, kept, openvino_engine
from beam_flowers.backbones.resolve import resolve

ENGINES = ["tensorflow", "openvino"]
PIXELS = np.full((1, 224, 224, 3), 90, np.uint8)
_START = """
import sys
import numpy as np
from beam_flowers.backbones import engine, resolve
path, name, unwanted = sys.argv[1:]
network = engine.load(resolve.resolve(path, engine=name))
vector = network.embed(np.full((1, *network.input_size, 3), 90, np.uint8))
print(unwanted in sys.modules, vector.tobytes().hex())
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path / "cache" / "beam-flowers"
    engine._load.cache_clear()


@pytest.fixture(params=ENGINES)
def name(request):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return request.param


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A `.keras` file."""
    from beam_flowers.backbones.keras_models import keras_library

    keras = keras_library()
    pixels = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, use_bias=False)(pixels)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    path = str(tmp_path_factory.mktemp("model") / "net.keras")
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x)).save(path)
    return path


def load(name):
    engine._load.cache_clear()
    return engine.load(resolve("efficientnet-lite0", engine=name))


def test_a_second_start_needs_less_and_gives_the_same_bits(folder, name, model):
    unwanted = {"tensorflow": "keras.src", "openvino": "tensorflow"}[name]
    call = [sys.executable, "-c", _START, model, name, unwanted]
    first, second = (subprocess.check_output(call, text=True).split()[-2:] for _ in "12")
    assert (first[0], second[0]) == ("True", "False")
    assert first[1] == second[1]
    assert len(list((folder / name).iterdir())) == 1


def test_a_kept_network_may_have_loops_and_branches_of_its_own(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Loops(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
        def __call__(self, pixels):
            _, x = tf.while_loop(
                lambda i, x: i < 3 + tf.cast(tf.reduce_max(x) > 9, tf.int32),
                lambda i, x: (i + 1, x * 1.1),
                [0, pixels],
            )
            means = tf.map_fn(lambda picture: tf.reduce_mean(picture, [0, 1]), x)
            return tf.cond(tf.reduce_sum(x) > 1e9, lambda: means * 0, lambda: means)

    module = Loops()
    tf.saved_model.save(module, str(tmp_path / "net"), signatures=module.__call__)
    backbone = resolve(str(tmp_path / "net"), pixel_range=(0, 255), engine="tensorflow")
    found = []
    for _ in "12":
        engine._load.cache_clear()
        found.append(engine.load(backbone).embed(PIXELS[:, :8, :8]))
    np.testing.assert_allclose(found[0], 90 * 1.1**4, rtol=1e-5)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_damaged_network_is_made_again(folder, name, damaged):
    expected = load(name).embed(PIXELS)
    (found,) = (folder / name).iterdir()
    file = sorted(found.iterdir())[damaged]
    file.write_bytes(file.read_bytes()[:-10] + b"0123456789")
    assert not kept.is_whole(found)
    np.testing.assert_array_equal(load(name).embed(PIXELS), expected)
    assert kept.is_whole(found)


def test_a_cache_that_cannot_be_written_costs_nothing_else(folder, name):
    folder.parent.write_text("in the way")
    assert load(name).vector_length == 1280


def test_somebody_without_a_home_starts_all_the_same(name, monkeypatch, tmp_path):
    def nobody(uid):
        raise KeyError(uid)

    for variable in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    assert load(name).vector_length == 1280
    assert not list(tmp_path.iterdir())
    assert name == "tensorflow" or not openvino_engine.is_kept(resolve("efficientnet-lite0"))
