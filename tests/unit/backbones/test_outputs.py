"""A network that ends in classes or maps, and the output that is taken of it."""

import numpy as np
import pytest

from beam_flowers.backbones import engine
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import BackboneError

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)


def embed(path, **options):
    backbone = resolve(str(path), pixel_range=(0, 1), engine="tensorflow", **options)
    return engine.load(backbone).embed(PIXELS)


# --- .keras files ---


@pytest.fixture(scope="module")
def net(keras, tmp_path_factory):
    """Saves a small network with another end, and returns its path and what `pool` gives."""
    folder = tmp_path_factory.mktemp("nets")
    keras.utils.set_random_seed(0)
    convolution = keras.layers.Conv2D(5, 3, activation="relu", name="maps")
    pool = keras.layers.GlobalAveragePooling2D(name="pool")

    def save(end):
        pixels = keras.Input((8, 8, 3))
        vectors = pool(convolution(pixels))
        path = folder / f"{len(list(folder.iterdir()))}.keras"
        keras.Model(pixels, end(keras.layers, pixels, vectors)).save(path)
        return path, keras.Model(pixels, vectors)(PIXELS.astype(np.float32) / 255).numpy()

    return save


def by_convolution(layers, pixels, x):
    x = layers.Conv2D(7, 1, name="logits")(layers.Dropout(0.5)(layers.Reshape((1, 1, 5))(x)))
    return layers.Activation("softmax", name="scores")(layers.Flatten()(x))


ENDS = {
    "softmax": (lambda layers, _, x: layers.Dense(4, "softmax", name="last")(x), "last", "pool"),
    "sigmoid": (lambda layers, _, x: layers.Dense(4, "sigmoid", name="last")(x), "last", "pool"),
    "logits": (lambda layers, _, x: layers.Dense(4, name="predictions")(x), "predictions", "pool"),
    "ImageNet": (lambda layers, _, x: layers.Dense(1000, name="last")(x), "last", "pool"),
    "dropout": (
        lambda layers, _, x: layers.Dense(4, "softmax", name="last")(layers.Dropout(0.1)(x)),
        "last",
        "pool",
    ),
    "convolution": (by_convolution, "scores", "reshape"),
    "of its own": (
        lambda layers, _, x: layers.Softmax(name="end")(layers.Dense(4, name="d")(x)),
        "end",
        "pool",
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_file_that_ends_in_classes_is_refused_with_the_layer_before(net, name):
    end, last, before = ENDS[name]
    path, vectors = net(end)
    said = rf"scores of classes, its layer '{last}'.*--backbone-output {before}"
    with pytest.raises(BackboneError, match=said):
        embed(path)
    np.testing.assert_allclose(embed(path, output="pool"), vectors, atol=1e-5)
    assert embed(path, output=last).shape[1] != 5


def test_a_layer_that_projects_is_no_classifier(net):
    path, _ = net(lambda layers, _, x: layers.Dense(4, name="projection")(x))
    assert embed(path).shape == (2, 4)


def test_a_layer_that_is_not_there_is_named_with_the_last_ones(net):
    path, _ = net(ENDS["softmax"][0])
    with pytest.raises(BackboneError, match=r"no layer 'pol'.*maps, pool, last"):
        embed(path, output="pol")


def test_a_map_is_averaged(net):
    path, vectors = net(ENDS["softmax"][0])
    np.testing.assert_allclose(embed(path, output="maps"), vectors, atol=1e-5)


def test_what_a_model_knows_is_not_questioned_and_brings_its_output(net):
    path, _ = net(ENDS["softmax"][0])
    old = resolve(str(path), pixel_range=(0, 1))
    again = resolve(str(path), known=[(old.fingerprint, old.about()["pixels"])])
    assert engine.load(again).vector_length == 4
    cut = resolve(str(path), pixel_range=(0, 1), output="pool")
    assert cut.fingerprint != old.fingerprint
    known = [(one.fingerprint, one.about()["pixels"]) for one in (cut, old)]
    assert resolve(str(path), known=known).fingerprint == cut.fingerprint
    assert resolve(str(path), known=known[::-1], output="pool").fingerprint == cut.fingerprint


# --- SavedModels ---

KERNEL = np.random.default_rng(2).normal(size=(3, 6)).astype(np.float32)
MEANS = (PIXELS.astype(np.float32) / 255).mean((1, 2))


@pytest.fixture
def saved(tf, tmp_path):
    """Saves a SavedModel of what an end makes of the mean colour, [N, 1, 1, 3]."""

    def save(end, name=None, variable=True):
        module = tf.Module()
        module.kernel = tf.Variable(KERNEL) if variable else tf.constant(KERNEL)

        def call(pixels):
            pooled = tf.reduce_mean(pixels, [1, 2], keepdims=True, name="avg_pool")
            return end(tf, pixels, tf.squeeze(pooled, [1, 2]), module.kernel)

        spec = tf.TensorSpec((None, 8, 8, 3), tf.float32)
        function = tf.function(call, input_signature=[spec])
        if name is None:
            module.__call__ = function
        signatures = None if name is None else {name: function}
        tf.saved_model.save(module, str(tmp_path / "net"), signatures=signatures)
        return tmp_path / "net"

    return save


@pytest.mark.parametrize("variable", [True, False])
def test_a_saved_model_that_ends_in_a_softmax_is_refused_with_the_node_before(saved, variable):
    path = saved(lambda tf, _, x, kernel: tf.nn.softmax(x @ kernel), variable=variable)
    with pytest.raises(BackboneError, match=r"scores of classes.*--backbone-output \S*avg_pool "):
        embed(path)
    np.testing.assert_allclose(embed(path, output="avg_pool"), MEANS, atol=1e-6)


def test_a_saved_model_of_as_many_numbers_as_classes_is_refused(saved):
    wide = np.zeros((6, 1001), np.float32)
    path = saved(lambda tf, _, x, kernel: tf.nn.bias_add((x @ kernel) @ wide, wide[0]))
    with pytest.raises(BackboneError, match="scores of classes"):
        embed(path)
    with pytest.raises(BackboneError, match=r"0 outputs or nodes 'pool_3' .*none like it"):
        embed(path, output="pool_3")


def test_an_output_is_taken_by_its_name(saved):
    both = lambda tf, _, x, kernel: {"logits": x @ kernel, "pooled": x}  # noqa: E731
    path = saved(both)
    with pytest.raises(BackboneError, match="name one as --backbone-output"):
        embed(path)
    np.testing.assert_allclose(embed(path, output="pooled"), MEANS, atol=1e-6)
    assert embed(path, output="logits").shape == (2, 6)


def test_a_saved_model_of_maps_is_averaged(saved):
    path = saved(lambda tf, pixels, x, kernel: pixels[:, ::2, ::2] * tf.reduce_mean(kernel))
    expected = PIXELS[:, ::2, ::2].mean((1, 2)) / 255 * KERNEL.mean()
    np.testing.assert_allclose(embed(path), expected, atol=1e-5)


def test_a_module_that_classifies_gives_its_vector(tf, tmp_path):
    module = tf.Module()
    module.kernel = tf.Variable(np.zeros((3, 1001), np.float32))
    spec = tf.TensorSpec((None, 8, 8, 3), tf.float32)
    vector = lambda pixels: tf.reduce_mean(pixels, [1, 2])  # noqa: E731
    signatures = {
        "default": lambda pixels: {"default": vector(pixels) @ module.kernel},
        "image_feature_vector": lambda pixels: {"default": vector(pixels)},
    }
    functions = {name: tf.function(run, [spec]) for name, run in signatures.items()}
    tf.saved_model.save(module, str(tmp_path / "net"), signatures=functions)
    backbone = resolve(str(tmp_path / "net"))
    assert backbone.row.pixel_range == (0, 1)
    np.testing.assert_allclose(engine.load(backbone).embed(PIXELS), MEANS, atol=1e-6)
