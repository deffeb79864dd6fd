"""ONNX networks with a head, joined in one ONNX model."""

import numpy as np
import pytest

pytest.importorskip("onnx", reason="pip install 'beam-flowers[test]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'beam-flowers[test]'")

from onnx_networks import CONVNEXT, VIT, Maker, classifier, convnext, publish, vit  # noqa: E402

from beam_flowers.backbones import engine  # noqa: E402
from beam_flowers.backbones.resolve import resolve  # noqa: E402
from beam_flowers.errors import BackboneError, ModelError  # noqa: E402
from beam_flowers.export.onnx_join import write_joined  # noqa: E402
from beam_flowers.head.bundle import Bundle  # noqa: E402
from beam_flowers.head.softmax import Head  # noqa: E402
from beam_flowers.workflows.export import SUFFIXES, export_model  # noqa: E402
from beam_flowers.workflows.fine_tune import fine_tune  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)


def bundle_of(backbone, hidden=0, multi_label=False):
    random, length = np.random.default_rng(1), engine.load(backbone).vector_length
    more = {"multi_label": multi_label, "temperature": 0.7}
    if hidden:
        layer = random.normal(0, 0.3, (length, hidden)).astype("f4")
        more |= {"hidden_weights": layer, "hidden_bias": np.full(hidden, 0.1, "f4")}
    weights = random.normal(0, 0.5, (hidden or length, 3)).astype("f4")
    about = {"fingerprint": backbone.fingerprint, "pixels": backbone.about()["pixels"]}
    nothing = {"recipe": {}, "split": {}, "metrics": {}, "versions": {}}
    head = Head(weights, np.array([0.1, 0, 0], "f4"), **more)
    labels = ("a", "b", "c")
    return Bundle(head, labels, backbone.row.name, seed=0, dataset_hash="", **about, **nothing)


def old(model):
    """The same network in the operator set of 2020, with tensors of the names that we give."""
    model.opset_import[0].version = 12
    for node in model.graph.node:
        for names in (node.input, node.output):
            for number, name in enumerate(names):
                names[number] = {"t0": "pixels", "t1": "scores", "w0": "constant0"}.get(name, name)
    for tensor in model.graph.initializer:
        tensor.name = {"w0": "constant0"}.get(tensor.name, tensor.name)
    return model


def last_channels():
    m = Maker(0)
    m.node("ReduceMean", "pixel_values", axes=[1, 2], keepdims=0, name="embeddings")
    return m.model({"embeddings": ("batch", 3)}, shape=("batch", 32, 32, 3))


@pytest.mark.parametrize(
    ("model", "config", "wanted", "kind"),
    [
        (vit(), VIT, {}, {}),
        (vit(), VIT | {"do_flip_channel_order": True}, {"output": "class"}, {"hidden": 5}),
        (vit(), VIT, {"output": "mean"}, {"multi_label": True}),
        (convnext(), CONVNEXT, {"output": "mean"}, {}),
        (old(classifier()), VIT, {"output": "features"}, {}),
        (last_channels(), None, {"pixel_range": (0, 1), "input_size": 32}, {}),
    ],
)
def test_the_joined_model_gives_the_scores(tmp_path, model, config, wanted, kind):
    backbone = resolve(publish(tmp_path / "net", model, config), **wanted)
    bundle, path = bundle_of(backbone, **kind), str(tmp_path / "joined.onnx")
    loaded = engine.load(backbone)
    write_joined(path, bundle, backbone, loaded.recipe)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = [session.run(["scores"], {"pixels": one[np.newaxis]})[0][0] for one in PIXELS]
    expected = bundle.head.scores(loaded.embed(PIXELS))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    return resolve(publish(folder / "net", vit(blocks=1), data="weights.bin"))


@pytest.mark.parametrize("kind", sorted(set(SUFFIXES) - {"onnx", "labels", "card"}))
def test_other_exports_are_refused_by_name(tmp_path, net, kind):
    output = str(tmp_path / f"out{SUFFIXES[kind]}")
    with pytest.raises(ModelError, match=f"'net' is an ONNX network, which becomes no {kind}"):
        export_model(bundle_of(net), net, kind, output)
    assert not list(tmp_path.iterdir())


def test_an_export_is_compared_in_a_fresh_process(tmp_path, net):
    agreement = export_model(bundle_of(net), net, "onnx", str(tmp_path / "out.onnx"))
    assert (agreement.labels, agreement.largest < 1e-4) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "out.onnx.labels.txt"]


def test_fine_tuning_is_refused_by_name(tmp_path, net):
    with pytest.raises(BackboneError, match=r"'net' is an ONNX network.*not fine-tuned here"):
        fine_tune(str(tmp_path / "store"), net, [str(tmp_path)], str(tmp_path / "tuned"))
