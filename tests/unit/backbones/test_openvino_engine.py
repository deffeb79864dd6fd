"""OpenVINO beside TensorFlow: the same verdicts and, nearly, the same vectors."""

import subprocess
import sys

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
TOLERANCE = 1e-5
"""Of a vector's largest number; measured are 2e-6."""
_WATCHED = """
import sys
seen = []
sys.addaudithook(lambda event, _: seen.append(event))
from beam_flowers.backbones import engine, resolve
engine.load(resolve.resolve("efficientnet-lite0", engine="openvino"))
told = {"os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"}
print(sorted(told.intersection(seen)), "openvino_telemetry" in sys.modules)
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


def test_nothing_is_told_to_anybody_and_no_process_is_forked():
    said = subprocess.check_output([sys.executable, "-c", _WATCHED], text=True)
    assert said.splitlines()[-1] == "[] False"


@pytest.mark.slow
def test_the_first_images_of_many_threads_do_not_wait_for_ever():
    """One start in eight did, before the first inference was made alone."""
    for _ in range(25):
        subprocess.run([sys.executable, "-c", _AT_ONCE], check=True, timeout=30)


def test_missing_openvino_is_an_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: False)
    with pytest.raises(BackboneError, match=r"pip install 'beam-flowers\[openvino\]'"):
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
        ({"precision": "float64"}, "precision 'float64' is not known: float32 or bf16"),
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
