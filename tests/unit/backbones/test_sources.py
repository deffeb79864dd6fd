"""Inception v3 from Keras weights, a SavedModel and a TF-Hub handle, and handles in general.

The graph is the real one, with seeded weights.
"""

import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import numpy as np
import pytest

from beam_flowers.backbones import engine, hub, resolve, weights
from beam_flowers.backbones.catalogue import find_row
from beam_flowers.errors import BackboneError

INCEPTION = find_row("inception-v3")


class Inception(NamedTuple):
    h5: str
    saved_model: str
    pixels: np.ndarray
    vectors: np.ndarray


@pytest.fixture(scope="module")
def inception(tf, keras, tmp_path_factory):
    """Inception v3 in the shapes it is handed out in, and what Keras makes of two images."""
    folder = tmp_path_factory.mktemp("inception")
    model = keras.applications.InceptionV3(weights=None, include_top=False, pooling="avg")
    _randomise(model)
    h5 = folder / INCEPTION.weights_file
    _save_old_weights(model, h5)
    _save_hub_module(tf, model, folder / "module")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 299, 299, 3), dtype=np.uint8)
    prepared = keras.applications.inception_v3.preprocess_input(pixels.astype(np.float32))
    vectors = model(prepared, training=False).numpy()
    return Inception(str(h5), str(folder / "module"), pixels, vectors)


def _randomise(model):
    """Fresh batch norms do nothing; these do, so that a mistake in folding them shows."""
    random = np.random.default_rng(0)
    for variable in model.variables:
        shape = tuple(variable.shape)
        if "variance" in variable.path:
            variable.assign(random.uniform(0.5, 1.5, shape))
        elif "mean" in variable.path or "beta" in variable.path:
            variable.assign(random.normal(0, 0.1, shape))
        else:
            variable.assign(random.normal(0, (2 / np.prod(shape[:3])) ** 0.5, shape))


def _save_old_weights(model, path):
    """In the HDF5 layout of Keras 2, which the published file has."""
    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


def _save_hub_module(tf, model, folder):
    """As TF-Hub's image modules: it can be called, with pixels in [0, 1]."""
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    spec = tf.TensorSpec([None, 299, 299, 3], tf.float32)
    module.__call__ = tf.function(
        lambda pixels: model(pixels * 2 - 1, training=False), input_signature=[spec]
    )
    tf.saved_model.save(module, str(folder))


def _assert_same(vectors, expected):
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def _sha256(path):
    return weights.sha256(path, "saved-model" if weights.files.is_folder(path) else "keras-weights")


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        self.server.requested.append(self.path)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server of `tmp_path/web`, and an empty cache for what is downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "web").mkdir()
    handler = partial(_Handler, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requested, server.folder = [], tmp_path / "web"
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _serve(server, folder, name):
    with tarfile.open(server.folder / name, "w:gz", compresslevel=0) as archive:
        archive.add(folder, arcname=".")
    return f"{server.url}/{name}"


# --- Inception v3, three ways ---


@pytest.mark.slow
def test_inception_from_keras_weights(inception):
    backbone = resolve.resolve("inception-v3", inception.h5, _sha256(inception.h5))
    network = engine.load(backbone)
    assert (network.input_size, network.vector_length) == ((299, 299), 2048)
    _assert_same(network.embed(inception.pixels), inception.vectors)


@pytest.mark.slow
def test_inception_from_a_saved_model_in_the_folder_of_backbones(inception, tmp_path, monkeypatch):
    (tmp_path / "inception-v3").symlink_to(inception.saved_model)
    monkeypatch.setenv(weights.PLACES_VARIABLE, str(tmp_path))
    backbone = resolve.resolve("inception-v3")
    assert backbone.row.pixel_range == resolve.HUB_RANGE
    _assert_same(engine.load(backbone).embed(inception.pixels), inception.vectors)


@pytest.mark.slow
def test_inception_from_a_hub_handle(inception, server, tmp_path):
    handle = _serve(server, inception.saved_model, "inception.tar.gz")
    backbone = resolve.resolve("inception-v3", handle, _sha256(inception.saved_model))
    assert backbone.path.startswith(str(tmp_path / "cache" / "beam-flowers" / hub.FOLDER))
    assert (
        backbone.fingerprint == resolve.resolve("inception-v3", inception.saved_model).fingerprint
    )
    _assert_same(engine.load(backbone).embed(inception.pixels), inception.vectors)
    resolve.resolve("inception-v3", handle)
    assert len(server.requested) == 1
    assert "/inception.tar.gz?tf-hub-format=compressed" in server.requested[0]


def test_weights_that_are_not_the_published_ones_need_their_sha256(inception):
    with pytest.raises(BackboneError, match=r"its md5 is \w+, not bcbd6486"):
        resolve.resolve("inception-v3", inception.h5)
    with pytest.raises(BackboneError, match="not 'abc'"):
        resolve.resolve("inception-v3", inception.h5, "abc")


@pytest.mark.slow
def test_a_damaged_weights_file_is_named(inception, tmp_path):
    half = tmp_path / "half.h5"
    with open(inception.h5, "rb") as file:
        half.write_bytes(file.read(100_000))
    backbone = resolve.resolve("inception-v3", str(half), _sha256(str(half)))
    with pytest.raises(BackboneError, match=r"half\.h5' cannot be loaded as 'inception-v3'"):
        engine.load(backbone)


# --- TF-Hub handles ---


def test_a_handle_with_a_wrong_sha256_is_refused(server, inception):
    handle = _serve(server, inception.saved_model, "net.tar.gz")
    with pytest.raises(BackboneError, match="damaged or others"):
        resolve.resolve(handle, sha256="abc")


@pytest.mark.parametrize("name", ["missing.tar.gz", "text.tar.gz"])
def test_a_handle_that_gives_no_module_says_what_to_do(server, name):
    (server.folder / "text.tar.gz").write_text("not a module")
    with pytest.raises(
        BackboneError, match=r"cannot be downloaded.*unpack it, and give the folder"
    ):
        resolve.resolve(f"{server.url}/{name}")


def test_a_server_that_is_not_there_says_what_to_do(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(BackboneError, match="efficientnet-lite0, which needs no download"):
        resolve.resolve(f"{server.url}/net.tar.gz")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("https://tfhub.dev/google/imagenet/net_v2/5", "google-imagenet-net-v2-5"),
        ("http://127.0.0.1:1/Net.tar.gz", "net"),
        ("/models/My Net.keras", "my-net"),
        ("models/net/", "net"),
        ("玫瑰", "backbone"),
    ],
)
def test_networks_without_a_name_are_named_after_their_place(name, slug):
    assert resolve._slug(name) == slug
