"""Networks from Keras weights, SavedModels, TF-Hub handles and `.keras` files.

Inception v3 is the real graph with seeded weights; the other networks are as small as can be.
"""

import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import memory_files
import numpy as np
import pytest

from beam_flowers.backbones import engine, hub, resolve, weights
from beam_flowers.backbones.catalogue import CATALOGUE
from beam_flowers.backbones.network import tensorflow
from beam_flowers.errors import BackboneError

INCEPTION = CATALOGUE[1]
SMALL = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)


class Inception(NamedTuple):
    h5: str
    saved_model: str
    pixels: np.ndarray
    vectors: np.ndarray


@pytest.fixture(scope="module")
def tf():
    return tensorflow()


@pytest.fixture(scope="module")
def keras(tf):
    import keras

    return keras


@pytest.fixture(scope="module")
def inception(tf, keras, tmp_path_factory):
    """Inception v3 in the shapes it is handed out in, and what Keras makes of two pictures."""
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
    module.model = model
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
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "cache"))
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


def test_inception_from_keras_weights(inception):
    backbone = resolve.resolve("inception-v3", inception.h5, _sha256(inception.h5))
    network = engine.load(backbone)
    assert (network.input_size, network.vector_length) == ((299, 299), 2048)
    _assert_same(network.embed(inception.pixels), inception.vectors)


def test_inception_from_a_saved_model_in_the_folder_of_backbones(inception, tmp_path, monkeypatch):
    (tmp_path / "inception-v3").symlink_to(inception.saved_model)
    monkeypatch.setenv(weights.PLACES_VARIABLE, str(tmp_path))
    backbone = resolve.resolve("inception-v3")
    assert backbone.row.pixel_range == resolve.HUB_RANGE
    _assert_same(engine.load(backbone).embed(inception.pixels), inception.vectors)


def test_inception_from_a_hub_handle(inception, server):
    handle = _serve(server, inception.saved_model, "inception.tar.gz")
    backbone = resolve.resolve("inception-v3", handle, _sha256(inception.saved_model))
    assert backbone.path == hub.cache_folder(handle)
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


def test_a_damaged_weights_file_is_named(inception, tmp_path):
    half = tmp_path / "half.h5"
    with open(inception.h5, "rb") as file:
        half.write_bytes(file.read(100_000))
    backbone = resolve.resolve("inception-v3", str(half), _sha256(str(half)))
    with pytest.raises(BackboneError, match=r"half\.h5' cannot be loaded as 'inception-v3'"):
        engine.load(backbone)


# --- TF-Hub handles ---


def test_a_handle_with_a_wrong_sha256_is_refused(server, tf, tmp_path):
    handle = _serve(server, _save(tf, tmp_path), "net.tar.gz")
    with pytest.raises(BackboneError, match="damaged or others"):
        resolve.resolve(handle, sha256="abc")


@pytest.mark.parametrize("name", ["missing.tar.gz", "text.tar.gz"])
def test_a_handle_that_gives_no_module_says_what_to_do(server, name):
    (server.folder / "text.tar.gz").write_text("not a module")
    with pytest.raises(BackboneError, match="cannot be downloaded.*unpack it, and give the folder"):
        resolve.resolve(f"{server.url}/{name}")


def test_a_server_that_is_not_there_says_what_to_do(server):
    server.shutdown()
    server.server_close()
    with pytest.raises(BackboneError, match="efficientnet-lite0, which needs no download"):
        resolve.resolve(f"{server.url}/net.tar.gz")


def test_without_tensorflow_hub_the_cure_is_named(monkeypatch, server):
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_hub", None)
    with pytest.raises(BackboneError, match="setuptools<81"):
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


# --- any SavedModel ---


def _mean(tf, pixels):
    """A network of one layer: D = 6 numbers from the mean colour."""
    return tf.reduce_mean(pixels, [1, 2]) @ tf.constant(_KERNEL)


_KERNEL = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)


def _expected(pixels, low=-1.0, high=1.0):
    return (pixels / 255 * (high - low) + low).mean((1, 2)) @ _KERNEL


def _save(tf, folder, outputs=None, shape=(None, 8, 8, 3), dtype="float32", name=None):
    """Saves `_mean` with other outputs; as a signature if that has a name."""
    module = tf.Module()
    module.scale = tf.Variable(1.0)  # So that there is something to freeze.
    outputs = outputs or (lambda vector: vector)

    def call(pixels):
        return outputs(_mean(tf, tf.cast(pixels, tf.float32) * module.scale))

    function = tf.function(call, input_signature=[tf.TensorSpec(shape, dtype)])
    if name is None:
        module.__call__ = function
    path = str(folder / "net")
    tf.saved_model.save(module, path, signatures=None if name is None else {name: function})
    return path


def _embed(path, **options):
    return engine.load(resolve.resolve(path, **options)).embed(SMALL)


def test_a_saved_model_tells_its_sizes_and_is_read_in_its_range(tf, tmp_path):
    path = _save(tf, tmp_path)
    network = engine.load(resolve.resolve(path))
    assert (network.input_size, network.vector_length) == ((8, 8), 6)
    _assert_same(network.embed(SMALL), _expected(SMALL))
    _assert_same(_embed(path, pixel_range=(0, 1)), _expected(SMALL, 0, 1))


@pytest.mark.parametrize("name", ["serving_default", "default", "image_feature_vector"])
def test_a_saved_model_is_used_by_its_signature(tf, tmp_path, name):
    path = _save(tf, tmp_path, lambda v: {"vector": v, "map": tf.zeros([1, 2, 2, 6])}, name=name)
    _assert_same(_embed(path), _expected(SMALL))


@pytest.mark.parametrize(
    "outputs",
    [
        lambda v: v[:, None, None, :],
        lambda v: {"default": v, "logits": v * 2},
        lambda v: [v],
    ],
    ids=["4-D", "default", "list"],
)
def test_the_vector_is_found_among_the_outputs(tf, tmp_path, outputs):
    _assert_same(_embed(_save(tf, tmp_path, outputs)), _expected(SMALL))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": lambda v: {"a": v, "b": v}}, r"gives 2 among.*'a' float32 \[1, 6\], 'b'"),
        ({"outputs": lambda v: v[:, None, :]}, "gives 0 among"),
        ({"shape": (None, None, None, 3)}, "export it with a fixed height and width"),
        ({"shape": (None, 8, 3)}, r"takes an input of shape \(None, 8, 3\)"),
        ({"dtype": "uint8"}, "takes uint8, not pictures as float32"),
        ({"name": "train"}, "none of the signatures.*it has: train"),
    ],
)
def test_a_saved_model_that_does_not_fit_says_why(tf, tmp_path, changes, message):
    with pytest.raises(BackboneError, match=message):
        _embed(_save(tf, tmp_path, **changes))


def test_a_module_of_tensorflow_1(tf, tmp_path):
    v1, path = tf.compat.v1, str(tmp_path / "module")
    with v1.Graph().as_default(), v1.Session() as session:
        pixels = v1.placeholder(tf.float32, [None, 8, 8, 3])
        kernel = v1.get_variable("kernel", initializer=_KERNEL)
        vector = tf.reduce_mean(pixels, [1, 2]) @ kernel
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"images": pixels}, {"default": vector})
        builder = v1.saved_model.Builder(path)
        builder.add_meta_graph_and_variables(session, ["train"], {"default": signature})
        builder.add_meta_graph([], {"default": signature})
        builder.save()
    _assert_same(_embed(path), _expected(SMALL))


def test_a_model_that_keras_exports(keras, tmp_path):
    _small_model(keras).export(str(tmp_path / "net"), verbose=False)
    _assert_same(_embed(str(tmp_path / "net")), _expected(SMALL))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((None, 8, 8, 3), "takes pictures of 8 x 8 pixels, 'inception-v3' has 299 x 299"),
        ((None, None, None, 3), "gives vectors of 6 numbers, 'inception-v3' has 2048"),
    ],
)
def test_another_network_under_a_known_name_is_refused(tf, tmp_path, shape, message):
    path = _save(tf, tmp_path, shape=shape)
    with pytest.raises(BackboneError, match=message):
        engine.load(resolve.resolve("inception-v3", path))


def test_a_damaged_saved_model_is_named(tf, tmp_path):
    path = _save(tf, tmp_path)
    (tmp_path / "net" / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(BackboneError, match="net' cannot be loaded as 'net'"):
        _embed(path)


def test_the_sha256_of_a_saved_model_is_that_of_all_its_files(tf, tmp_path):
    path = _save(tf, tmp_path)
    before = _sha256(path)
    (tmp_path / "net" / "notes.txt").write_text("not part of the model")
    assert _sha256(path) == before
    (tmp_path / "net" / "assets" / "words.txt").write_text("part of it")
    assert _sha256(path) != before


def test_a_saved_model_in_a_bucket_is_the_same_network(tf, tmp_path, monkeypatch):
    path = _save(tf, tmp_path)
    for name in weights.model_files(path):
        content = (tmp_path / "net" / name).read_bytes()
        monkeypatch.setitem(memory_files.OBJECTS, f"mem://bucket/net/{name}", content)
    there = resolve.resolve("mem://bucket/net")
    assert there.fingerprint == resolve.resolve(path).fingerprint
    _assert_same(engine.load(there).embed(SMALL), _expected(SMALL))


# --- .keras files ---


def _small_model(keras, extra=None):
    inputs = keras.Input((8, 8, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    dense = keras.layers.Dense(6, use_bias=False)
    model = keras.Model(inputs, extra(dense(pooled)) if extra else dense(pooled))
    dense.set_weights([_KERNEL])
    return model


def test_a_keras_file(keras, tmp_path):
    path = str(tmp_path / "net.keras")
    _small_model(keras).save(path)
    _assert_same(_embed(path), _expected(SMALL))


def test_a_keras_file_with_code_is_refused(keras, tmp_path):
    path = str(tmp_path / "net.keras")
    _small_model(keras, keras.layers.Lambda(lambda x: x + 1)).save(path)
    with pytest.raises(BackboneError, match="holds 'Lambda'.*can run any code"):
        resolve.resolve(path)


def test_a_keras_file_with_layers_from_elsewhere_is_refused(keras, tmp_path):
    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    path = str(tmp_path / "net.keras")
    _small_model(keras, Own()).save(path)
    with pytest.raises(BackboneError, match="holds 'Own' of"):
        resolve.resolve(path)


def test_a_damaged_keras_file_is_named(tmp_path):
    (tmp_path / "net.keras").write_bytes(b"damaged")
    with pytest.raises(BackboneError, match=r"not a \.keras file, or damaged"):
        resolve.resolve(str(tmp_path / "net.keras"))
