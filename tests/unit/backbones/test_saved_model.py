"""Networks of one's own: SavedModels of all kinds and `.keras` files, as small as can be."""

import memory_files
import numpy as np
import pytest

from beam_flowers.backbones import engine, resolve, weights
from beam_flowers.errors import BackboneError

SMALL = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)


def _assert_same(vectors, expected):
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


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


def _embed(path, pixel_range=(-1, 1), **options):
    return engine.load(resolve.resolve(path, pixel_range=pixel_range, **options)).embed(SMALL)


def test_a_saved_model_tells_its_sizes_and_is_read_in_its_range(tf, tmp_path):
    path = _save(tf, tmp_path)
    network = engine.load(resolve.resolve(path, pixel_range=(-1, 1)))
    assert (network.input_size, network.vector_length) == ((8, 8), 6)
    _assert_same(network.embed(SMALL), _expected(SMALL))
    _assert_same(_embed(path, pixel_range=(0, 1)), _expected(SMALL, 0, 1))


@pytest.mark.parametrize("name", [None, "serving_default"])
def test_a_network_of_bytes_gets_them_as_they_are(tf, tmp_path, name):
    path = _save(tf, tmp_path, dtype="uint8", name=name)
    told = {"pixel_range": None} if name else {"pixel_range": (0, 255)}
    _assert_same(_embed(path, **told), _expected(SMALL, 0, 255))


def test_a_network_with_a_table_is_refused(tf, tmp_path):
    class Looked(tf.Module):
        def __init__(self):
            values = tf.lookup.KeyValueTensorInitializer([0, 1, 2], [1.0, 2.0, 3.0], tf.int64)
            self.table = tf.lookup.StaticHashTable(values, 0.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3])])
        def __call__(self, pixels):
            factors = self.table.lookup(tf.constant([0, 1, 2], tf.int64))
            return tf.reduce_mean(pixels, [1, 2]) * factors

    module = Looked()
    tf.saved_model.save(module, str(tmp_path / "net"), signatures=module.__call__)
    for name in ("tensorflow", "auto"):
        with pytest.raises(BackboneError, match=r"net' holds more than weights.*export the"):
            engine.load(resolve.resolve(str(tmp_path / "net"), pixel_range=(0, 1), engine=name))


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
        ({"shape": (None, 8, 8, 2, 3)}, r"takes an input of shape \(None, 8, 8, 2, 3\)"),
        ({"dtype": "uint8"}, "takes uint8, 0..255, and scales by itself"),
        ({"dtype": "int32"}, "takes int32, not images as float32 or uint8"),
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
        ((None, 8, 8, 3), "takes images of 8 x 8 pixels, 'inception-v3' has 299 x 299"),
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
    with pytest.raises(BackboneError, match=r"saved_model\.pb' is damaged, or no SavedModel"):
        _embed(path)


def test_the_sha256_of_a_saved_model_is_that_of_all_its_files(tf, tmp_path):
    path = _save(tf, tmp_path)
    before = weights.sha256(path, "saved-model")
    (tmp_path / "net" / "notes.txt").write_text("not part of the model")
    assert weights.sha256(path, "saved-model") == before
    (tmp_path / "net" / "assets" / "words.txt").write_text("part of it")
    assert weights.sha256(path, "saved-model") != before


def test_a_saved_model_in_a_bucket_is_the_same_network(tf, tmp_path, monkeypatch):
    path = _save(tf, tmp_path)
    for name in weights.model_files(path):
        content = (tmp_path / "net" / name).read_bytes()
        monkeypatch.setitem(memory_files.OBJECTS, f"mem://bucket/net/{name}", content)
    there = resolve.resolve("mem://bucket/net", pixel_range=(-1, 1))
    assert there.fingerprint == resolve.resolve(path, pixel_range=(-1, 1)).fingerprint
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
    with pytest.raises(BackboneError, match=r"holds 'Lambda'.*could run any code"):
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
