"""Networks in ONNX's form with their preprocessor_config.json, as Hugging Face publishes them."""

import hashlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from stores import PHOTOS

onnx = pytest.importorskip("onnx", reason="pip install 'beam-flowers[test]'")
pytest.importorskip("onnxruntime", reason="pip install 'beam-flowers[test]'")

from onnx_networks import (  # noqa: E402
    CONVNEXT,
    IMAGENET,
    VIT,
    Maker,
    classifier,
    convnext,
    lite0,
    publish,
    two_inputs,
    vit,
)

from beam_flowers.backbones import engine, onnx_folder  # noqa: E402
from beam_flowers.backbones.network_input import network_input  # noqa: E402
from beam_flowers.backbones.resolve import resolve  # noqa: E402
from beam_flowers.errors import BackboneError  # noqa: E402
from beam_flowers.images.decode import decode  # noqa: E402

ENGINES = ("openvino", "onnxruntime")
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def embedded(folder, pixels=PIXELS, engines=ENGINES, **wanted):
    """The vectors that each engine gives."""
    found = [engine.load(resolve(folder, engine=name, **wanted)) for name in engines]
    return [one.embed(pixels) for one in found]


def require_close(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("data", [None, "weights.bin"])
@pytest.mark.parametrize(
    ("make", "config", "wanted"),
    [
        (vit, VIT, {}),
        (vit, VIT, {"output": "class"}),
        (vit, VIT, {"output": "mean"}),
        (vit, VIT, {"output": "mean:t9"}),
        (convnext, CONVNEXT, {}),
        (convnext, CONVNEXT, {"output": "mean"}),
        (classifier, VIT, {"output": "features"}),
        (vit, VIT | {"do_flip_channel_order": True}, {}),
    ],
)
def test_the_engines_agree(tmp_path, make, config, wanted, data):
    folder = publish(tmp_path / "net", make(), config, data=data)
    ours, theirs = embedded(folder, **wanted)
    require_close(ours, theirs)
    assert np.ptp(ours, axis=0).max() > 0.1 * np.abs(ours).max()


def test_class_and_mean_are_those_of_the_tokens(tmp_path):
    path = publish(tmp_path / "net", vit()) + "/onnx/model.onnx"
    import onnxruntime

    backbone = resolve(path)
    values = network_input(PIXELS.astype("f4"), backbone.row).transpose(0, 3, 1, 2)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (tokens,) = session.run(["last_hidden_state"], {"pixel_values": values})
    for output, expected in (("class", tokens[:, 0]), ("mean", tokens.mean(1))):
        require_close(embedded(path, output=output)[0], expected)


@pytest.mark.slow
def test_lite0_in_onnxs_form_gives_our_vectors(tmp_path):
    ours = resolve("efficientnet-lite0", engine="openvino")
    config = {
        "size": {"height": 224, "width": 224},
        "crop_fraction": 0.875,
        "pixel_range": list(ours.row.pixel_range),
        "resample": "bilinear",
    }
    folder = publish(tmp_path / "lite0", lite0(), config)
    expected = {**ours.row.about_pixels(), "output": "image_embeds"}
    assert resolve(folder).row.about_pixels() == expected
    photo = sorted(PHOTOS.rglob("*.jpg"))[0].read_bytes()
    pixels = decode(photo, ours.row.recipe(224, 224)).pixels[np.newaxis]
    for vectors in embedded(folder, pixels):
        require_close(vectors, engine.load(ours).embed(pixels))


def huggingface(image, config):
    """The published rules of the image processors ViT, Siglip, CLIP, Bit and ConvNext."""
    kind = config["image_processor_type"].removesuffix("ImageProcessor")
    sides, filter_ = config["size"], Image.Resampling(config["resample"])
    cut = None
    if kind in ("CLIP", "Bit"):
        short, cut = sides["shortest_edge"], config["crop_size"]["height"]
    elif kind == "ConvNext" and sides["shortest_edge"] < 384:
        cut = sides["shortest_edge"]
        short = int(cut / config["crop_pct"])
    if cut:
        width, height = image.size
        long = int(short * max(width, height) / min(width, height))
        size = (short, long) if width <= height else (long, short)
    else:
        size = (sides.get("width") or sides["shortest_edge"],) * 2
    image = image.convert("RGB").resize(size, filter_)
    if cut:
        left, top = (image.width - cut) // 2, (image.height - cut) // 2
        image = image.crop((left, top, left + cut, top + cut))
    values = np.asarray(image).astype(np.float32) * np.float32(
        config.get("rescale_factor", 1 / 255)
    )
    mean, std = np.array(config["image_mean"], "f4"), np.array(config["image_std"], "f4")
    return np.asarray(image), (values - mean) / std


CUT = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 3}
HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
PROCESSORS = {
    "ViT": VIT,
    "Siglip": VIT | HALF | {"image_processor_type": "SiglipImageProcessor", "resample": 3},
    "CLIP": CUT | IMAGENET | {"image_processor_type": "CLIPImageProcessor"},
    "Bit": CUT | IMAGENET | {"image_processor_type": "BitImageProcessor", "resample": 2},
    "ConvNext": CONVNEXT,
    "ConvNext of 384": CONVNEXT | {"size": {"shortest_edge": 384}},
}


@pytest.fixture(scope="module")
def any_size(tmp_path_factory):
    """A network that takes images of any size; it is never loaded."""
    return publish(tmp_path_factory.mktemp("any") / "net", convnext(), None)


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_the_published_rules(tmp_path, any_size, name):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(PROCESSORS[name]))
    row = resolve(any_size, config=str(config)).row
    recipe = row.recipe(row.input_size, row.input_size)
    photo = Image.open(sorted(PHOTOS.rglob("*.jpg"))[1])
    for size in (photo.size, (photo.height // 2, photo.width), (97, 61)):
        image = photo.resize(size)
        expected, values = huggingface(image, PROCESSORS[name])
        for format_, most in (("PNG", 0), ("JPEG", 16)):
            file = io.BytesIO()
            image.save(file, format_, quality=95)
            if format_ == "JPEG":
                expected, values = huggingface(Image.open(file), PROCESSORS[name])
            found = decode(file.getvalue(), recipe).pixels
            differs = np.abs(found.astype(int) - expected)
            # Pixels of a JPEG that is decoded at a fraction of its size are near, not the same.
            assert differs.max() <= most
            assert differs.mean() <= most / 16
            if not most:
                ours = network_input(found.astype(np.float32), row)
                np.testing.assert_allclose(ours, values, rtol=0, atol=2e-6)


def test_the_fingerprint_is_of_graph_data_output_and_pixels(tmp_path):
    folder = publish(tmp_path / "net", vit(), data="model.onnx_data")
    prints = [resolve(folder).fingerprint, resolve(folder, output="mean").fingerprint]
    prints.append(resolve(folder, output="class").fingerprint)
    prints.append(resolve(folder, pixel_range=(0, 1)).fingerprint)
    assert {resolve(folder, engine=name).fingerprint for name in ENGINES} == {prints[0]}
    data = tmp_path / "net" / "onnx" / "model.onnx_data"
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    prints.append(resolve(folder).fingerprint)
    assert len(set(prints)) == len(prints)


def test_the_digest_is_what_sha256sum_prints(tmp_path):
    one = tmp_path / "one" / "onnx" / "model.onnx"
    publish(tmp_path / "one", vit())
    assert resolve(str(one)).weights_sha256 == hashlib.sha256(one.read_bytes()).hexdigest()
    publish(tmp_path / "two", vit(), data="b.data")
    folder, lines = tmp_path / "two" / "onnx", ""
    for name in ("model.onnx", "b.data"):
        lines += f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert resolve(str(folder.parent), sha256=expected).weights_sha256 == expected
    with pytest.raises(BackboneError, match="damaged or others"):
        resolve(str(folder.parent), sha256="0" * 64)


def test_weights_that_change_after_they_were_resolved_are_refused(tmp_path):
    backbone = resolve(publish(tmp_path / "net", vit(), data="d"))
    (tmp_path / "net" / "onnx" / "d").write_bytes(
        bytes((tmp_path / "net" / "onnx" / "d").stat().st_size)
    )
    with pytest.raises(BackboneError, match="are not those that the run began with"):
        engine.load(backbone)


def last_channels(count=1):
    """The mean of each channel, of images with the channels last, in a fixed number."""
    m = Maker(0)
    m.node("ReduceMean", "pixel_values", axes=[1, 2], keepdims=0, name="embeddings")
    return m.model({"embeddings": (count, 3)}, shape=(count, 32, 32, 3))


def half(model):
    """The same network with weights and input of float16."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor).astype("f2")
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


def softmax():
    """Scores of seven classes, under a name that does not tell."""
    m = Maker(0)
    m.node("Flatten", m.node("GlobalAveragePool", "pixel_values"), name="features")
    x = m.node("Add", m.node("MatMul", "features", m.normal(3, 7)), m.normal(7))
    m.node("Identity", m.node("Softmax", x, axis=1), name="output")
    return m.model({"output": ("batch", 7)})


def quantised(seed=0):
    """A network whose last product is of 8-bit integers, as quantised files of Transformers.js."""
    m = Maker(seed)
    x = m.node("Conv", "pixel_values", m.normal(16, 3, 8, 8), strides=[8, 8])
    x = m.node("Flatten", m.node("GlobalAveragePool", x))
    m.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", [x], ["q", "scale", "zero"]))
    whole = m.node("MatMulInteger", "q", m.random.integers(-127, 128, (16, 8), "i1"), "zero")
    scaled = m.node("Mul", m.node("Cast", whole, to=1), "scale")
    m.node("Mul", scaled, np.float32(0.01), name="pooler_output")
    return m.model({"pooler_output": ("batch", 8)})


@pytest.mark.parametrize(
    ("file", "model", "name"),
    [("fp16", half(vit()), "net-fp16"), ("int8", quantised(), "net-int8")],
)
def test_a_variant_has_a_name_and_a_fingerprint_with_its_engine(tmp_path, file, model, name):
    publish(tmp_path / "net", vit())
    variant = publish(tmp_path / "net", model, file=f"onnx/model_{file}.onnx")
    path = f"{variant}/onnx/model_{file}.onnx"
    both = [resolve(path, engine=engine) for engine in ENGINES]
    assert {one.row.name for one in both} == {name}
    assert both[0].fingerprint != both[1].fingerprint
    ours, theirs = embedded(path)
    assert np.abs(ours - theirs).max() < 0.02 * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/dinov2-small/onnx/model.onnx", "dinov2-small"),
        ("/a/dinov2-small/onnx/model_fp16.onnx", "dinov2-small-fp16"),
        ("s3://b/siglip/vision_model_quantized.onnx", "siglip-quantized"),
        ("/a/nets/mine.onnx", "nets-mine"),
    ],
)
def test_names_are_made_of_folder_and_variant(path, name):
    assert onnx_folder.name_of(path) == name


@pytest.mark.parametrize("file", ["onnx/model.onnx", "model.onnx", "vision_model.onnx"])
def test_the_graph_is_found_in_its_folder(tmp_path, file):
    folder = publish(tmp_path / "net", vit(), file=file)
    assert resolve(folder).path == f"{folder}/{file}"


def test_the_image_tower_goes_before_both(tmp_path):
    folder = publish(tmp_path / "clip", two_inputs())
    publish(tmp_path / "clip", vit(outputs=["pooler_output"]), file="onnx/vision_model.onnx")
    assert resolve(folder).path.endswith("onnx/vision_model.onnx")


def test_variants_alone_are_named(tmp_path):
    folder = publish(tmp_path / "net", vit(), file="onnx/model_q4.onnx")
    with pytest.raises(BackboneError, match=r"give one of its files.*model_q4\.onnx"):
        resolve(folder)


@pytest.mark.parametrize(
    ("model", "wanted", "message"),
    [
        (vit(outputs=["last_hidden_state"]), "", "choose --backbone-output class.*or mean"),
        (last_channels(), "mean", r"no tensor 'last_hidden_state'.*class:NAME or mean:NAME"),
        (vit(), "logits", "no tensor 'logits'; its outputs are last_hidden_state, pooler_output"),
        (classifier(), "", r"scores of classes \(logits\).*--backbone-output features"),
        (softmax(), "", r"scores of classes \(output\).*--backbone-output features"),
        (two_inputs(), "", "a tower for texts beside that for images.*vision_model.onnx"),
    ],
)
def test_outputs_that_are_no_vectors_are_refused(tmp_path, model, wanted, message):
    folder = publish(tmp_path / "net", model)
    with pytest.raises(BackboneError, match=message):
        resolve(folder, output=wanted)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"output": "last_hidden_state"}, "vectors of tokens, which makes no vector by itself"),
        ({"precision": "bf16", "engine": "onnxruntime"}, "as it is, not in bfloat16"),
    ],
)
@pytest.mark.parametrize("name", ENGINES)
def test_what_an_engine_cannot_give_is_refused(tmp_path, wanted, message, name):
    folder = publish(tmp_path / "net", vit())
    with pytest.raises(BackboneError, match=message):
        engine.load(resolve(folder, **{"engine": name} | wanted))


@pytest.mark.parametrize(
    ("name", "wanted", "message"),
    [
        ("efficientnet-lite0", {"engine": "onnxruntime"}, "does not run no ONNX file"),
        ("net", {"engine": "tensorflow"}, "tensorflow does not run an ONNX file"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, monkeypatch, name, wanted, message):
    monkeypatch.chdir(tmp_path)
    publish(tmp_path / "net", vit())
    with pytest.raises(BackboneError, match=message):
        resolve(name, **wanted)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "nothing says which pixels"),
        (VIT | {"image_processor_type": "DonutImageProcessor"}, "'DonutImageProcessor'"),
        (IMAGENET, "leaves the size of its images open"),
    ],
)
def test_pixels_that_nothing_tells_are_refused(tmp_path, config, message):
    folder = publish(tmp_path / "net", vit(), config)
    with pytest.raises(BackboneError, match=message):
        resolve(folder)


def test_a_recipe_of_another_size_is_refused(tmp_path):
    m = Maker(0)
    m.node("Flatten", m.node("GlobalAveragePool", "pixel_values"), name="pooler_output")
    fixed = m.model({"pooler_output": ("batch", 3)}, shape=(1, 3, 64, 64))
    folder = publish(tmp_path / "net", fixed)
    with pytest.raises(BackboneError, match=r"takes images of 64 x 64.*makes 32 x 32"):
        resolve(folder)


@pytest.mark.parametrize("name", ENGINES)
def test_channels_may_be_last_and_the_number_of_images_fixed(tmp_path, name):
    folder = publish(tmp_path / "net", last_channels(), None)
    (vectors,) = embedded(folder, engines=[name], pixel_range=(0, 255))
    np.testing.assert_allclose(vectors, PIXELS.mean((1, 2)), rtol=1e-6)


def test_missing_onnx_runtime_says_what_to_install(tmp_path, monkeypatch):
    backbone = resolve(publish(tmp_path / "net", vit()), engine="onnxruntime")
    monkeypatch.setattr(engine.onnxruntime_engine, "is_installed", lambda: False)
    with pytest.raises(BackboneError, match=r"pip install 'beam-flowers\[onnx\]'"):
        engine.load(replace(backbone, trusted=True))
