"""OpenVINO beside TensorFlow: the same verdicts and, nearly, the same vectors."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_images import jpeg

from beam_flowers.backbones import engine, hardware, openvino_engine
from beam_flowers.backbones.compute import compute_embeddings
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import BackboneError
from beam_flowers.images.find import find_images
from beam_flowers.records import Embedding, Image

pytest.importorskip("openvino")
DATA = Path(__file__).parents[2] / "data"
TOLERANCE = 1e-5
"""Of a vector's largest number; measured are 2e-6."""
_WATCHED = """
import sys
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
from beam_flowers.backbones import engine, resolve
engine.load(resolve.resolve("efficientnet-lite0", engine="openvino"))
told = {"os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"}
print(sorted(told.intersection(seen)), "openvino_telemetry" in sys.modules,
      "tensorflow" in sys.modules)
"""
_AT_ONCE = """
import threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from beam_flowers.backbones import engine, resolve
lite = engine.load(resolve.resolve("efficientnet-lite0", engine="openvino"))
ready = threading.Barrier(8)
with ThreadPoolExecutor(8) as pool:
    images = [np.zeros((1, 224, 224, 3), np.uint8)] * 8
    list(pool.map(lambda image: (ready.wait(), lite.embed(image)), images))
"""


@pytest.fixture(scope="module")
def pixels():
    """Eight photographs."""
    with np.load(DATA / "efficientnet_lite0_golden.npz") as golden:
        return golden["images"]


def load(name="openvino"):
    engine._load.cache_clear()
    return engine.load(resolve("efficientnet-lite0", engine=name))


def test_engines_agree_on_every_file(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(300, 200, seed=number))
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "0.jpg").read_bytes()[:300])
    (tmp_path / "text.jpg").write_text("no image")
    images = [found for found in find_images([str(tmp_path)]) if isinstance(found, Image)]
    ours, theirs = (compute_embeddings(images, load(name)) for name in ("openvino", "tensorflow"))
    assert [type(o) for o in ours] == [type(t) for t in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(mine, Embedding):
            limit = TOLERANCE * np.abs(other.vector).max()
            np.testing.assert_allclose(mine.vector, other.vector, rtol=0, atol=limit)
        else:
            assert mine == other


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_lite0_of_its_arrays_gives_the_bits_of_tensorflows_graph(precision, pixels):
    """Vectors stored before it was built without TensorFlow stay valid to the bit."""
    if precision == "bfloat16" and not hardware.has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    lite = resolve("efficientnet-lite0", precision=precision, engine="openvino")
    core = openvino_engine.library().Core()
    models = openvino_engine.read_model(core, lite), openvino_engine._convert(core, lite)
    ours, theirs = (openvino_engine._compile(core, model, lite, 1) for model in models)
    for image in pixels:
        np.testing.assert_array_equal(ours.run(image[np.newaxis]), theirs.run(image[np.newaxis]))


def test_lite0_of_its_arrays_takes_the_whole_recipe():
    lite = resolve("efficientnet-lite0", engine="openvino")
    caffe = {"mean": (103.939, 116.779, 123.68), "std": (57.0, 58.0, 59.0), "channels": "bgr"}
    own = replace(lite, row=replace(lite.row, pixel_range=(0.0, 255.0), **caffe))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    found = engine.load(own).embed(pixels)
    theirs = engine.load(replace(own, engine="tensorflow")).embed(pixels)
    np.testing.assert_allclose(found, theirs, atol=1e-5 * np.abs(theirs).max())
    assert np.abs(found - engine.load(lite).embed(pixels)).max() > 0.1


def test_lite0_starts_without_tensorflow_and_tells_nobody(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    call = [sys.executable, "-c", _WATCHED]
    said = subprocess.check_output(call, text=True, env=environment)
    assert said.splitlines()[-1] == "[] False False"
    assert not list(tmp_path.iterdir())


def test_weights_that_changed_since_they_were_resolved_are_refused():
    lite = replace(resolve("efficientnet-lite0", engine="openvino"), weights_sha256="0" * 64)
    with pytest.raises(BackboneError, match="are not those that the run began with"):
        engine.load(lite)


def test_a_row_of_another_length_or_size_is_refused():
    lite = resolve("efficientnet-lite0", engine="openvino")
    for field, text in (("vector_length", "vectors of 1280"), ("input_size", "of 224 x 224")):
        with pytest.raises(BackboneError, match=text):
            engine.load(replace(lite, row=replace(lite.row, **{field: 7})))


def test_a_image_among_others_gives_what_it_gives_alone():
    lite = load()
    pictures = np.random.default_rng(1).integers(0, 256, (7, 224, 224, 3), np.uint8)
    alone = np.concatenate([lite.embed(image[np.newaxis]) for image in pictures])
    for count in range(1, 8):
        np.testing.assert_array_equal(lite.embed(pictures[:count]), alone[:count])
    np.testing.assert_array_equal(lite.embed(pictures[::-1]), alone[::-1])


@pytest.mark.parametrize("even", [True, False])
def test_a_network_in_which_the_place_tells_gets_one_image_at_a_time(even):
    def run(pixels):
        means = pixels.mean((1, 2), dtype=np.float32)
        return means if even else means + np.spacing(means) * np.arange(len(means))[:, np.newaxis]

    assert openvino_engine._is_even(openvino_engine.Compiled(run, 8, 8, 3, 4)) == even


@pytest.mark.parametrize(("count", "batch"), [(None, openvino_engine._BATCH), (1, 1)])
def test_a_network_of_one_image_stays_one(tmp_path, count, batch):
    tf = pytest.importorskip("tensorflow")
    module = tf.Module()
    module.__call__ = tf.function(
        lambda x: tf.reshape(tf.reduce_mean(x, [1, 2]), [count or -1, 3]),
        input_signature=[tf.TensorSpec([count, 8, 8, 3], tf.float32)],
    )
    tf.saved_model.save(module, str(tmp_path / "net"))
    network = engine.load(resolve(str(tmp_path / "net"), engine="openvino", pixel_range=(0, 255)))
    pixels = np.arange(5 * 8 * 8 * 3).reshape(5, 8, 8, 3).astype(np.uint8)
    assert network.batch == batch
    np.testing.assert_allclose(network.embed(pixels), pixels.mean((1, 2)), rtol=1e-6)


def test_the_engine_is_no_part_of_the_fingerprint():
    prints = {resolve("efficientnet-lite0", engine=e).fingerprint for e in ("openvino", "auto")}
    assert prints == {resolve("efficientnet-lite0", engine="tensorflow").fingerprint}


@pytest.mark.slow
def test_the_first_images_of_many_threads_do_not_wait_for_ever():
    """One start in eight did, before the first inference was made alone."""
    for _ in range(25):
        subprocess.run([sys.executable, "-c", _AT_ONCE], check=True, timeout=30)


def test_missing_openvino_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: False)
    with pytest.raises(BackboneError, match="pip install openvino there, or run with"):
        load()


@pytest.mark.parametrize("name", ["tensorflow", "openvino"])
def test_bfloat16_is_refused_without_the_processor_for_it(name, monkeypatch):
    monkeypatch.setattr(hardware, "flags", lambda: frozenset({"avx2"}))
    with pytest.raises(BackboneError, match=r"no bfloat16 arithmetic.*leave --precision out"):
        engine.load(resolve("efficientnet-lite0", precision="bf16", engine=name))


def test_precision_is_part_of_the_fingerprint():
    half, full = (resolve("efficientnet-lite0", precision=p) for p in ("bf16", "float32"))
    assert half.fingerprint != full.fingerprint
    assert half == resolve("efficientnet-lite0", precision="bfloat16")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"precision": "float64"}, "precision 'float64' is not known: float32, bf16 or int8"),
        ({"engine": "onnx"}, "engine 'onnx' is not known: auto, tensorflow or openvino"),
    ],
)
def test_unknown_names_are_refused(wrong, message):
    with pytest.raises(BackboneError, match=message):
        resolve("efficientnet-lite0", **wrong)


@pytest.mark.skipif(not hardware.has_bfloat16(), reason="this processor has no bfloat16")
def test_bfloat16_is_near_float32():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    half = engine.load(resolve("efficientnet-lite0", precision="bf16", engine="openvino"))
    full = engine.load(resolve("efficientnet-lite0", engine="openvino"))
    a, b = half.embed(pixels), full.embed(pixels)
    assert 0 < np.abs(a - b).max() < 0.1 * np.abs(b).max()
