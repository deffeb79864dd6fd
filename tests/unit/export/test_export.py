"""Exports: what they decode, what they answer in a process of their own, and what is refused."""

import argparse
import importlib.util
import os
from dataclasses import replace

import make_images
import numpy as np
import pytest
from PIL import Image

from beam_flowers.backbones import engine
from beam_flowers.backbones.resolve import resolve
from beam_flowers.backbones.tf_runtime import tensorflow
from beam_flowers.cli.export import fill as fill_export
from beam_flowers.cli.export import run as export
from beam_flowers.errors import InputError, ModelError
from beam_flowers.export import agreement
from beam_flowers.export.agreement import Agreement, Example, Tolerance
from beam_flowers.export.graph import pixels_of
from beam_flowers.head.bundle import Bundle, write_bundle
from beam_flowers.head.softmax import Head
from beam_flowers.images.decode import decode
from beam_flowers.images.recipe import PixelRecipe
from beam_flowers.workflows import export as runs
from beam_flowers.workflows.export import export_model

pytestmark = pytest.mark.slow

LABELS = ("daisy", "玫瑰", "tulip <3>", "other", "more", "most")
HAS_ONNX = importlib.util.find_spec("tf2onnx") and importlib.util.find_spec("onnxruntime")


def make_head(hidden=None, **options):
    """Of 1280 numbers, with scores that are neither all alike nor all 0 or 1."""
    random = np.random.default_rng(3)
    weights = random.normal(0, 0.4, (hidden or 1280, len(LABELS))).astype(np.float32)
    if hidden:
        layer = random.normal(0, 0.05, (1280, hidden)).astype(np.float32)
        options |= {"hidden_weights": layer, "hidden_bias": np.full(hidden, 0.1, np.float32)}
    return Head(weights, np.zeros(len(LABELS), np.float32), **options)


def make_bundle(backbone, head):
    nothing = {"recipe": {}, "split": {}, "metrics": {}, "versions": {}}
    pixels = backbone.about()["pixels"]
    return Bundle(
        head=head,
        labels=LABELS,
        backbone=backbone.row.name,
        fingerprint=backbone.fingerprint,
        pixels=pixels,
        seed=0,
        dataset_hash="",
        **nothing,
    )


@pytest.fixture(scope="module")
def backbone():
    return resolve("efficientnet-lite0")


@pytest.fixture(scope="module")
def bundle(backbone):
    return make_bundle(backbone, make_head())


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    monkeypatch.setattr(runs, "IMAGES", 8)


# --- decoding ---


@pytest.fixture(scope="module")
def decoder():
    """Files → pixels, both ways: [ours, the graph's]."""
    tf = tensorflow()
    graphs = {}

    def both(content, recipe):
        if recipe not in graphs:
            spec = tf.TensorSpec([], tf.string)
            function = tf.function(lambda c: pixels_of(c, recipe), autograph=False)
            graphs[recipe] = function.get_concrete_function(spec)
        graph = graphs[recipe](tf.constant(content)).numpy()
        return decode(content, recipe).pixels.astype(int), graph.astype(int)

    return both


SQUARE, WIDE = PixelRecipe(64, 64, 0.875, "bilinear"), PixelRecipe(40, 72, None, "bicubic")
LATER = PixelRecipe(64, 64, None, "bilinear", resize=71)


@pytest.mark.parametrize("recipe", [SQUARE, WIDE, LATER], ids=["crop", "squash", "later"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_turned_upright(decoder, orientation, recipe):
    ours, graph = decoder(
        make_images.oriented(make_images.quadrants(201, 120), orientation), recipe
    )
    assert np.abs(ours - graph).max() <= (6 if recipe is WIDE else 1)


@pytest.mark.parametrize("order", [b"MM", b"II"])
def test_the_orientation_is_read_in_either_byte_order(decoder, order):
    exif = Image.Exif()
    exif.endian = ">" if order == b"MM" else "<"
    exif[0x0112] = 6
    ours, graph = decoder(make_images.saved(make_images.quadrants(), "JPEG", exif=exif), SQUARE)
    assert np.abs(ours - graph).max() <= 1


def _faded(mode):
    image = make_images.scene(150, 100).convert("RGBA")
    image.putalpha(make_images.scene(150, 100, seed=2).convert("L"))
    return make_images.saved(image.convert(mode), "PNG")


KINDS = {
    "alpha": lambda: _faded("RGBA"),
    "grey-alpha": lambda: _faded("LA"),
    "grey": lambda: make_images.saved(make_images.scene(150, 100).convert("L"), "PNG"),
    "one-bit": lambda: make_images.saved(make_images.scene(150, 100).convert("1"), "PNG"),
    "16-colours": lambda: make_images.palette_png(make_images.scene(150, 100)),
    "transparent-colour": lambda: make_images.palette_png(make_images.scene(150, 100), 3),
    "16-bits": lambda: make_images.each_format(150, 100)["PNG-16"],
    "cmyk": lambda: make_images.each_format(150, 100)["JPEG-cmyk"],
    "progressive": lambda: make_images.each_format(150, 100)["JPEG-progressive"],
    "big": lambda: make_images.jpeg(1500, 1000),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_images_decode_alike(decoder, kind):
    ours, graph = decoder(KINDS[kind](), SQUARE)
    assert np.abs(ours - graph).max() <= 3


# --- the exports, each run in a process of its own ---

HEADS = {
    "savedmodel": make_head(),
    "tflite": make_head(hidden=16, temperature=2.5),
    "tflite-int8": make_head(temperature=4.0),
    "keras": make_head(hidden=16, multi_label=True),
    "onnx": make_head(temperature=0.5, multi_label=True),
}


@pytest.fixture(scope="module")
def exports(backbone, tmp_path_factory):
    """Makes an export once and gives (its path, its agreement)."""
    folder, made = tmp_path_factory.mktemp("exports"), {}

    def make(kind):
        if kind not in made:
            path = str(folder / kind) + runs.SUFFIXES[kind]
            made[kind] = (
                path,
                export_model(
                    make_bundle(backbone, HEADS[kind]), backbone, kind, path, warn=lambda line: None
                ),
            )
        return made[kind]

    return make


@pytest.mark.parametrize("kind", ["tflite", "keras"])
def test_the_same_pixels_give_the_same_scores(exports, kind):
    path, found = exports(kind)
    assert found.labels == 1
    assert found.largest < 1e-4
    with open(f"{path}.labels.txt", encoding="utf-8") as file:
        assert file.read().splitlines() == list(LABELS)


@pytest.mark.skipif(not HAS_ONNX, reason="needs tf2onnx and onnxruntime")
def test_onnx_gives_the_same_scores(exports):
    assert exports("onnx")[1].largest < 1e-4


@pytest.mark.skipif(bool(HAS_ONNX), reason="tf2onnx and onnxruntime are here")
def test_without_its_converter_onnx_says_what_to_install(bundle, backbone, tmp_path):
    with pytest.raises(ModelError, match=r"pip install 'beam-flowers\[onnx\]'"):
        export_model(bundle, backbone, "onnx", str(tmp_path / "x.onnx"))
    assert not list(tmp_path.iterdir())


def test_int8_gives_nearly_the_same_scores(exports):
    _, found = exports("tflite-int8")
    assert 0 < found.mean < 0.05


def test_a_saved_model_takes_files_and_gives_names(exports):
    path, found = exports("savedmodel")
    assert found.mean < 0.02
    tf = tensorflow()
    serve = tf.saved_model.load(path).signatures["serving_default"]
    answer = serve(image_bytes=tf.constant([make_images.jpeg(), make_images.png(seed=1)]))
    assert {name: tuple(value.shape) for name, value in answer.items()} == {
        "label": (2,),
        "score": (2,),
        "labels": (2, 5),
        "scores": (2, 5),
    }
    assert {label.decode() for label in answer["labels"].numpy().ravel()} <= set(LABELS)
    assert (np.diff(answer["scores"].numpy()) <= 0).all()
    assert serve(image_bytes=tf.constant([], tf.string))["label"].shape == (0,)


def test_a_saved_model_gives_the_vectors_bit_for_bit(exports, backbone):
    path, _ = exports("savedmodel")
    tf = tensorflow()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    vectors = tf.saved_model.load(path).signatures["vectors"](pixels=tf.constant(pixels))
    own = engine.load(replace(backbone, engine="tensorflow")).embed(pixels)
    np.testing.assert_array_equal(vectors["vectors"], own)


def test_nothing_else_is_left_beside_an_export(exports):
    path, _ = exports("tflite")
    folder = path.rpartition("/")[0]
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


# --- networks of one's own ---


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A network of one layer as a `.keras` file and as a SavedModel, D = 1280."""
    tensorflow()
    import keras

    folder = tmp_path_factory.mktemp("tiny")
    keras.utils.set_random_seed(0)
    pooling = [keras.layers.Conv2D(1280, 8, 8), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((24, 32, 3)), *pooling])
    model.save(folder / "net.keras")
    model.export(folder / "net", verbose=False)
    return folder


def test_a_keras_file_becomes_part_of_the_keras_model(tiny, tmp_path):
    own = resolve(str(tiny / "net.keras"), pixel_range=(0, 1))
    found = export_model(make_bundle(own, make_head()), own, "keras", str(tmp_path / "out.keras"))
    assert (found.labels, found.largest < 1e-4) == (1, True)


def test_a_keras_file_of_another_recipe_becomes_part_of_the_keras_model(tiny, tmp_path):
    own = resolve(str(tiny / "net.keras"), pixel_range=(0, 255))
    caffe = {"mean": (103.939, 116.779, 123.68), "std": (57.0, 58.0, 59.0), "channels": "bgr"}
    own = replace(own, row=replace(own.row, **caffe))
    found = export_model(make_bundle(own, make_head()), own, "keras", str(tmp_path / "out.keras"))
    assert (found.labels, found.largest < 1e-4) == (1, True)


def test_a_saved_model_has_no_keras_layers(tiny, tmp_path):
    own = resolve(str(tiny / "net"), pixel_range=(0, 1))
    with pytest.raises(ModelError, match="use --to savedmodel, tflite or onnx"):
        export_model(make_bundle(own, make_head()), own, "keras", str(tmp_path / "out.keras"))
    assert not list(tmp_path.iterdir())


# --- what is compared ---


def _example(*scores):
    return Example(b"", np.zeros((1, 1, 3), np.uint8), np.array(scores, np.float32))


def test_agreement_counts_labels_and_scores():
    names = np.array([["a", "b"], ["b", "a"], ["", ""]])
    scores = np.array([[0.7, 0.3], [0.6, 0.4], [0, 0]], np.float32)
    examples = [_example(0.75, 0.25), _example(0.5, 0.5), _example(1, 0)]
    found = agreement.compare(names, scores, examples, ["a", "b"])
    assert (found.images, found.labels, found.largest) == (3, pytest.approx(2 / 3), 1)
    assert found.mean == pytest.approx((0.05 + 0.1 + 1) / 3)


@pytest.mark.parametrize(
    "found",
    [
        Agreement(100, 1.0, 0.01, 0.00001),
        Agreement(100, 1.0, 0.0005, 0.0002),
    ],
)
def test_too_little_agreement_is_an_error(found):
    with pytest.raises(ModelError, match=r"same label on .* allowed are 0.0001 and 0.001"):
        agreement.require_agreement("keras", found)


def test_labels_that_are_equally_likely_may_change():
    agreement.require_agreement("keras", Agreement(100, 0.9, 0.00001, 0.00001))


def test_an_export_that_does_not_agree_is_not_kept(bundle, backbone, tmp_path, monkeypatch):
    monkeypatch.setitem(agreement.TOLERANCES, "tflite", Tolerance(largest=-1, mean=-1))
    with pytest.raises(ModelError, match="does not give what the model gives"):
        export_model(bundle, backbone, "tflite", str(tmp_path / "x.tflite"))
    assert not list(tmp_path.iterdir())


def test_an_export_that_cannot_be_run_is_an_error(tmp_path):
    with pytest.raises(ModelError, match=r"x\.onnx' cannot be loaded and run: .*(Error|File)"):
        agreement.measure("onnx", str(tmp_path / "x.onnx"), [_example(1, 0)], ["a", "b"])


def test_the_images_of_a_store_are_opened_once_a_content(original, bundle, backbone):
    recipe = engine.load(backbone).recipe
    assert len(runs._images(bundle, str(original / "store"), recipe, 20)) == 10
    assert len(runs._images(bundle, str(original / "store"), recipe, 4)) == 4


def test_a_store_whose_images_are_gone_is_refused(work, bundle, backbone):
    (work / "images").rename(work / "elsewhere")
    with pytest.raises(InputError, match="leave --store out"):
        runs._images(bundle, str(work / "store"), engine.load(backbone).recipe, 20)


# --- outputs and the command ---


@pytest.mark.parametrize(
    ("kind", "output", "message"),
    [
        ("tflite", "x.lite", r"ends in \.tflite"),
        ("keras", "taken.keras", "is there already"),
        ("onnx", "labelled.onnx", r"labelled\.onnx\.labels\.txt' is there already"),
        ("savedmodel", "taken.keras", "is a file, which --overwrite does not replace"),
    ],
)
def test_outputs_that_cannot_be_are_refused(bundle, backbone, tmp_path, kind, output, message):
    for name in ("taken.keras", "labelled.onnx.labels.txt"):
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=message):
        export_model(bundle, backbone, kind, str(tmp_path / output))
    assert (tmp_path / "taken.keras").read_text() == "mine"


def test_an_output_in_a_bucket_is_refused(bundle, backbone):
    with pytest.raises(InputError, match="export to a local path"):
        export_model(bundle, backbone, "labels", "gs://bucket/labels.txt")


def test_a_label_with_a_line_break_fits_no_labels_file(bundle, tmp_path):
    broken = replace(bundle, labels=("two\nlines", *LABELS[1:]))
    with pytest.raises(ModelError, match="line break"):
        export_model(broken, None, "labels", str(tmp_path / "labels.txt"))


def _parsed(*arguments):
    parser = argparse.ArgumentParser()
    fill_export(parser)
    return parser.parse_args(arguments)


def test_the_command_writes_labels(bundle, tmp_path, capsys):
    model, output = str(tmp_path / "model"), tmp_path / "labels.txt"
    write_bundle(model, bundle)
    assert export(_parsed(model, "--to", "labels", "--output", str(output)), []) == 0
    assert output.read_text("utf-8").splitlines() == list(LABELS)
    assert capsys.readouterr().out == f"labels: {output}\n"


def test_the_command_prints_the_agreement(bundle, tmp_path, capsys):
    model, output = str(tmp_path / "model"), str(tmp_path / "x.tflite")
    write_bundle(model, bundle)
    assert export(_parsed(model, "--to", "tflite", "--output", output), []) == 0
    assert "on the package's photographs: same label on 100.0% of 8" in capsys.readouterr().out


def test_the_command_takes_no_flags_for_beam(tmp_path):
    with pytest.raises(InputError, match="leave out --streaming"):
        export(_parsed("m", "--to", "labels", "--output", "x"), ["--streaming"])
