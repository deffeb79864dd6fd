"""Networks are kept: later starts go without their origin; what is damaged is made again."""

import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

import beam_flowers
from beam_flowers.backbones import cache, efficientnet_lite, engine, openvino_engine
from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.backbones.resolve import resolve

ENGINES = ["tensorflow", "openvino"]
PIXELS = np.full((1, 16, 16, 3), 90, np.uint8)
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
    # It says by this layer which pixels it takes.
    x = keras.layers.Rescaling(1 / 255)(pixels)
    x = keras.layers.Conv2D(8, 3, use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    path = str(tmp_path_factory.mktemp("model") / "net.keras")
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(x)).save(path)
    return path


@pytest.fixture
def load(model):
    """Loads the small network anew; of EfficientNet-Lite OpenVINO keeps nothing."""

    def anew(name, path=model):
        engine._load.cache_clear()
        return engine.load(resolve(path, engine=name))

    return anew


@pytest.mark.slow
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
            means = tf.map_fn(lambda image: tf.reduce_mean(image, [0, 1]), x)
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


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [0, 1, 2])
def test_a_damaged_network_is_made_again(folder, name, damaged, load):
    expected = load(name).embed(PIXELS)
    (found,) = (folder / name).iterdir()
    file = sorted(found.iterdir())[damaged]
    file.write_bytes(file.read_bytes()[:-10] + b"0123456789")
    assert not cache.is_whole(found)
    np.testing.assert_array_equal(load(name).embed(PIXELS), expected)
    assert cache.is_whole(found)


def test_a_cache_that_cannot_be_written_costs_nothing_else(folder, name, load):
    folder.parent.write_text("in the way")
    assert load(name).vector_length == 8


def test_somebody_without_a_home_starts_all_the_same(name, monkeypatch, tmp_path, load, model):
    def nobody(uid):
        raise KeyError(uid)

    for variable in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.chdir(tmp_path)
    assert load(name).vector_length == 8
    assert not list(tmp_path.iterdir())
    assert name == "tensorflow" or not openvino_engine.starts_alone(resolve(model))


# --- a kept network goes with what it was made of ---

PACKAGE = Path(beam_flowers.__file__).parent
LITE = resolve("efficientnet-lite0")


@pytest.fixture
def sources(tmp_path):
    """A copy of the modules that build networks, at another place and with other dates."""
    copy = shutil.copytree(PACKAGE / "backbones", tmp_path / "backbones")
    for number, module in enumerate(copy.glob("*.py")):
        os.utime(module, (number, number))
    return copy


def test_a_change_of_any_source_makes_another_key(sources, monkeypatch):
    same = cache.place(LITE, "openvino", "1")
    places = {same}
    for module in [None, *sources.glob("*.py")]:
        if module:
            module.write_bytes(module.read_bytes() + b"#")
        monkeypatch.setattr(cache, "_SOURCES", cache.sources_digest(sources))
        places.add(cache.place(LITE, "openvino", "1"))
        assert (cache.place(LITE, "openvino", "1") == same) == (module is None)
    assert len(places) == 1 + len(list(sources.glob("*.py")))


def test_a_new_and_a_renamed_source_make_other_keys(sources):
    before = cache.sources_digest(sources)
    (sources / "new.py").write_text("")
    assert cache.sources_digest(sources) != before
    (sources / "new.py").unlink()
    (sources / "hub.py").rename(sources / "hub2.py")
    assert cache.sources_digest(sources) != before


def test_without_sources_nothing_is_kept(folder, monkeypatch, tmp_path, load):
    assert cache.sources_digest(tmp_path) is None
    monkeypatch.setattr(cache, "_SOURCES", None)
    np.testing.assert_array_equal(load("tensorflow").embed(PIXELS).shape, (1, 8))
    assert not folder.exists()


OTHERS = {
    "name": "other",
    "input_size": 225,
    "vector_length": 7,
    "pixel_range": (0.0, 1.0),
    "crop": 0.5,
    "resample": "lanczos",
    "resize": 256,
    "mean": (0.1, 0.2, 0.3),
    "std": (0.1, 0.2, 0.3),
    "channels": "bgr",
    "output": "pool",
    "loader": "any",
    "architecture": "efficientnet_lite1",
    "weights_file": "other.npz",
    "digest": "sha256:0",
    "in_package": False,
}


@pytest.mark.parametrize("field", [field.name for field in fields(Backbone)])
def test_a_change_of_the_recipe_makes_another_key(field):
    for_people = field in ("licence", "source")
    whole = replace(LITE.row, crop=None) if field == "resize" else LITE.row
    row = replace(whole, **{field: "other" if for_people else OTHERS[field]})
    before = replace(LITE, row=whole, path=LITE.place)
    other = cache.place(replace(before, row=row), "openvino", "1")
    assert (other == cache.place(before, "openvino", "1")) == for_people


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"precision": "bfloat16"}, False),
        ({"weights_sha256": "0" * 64}, False),
        ({"kind": "saved-model"}, False),
        ({"vectors": "float16"}, True),
        ({"path": "/elsewhere"}, True),
    ],
)
def test_a_change_of_the_network_makes_another_key(change, same):
    other = cache.place(replace(LITE, **change), "openvino", "1")
    assert (other == cache.place(LITE, "openvino", "1")) == same


def test_another_decoder_engine_or_library_makes_another_key(monkeypatch):
    places = {cache.place(LITE, "openvino", version) for version in "12"}
    monkeypatch.setattr("beam_flowers.images.recipe.DECODE_VERSION", "other")
    places.add(cache.place(LITE, "openvino", "1"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")
    places.add(cache.place(LITE, "openvino", "1"))
    assert len(places) == 4


def test_other_blocks_beside_the_same_arrays_make_another_key(tmp_path):
    row = replace(LITE.row, in_package=False)
    found = []
    for number in "12":
        (tmp_path / number).mkdir()
        (tmp_path / number / "architecture.json").write_text(number)
        net = replace(LITE, row=row, path=str(tmp_path / number / "weights.npz"))
        found.append(cache.place(net, "openvino", "1"))
    assert found[0] != found[1]


@pytest.mark.slow
def test_a_broken_loader_is_seen_where_the_cache_is_warm(load, monkeypatch):
    pixels = np.full((1, 224, 224, 3), 90, np.uint8)
    expected = load("tensorflow", "efficientnet-lite0").embed(pixels)
    right = efficientnet_lite.vectors

    def broken(pixels, blocks, arrays):
        return right(pixels, blocks, arrays) + 1

    monkeypatch.setattr(efficientnet_lite, "vectors", broken)
    monkeypatch.setattr(cache, "_SOURCES", "of the broken loader")
    found = load("tensorflow", "efficientnet-lite0").embed(pixels)
    np.testing.assert_allclose(found, expected + 1, rtol=1e-5)


@pytest.mark.slow
def test_an_update_of_the_code_reads_no_network_that_the_old_code_built(tmp_path):
    left_out = shutil.ignore_patterns("data", "__pycache__")
    copy = shutil.copytree(PACKAGE, tmp_path / "beam_flowers", ignore=left_out)
    (copy / "data").symlink_to(PACKAGE / "data")
    call = [sys.executable, "-c", _START, "efficientnet-lite0", "tensorflow", "none"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    loader = copy / "backbones" / "efficientnet_lite.py"
    text, stem = loader.read_text(), '"stem", arrays, stride='
    assert text.count(f"{stem}2") == 1
    found = []
    for stride in "24":
        loader.write_text(text.replace(f"{stem}2", f"{stem}{stride}"))
        ran = subprocess.check_output(call, text=True, env=environment, cwd=tmp_path)
        found.append(ran.split()[-1])
    assert found[0] != found[1]
