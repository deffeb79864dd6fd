"""The model bundle on disk."""

import contextlib
import hashlib
import json
from dataclasses import fields, replace

import numpy as np
import pytest

from beam_flowers import files
from beam_flowers.errors import ModelError, OutputError
from beam_flowers.head.bundle import (
    Bundle,
    model_id,
    read_bundle,
    require_backbone,
    write_bundle,
)
from beam_flowers.head.softmax import Head

NAMES = ["bias.npy", "labels.txt", "model.json", "weights.npy"]


def make_bundle(**changes):
    random = np.random.default_rng(0)
    bundle = Bundle(
        head=Head(random.random((4, 3), dtype=np.float32), np.zeros(3, np.float32)),
        labels=("Rose", "two\nlines", "玫瑰"),
        backbone="efficientnet-lite0",
        fingerprint="f" * 64,
        pixels={"resize": "bicubic", "size": 224, "crop": 0.875},
        recipe={"name": "lbfgs", "l2": 0.05},
        split={"rule": "hash", "validation_percentage": 10},
        seed=1,
        dataset_hash="d" * 64,
        metrics={"testing": {"accuracy": 0.9, "count": 30}},
        versions={"numpy": "2.0"},
    )
    return replace(bundle, **changes)


def hidden_head(width=4):
    random = np.random.default_rng(1)
    shapes = {
        "weights": (4, 3),
        "bias": (3,),
        "hidden_weights": (6, width),
        "hidden_bias": (width,),
    }
    arrays = {name: random.random(shape, dtype=np.float32) for name, shape in shapes.items()}
    return Head(**arrays, temperature=1.5)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_round_trip(tmp_path):
    identity = write_bundle(str(tmp_path / "model"), make_bundle())
    found = read_bundle(str(tmp_path / "model"))
    np.testing.assert_array_equal(found.head.weights, make_bundle().head.weights)
    for field in fields(Bundle):
        if field.name != "head":
            expected = getattr(make_bundle(), field.name)
            assert getattr(found, field.name) == (list(expected) if expected == () else expected)
    assert model_id(found) == identity == model_id(make_bundle())
    assert sorted(contents(tmp_path / "model")) == NAMES


def test_models_of_the_first_format_load_and_keep_their_ids(tmp_path):
    """What 0.1.0 wrote: these keys, and no file but these."""
    write_bundle(str(tmp_path), make_bundle(thresholds=(0.1, 0.2, 0.3), sweep=[{"l2": 0.1}]))
    described = json.loads((tmp_path / "model.json").read_text("utf-8"))
    keys = [
        "backbone",
        "calibration",
        "dataset_hash",
        "files",
        "fingerprint",
        "format",
        "label_separator",
        "labels",
        "metrics",
        "multi_label",
        "pixels",
        "recipe",
        "seed",
        "split",
        "sweep",
        "temperature",
        "thresholds",
        "versions",
    ]
    first = {key: described[key] for key in keys}
    first["files"] = {n: h for n, h in described["files"].items() if n in NAMES}
    text = json.dumps(first, sort_keys=True, ensure_ascii=False)
    identity = hashlib.sha256(text.encode()).hexdigest()
    (tmp_path / "model.json").write_text(json.dumps({**first, "model_id": identity}))
    found = read_bundle(str(tmp_path))
    assert (model_id(found), found.held_out, found.thresholds) == (identity, None, [0.1, 0.2, 0.3])


def test_hidden_layer_and_temperature_round_trip(tmp_path):
    identity = write_bundle(str(tmp_path), make_bundle(head=hidden_head()))
    found = read_bundle(str(tmp_path)).head
    for name, array in hidden_head().parameters.items():
        np.testing.assert_array_equal(getattr(found, name), array)
    assert (found.temperature, found.multi_label) == (1.5, False)
    assert model_id(read_bundle(str(tmp_path))) == identity


def test_a_plain_head_replaces_a_hidden_one(tmp_path):
    write_bundle(str(tmp_path), make_bundle(head=hidden_head()))
    write_bundle(str(tmp_path), make_bundle())
    assert sorted(contents(tmp_path)) == NAMES
    assert read_bundle(str(tmp_path)).head.hidden_weights is None


def test_equal_bundles_are_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_bundle(str(tmp_path / name), make_bundle())
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert str(tmp_path).encode() not in b"".join(contents(tmp_path / "a").values())


def test_labels_file_has_one_label_a_line(tmp_path):
    write_bundle(str(tmp_path), make_bundle())
    assert (tmp_path / "labels.txt").read_text("utf-8") == "Rose\ntwo\\nlines\n玫瑰\n"


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"labels": ("Rose", "tulip", "玫瑰")},
        {"metrics": {}},
        {"head": Head(np.ones((4, 3), np.float32), np.zeros(3, np.float32))},
        {"head": replace(make_bundle().head, temperature=2.0)},
        {"sweep": [{"l2": 0.1}]},
    ],
)
def test_another_content_is_another_id(changes):
    assert model_id(make_bundle(**changes)) != model_id(make_bundle())


def test_a_bundle_may_be_replaced(tmp_path):
    write_bundle(str(tmp_path), make_bundle())
    identity = write_bundle(str(tmp_path), make_bundle(seed=2))
    assert model_id(read_bundle(str(tmp_path))) == identity


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_file_is_named(tmp_path, name):
    write_bundle(str(tmp_path), make_bundle())
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data.replace(b"Rose", b"Nose") if b"Rose" in data else data[:-1])
    with pytest.raises(ModelError, match=rf"{name}' was changed"):
        read_bundle(str(tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(tmp_path, name):
    write_bundle(str(tmp_path), make_bundle())
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=f"{name} cannot be read"):
        read_bundle(str(tmp_path))


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("writes", range(4))
def test_a_killed_write_never_reads_as_the_new_model(tmp_path, monkeypatch, writes, older):
    if older:
        write_bundle(str(tmp_path), make_bundle(labels=("a", "b", "c")))
    write, done = files.write_atomic, []

    def die_after(uri, data):
        if len(done) == writes:
            raise KeyboardInterrupt
        done.append(uri)
        write(uri, data)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", die_after)
        with pytest.raises(KeyboardInterrupt):
            write_bundle(str(tmp_path), make_bundle(seed=2))
    with contextlib.suppress(ModelError):
        assert read_bundle(str(tmp_path)).labels == ("a", "b", "c")
    write_bundle(str(tmp_path), make_bundle(seed=2))
    assert read_bundle(str(tmp_path)).seed == 2


def test_other_folders_are_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match=r"holds other things than a model \('thesis.txt'\)"):
        write_bundle(str(tmp_path), make_bundle())
    with pytest.raises(OutputError, match="is a file"):
        write_bundle(str(tmp_path / "thesis.txt"), make_bundle())
    assert list(contents(tmp_path)) == ["thesis.txt"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": "layers-model"}', "format: 'layers-model', not"),
        ('{"format": "beam-flowers model 3"}', "a newer one wrote it; update beam-flowers"),
        ("[]", "is damaged .Expected `object`"),
        ("{", "is damaged .Input data was truncated"),
    ],
)
def test_other_models_are_refused(tmp_path, text, message):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(OutputError, match=r"than a model \('model.json'\).* with --overwrite"):
        write_bundle(str(tmp_path), make_bundle())
    with pytest.raises(ModelError, match=message):
        read_bundle(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ("a", "b")}, r"weights are \(4, 3\), expected \[D, 2\]"),
        ({"labels": ("a", "a", "b")}, "labels are not unique"),
        ({"head": Head(np.ones((4, 3), np.float32), np.ones(2, np.float32))}, r"bias is \(2,\)"),
        ({"head": Head(np.ones((4, 3)), np.ones(3, np.float32))}, "weights are float64"),
        (
            {"head": Head(np.full((4, 3), np.nan, np.float32), np.ones(3, np.float32))},
            "weights hold numbers that are not finite",
        ),
        ({"head": hidden_head(width=5)}, r"hidden_weights are \(6, 5\).*expected \[D, 4\]"),
        (
            {"head": replace(hidden_head(), hidden_bias=None)},
            "needs both hidden_weights and hidden_bias",
        ),
        ({"head": replace(hidden_head(), temperature=0.0)}, "temperature must be > 0, got 0.0"),
        ({"thresholds": (0.5,)}, "1 thresholds for 3 labels"),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ModelError, match=message):
        make_bundle(**changes)


def test_what_json_cannot_hold(tmp_path):
    with pytest.raises(ModelError, match="cannot be written as JSON"):
        write_bundle(str(tmp_path), make_bundle(metrics={"accuracy": float("nan")}))
    assert contents(tmp_path) == {}


def test_the_description_is_readable(tmp_path):
    identity = write_bundle(str(tmp_path), make_bundle())
    described = json.loads((tmp_path / "model.json").read_text("utf-8"))
    assert described["model_id"] == identity
    assert described["labels"] == ["Rose", "two\nlines", "玫瑰"]


@pytest.mark.parametrize(
    ("name", "fingerprint", "pixels", "message"),
    [
        ("inception-v3", "f" * 64, None, "of the backbone 'efficientnet-lite0', these are of"),
        ("efficientnet-lite0", "0", {"resize": "area"}, "resize was 'bicubic' and is 'area'"),
        ("efficientnet-lite0", "0", None, "other weights or another pixel recipe"),
        ("efficientnet-lite0", "0", make_bundle().pixels, "same pixel recipe, but other weights"),
    ],
)
def test_another_backbone_is_refused(name, fingerprint, pixels, message):
    with pytest.raises(ModelError, match=message):
        require_backbone(make_bundle(), name, fingerprint, pixels)


def test_the_same_backbone_passes():
    require_backbone(make_bundle(), "efficientnet-lite0", "f" * 64)
