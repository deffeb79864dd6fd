"""The catalogue, what makes up a fingerprint, and the network that ships with the package."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from places import DATA

from beam_flowers.backbones import engine, resolve, weights
from beam_flowers.backbones.catalogue import CATALOGUE, Backbone, find_row
from beam_flowers.errors import BackboneError
from beam_flowers.images import recipe

LITE, INCEPTION = (find_row(name) for name in ("efficientnet-lite0", "inception-v3"))


@pytest.fixture(scope="module")
def golden():
    with np.load(DATA / "efficientnet_lite0_golden.npz") as arrays:
        return arrays["images"], arrays["features"]


@pytest.fixture(scope="module", params=["tensorflow", "openvino"])
def resolved(request):
    pytest.importorskip(request.param)
    return resolve.resolve("efficientnet-lite0", engine=request.param)


@pytest.fixture(scope="module")
def lite(resolved, tmp_path_factory):
    """The network, built from its weights: nothing is kept yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        engine._load.cache_clear()
        yield engine.load(resolved)
        engine._load.cache_clear()


@pytest.fixture
def _no_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv(weights.PLACES_VARIABLE, raising=False)


# --- the network in the package ---


def test_lite0_gives_the_golden_vectors(lite, golden):
    images, features = golden
    vectors = lite.embed(images)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, features, rtol=0, atol=1e-5 * np.abs(features).max())


def test_lite0_describes_itself(lite):
    assert (lite.input_size, lite.vector_length) == ((224, 224), LITE.vector_length)
    assert lite.recipe == LITE.recipe(224, 224)


def test_a_vector_is_the_same_bits_in_any_company(lite, golden):
    images, _ = golden
    together = lite.embed(images)
    alone = np.concatenate([lite.embed(image[np.newaxis]) for image in images])
    backwards = lite.embed(np.ascontiguousarray(images[::-1]))[::-1]
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(backwards, together)


def test_a_vector_is_the_same_bits_from_many_threads(lite, golden):
    images, _ = golden
    expected = lite.embed(images)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lite.embed, [images] * 6))
    assert all(np.array_equal(result, expected) for result in results)


def test_no_images_give_no_vectors(lite):
    assert lite.embed(np.zeros((0, 224, 224, 3), np.uint8)).shape == (0, 1280)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((1, 224, 224, 3), np.float32),
        np.zeros((1, 299, 299, 3), np.uint8),
        np.zeros((224, 224, 3), np.uint8),
    ],
)
def test_pixels_that_do_not_fit_are_refused(lite, pixels):
    with pytest.raises(BackboneError, match=r"takes uint8 \[N, 224, 224, 3\]"):
        lite.embed(pixels)


def test_threads_that_load_at_once_get_one_engine(lite, resolved):
    with ThreadPoolExecutor(4) as pool:
        engines = list(pool.map(engine.load, [replace(resolved) for _ in range(8)]))
    assert all(loaded is lite for loaded in engines)


def test_a_worker_with_other_weights_refuses(resolved):
    other = replace(resolved, weights_sha256="0" * 64)
    with pytest.raises(BackboneError, match="not those that the run began with"):
        engine.load(other)


def test_damaged_weights_in_the_package_are_noticed(monkeypatch, tmp_path):
    damaged = tmp_path / "weights.npz"
    content = bytearray(Path(weights.places(LITE)[0]).read_bytes())
    content[1000] ^= 1
    damaged.write_bytes(content)
    monkeypatch.setattr(weights, "places", lambda row: [str(damaged)])
    with pytest.raises(BackboneError, match=r"its sha256 is \w+, not .* again"):
        resolve.resolve("efficientnet-lite0")


def test_the_package_takes_no_other_weights():
    with pytest.raises(BackboneError, match="ship with the package"):
        resolve.resolve("efficientnet-lite0", path="/elsewhere")


# --- resolving ---


def printed(code):
    """What a process of its own prints, word by word."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_resolving_and_hashing_need_no_tensorflow():
    code = (
        "import sys; from beam_flowers.backbones import engine, resolve;"
        "b = resolve.resolve('efficientnet-lite0'); b.fingerprint;"
        "print({'tensorflow', 'keras', 'tensorflow_hub'} & set(sys.modules))"
    )
    assert printed(code) == ["set()"]


@pytest.mark.slow
def test_tensorflow_comes_without_keras_which_may_be_used_all_the_same():
    code = (
        "import sys; from beam_flowers.backbones.tf_runtime import tensorflow; tf = tensorflow();"
        "print({'keras', 'keras.src'} & set(sys.modules));"
        "from tensorflow.keras.layers import Dense; print(tf.keras.layers.Dense is Dense)"
    )
    assert printed(code) == ["set()", "True"]


def test_a_resolved_backbone_travels_by_pickle():
    backbone = resolve.resolve("efficientnet-lite0")
    again = pickle.loads(pickle.dumps(backbone))
    assert again == backbone
    assert again.fingerprint == backbone.fingerprint
    assert backbone.short == backbone.fingerprint[:8]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"input_size": 240},
        {"input_size": None},
        {"crop": None},
        {"crop": 0.9},
        {"resample": "lanczos"},
        {"pixel_range": (0.0, 1.0)},
        {"crop": None, "resize": 256},
        {"mean": (0.0, 0.0, 0.1)},
        {"std": (1.0, 1.0, 2.0)},
        {"channels": "bgr"},
    ],
)
def test_each_ingredient_of_the_recipe_changes_the_fingerprint(change):
    backbone = resolve.resolve("efficientnet-lite0")
    changed = replace(backbone, row=replace(backbone.row, **change))
    assert changed.fingerprint != backbone.fingerprint


def test_other_weights_and_another_decoder_change_the_fingerprint(monkeypatch):
    backbone = resolve.resolve("efficientnet-lite0")
    before = backbone.fingerprint
    assert replace(backbone, weights_sha256="0" * 64).fingerprint != before
    monkeypatch.setattr(recipe, "DECODE_VERSION", "another")
    assert backbone.fingerprint != before


def test_place_and_licence_do_not_change_the_fingerprint():
    backbone = resolve.resolve("efficientnet-lite0")
    moved = replace(backbone, path="/elsewhere", row=replace(backbone.row, licence="other"))
    assert moved.fingerprint == backbone.fingerprint


def test_a_right_sha256_is_accepted_and_a_wrong_one_named():
    sha256 = resolve.resolve("efficientnet-lite0").weights_sha256
    assert LITE.digest == f"sha256:{sha256}"
    assert resolve.resolve("efficientnet-lite0", sha256=sha256.upper()).weights_sha256 == sha256
    with pytest.raises(BackboneError, match=f"{sha256}, not 'abc'"):
        resolve.resolve("efficientnet-lite0", sha256="abc")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("inception-v4", "did you mean 'inception-v3'"),
        ("EfficientNet-Lite", "did you mean 'efficientnet-lite0'"),
        ("zebra", "Known are efficientnet-lite0, efficientnet-lite1"),
        ("no/such/folder", "not a path"),
    ],
)
def test_an_unknown_name_is_refused_with_the_close_one(name, hint):
    with pytest.raises(BackboneError, match=hint):
        resolve.resolve(name)


@pytest.mark.usefixtures("_no_weights")
def test_missing_weights_say_what_to_get_and_where_to_put_it(tmp_path):
    with pytest.raises(BackboneError) as caught:
        resolve.resolve("inception-v3")
    message = str(caught.value)
    assert f"get {INCEPTION.source}" in message
    assert f"put it at {tmp_path}/keras/models/{INCEPTION.weights_file}" in message
    assert "efficientnet-lite0 needs nothing" in message


@pytest.mark.usefixtures("_no_weights")
def test_whereabouts_say_where_weights_are_or_were_looked_for(monkeypatch, tmp_path):
    assert resolve.whereabouts(LITE) == "yes, in the package"
    assert resolve.whereabouts(INCEPTION).startswith(f"no; looked for {tmp_path}/keras")
    monkeypatch.setenv(weights.PLACES_VARIABLE, str(tmp_path))
    (tmp_path / "inception-v3").mkdir()
    assert resolve.whereabouts(INCEPTION) == f"yes, {tmp_path}/inception-v3"


@pytest.mark.usefixtures("_no_weights")
def test_another_file_under_the_name_of_the_weights_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(weights.PLACES_VARIABLE, str(tmp_path))
    (tmp_path / INCEPTION.weights_file).write_bytes(b"half a download")
    with pytest.raises(BackboneError, match=r"its md5 is \w+, not bcbd6486.*get it again from"):
        resolve.resolve("inception-v3")


@pytest.mark.parametrize("file", ["net.h5", "net.pkl", "net.pt", "net"])
def test_files_that_can_hold_code_are_refused(tmp_path, file):
    path = tmp_path / file
    path.write_bytes(b"anything")
    with pytest.raises(BackboneError, match=r"SavedModel"):
        resolve.resolve(str(path))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(
        BackboneError, match=r"has no network: neither a SavedModel's saved_model\.pb nor"
    ):
        resolve.resolve(str(tmp_path))


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(BackboneError, match="'/not/there' is not there"):
        resolve.resolve("my-net", path="/not/there")


@pytest.mark.parametrize("pixel_range", [(1, 0), (0, 0), (0, float("nan")), (0, float("inf"))])
def test_an_impossible_pixel_range_is_refused(pixel_range):
    with pytest.raises(BackboneError, match="pixel range"):
        resolve.resolve("efficientnet-lite0", pixel_range=pixel_range)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mean": (0.5, 0.5)}, r"mean \(0.5, 0.5\)"),
        ({"mean": (0.5, 0.5, float("inf"))}, "mean .* finite"),
        ({"std": (0.5, 0.0, 0.5)}, "std .* above 0"),
        ({"channels": "gbr"}, "'gbr' are not known"),
    ],
)
def test_an_impossible_recipe_is_refused(change, named):
    with pytest.raises(BackboneError, match=named):
        replace(LITE, **change)


def test_names_in_the_catalogue_are_unique_and_found():
    assert len({row.name for row in CATALOGUE}) == len(CATALOGUE)
    assert all(find_row(row.name) is row for row in CATALOGUE)
    assert find_row("zebra") is None


def test_a_row_of_its_own_needs_only_a_name():
    row = Backbone("mine", None, None)
    assert (row.pixel_range, row.crop, row.licence) == ((-1.0, 1.0), None, "unknown")
