"""A model from somebody else, whose ids and digests are all consistent.

What its maker would gain: Python's own words in place of an error, memory for what a header claims,
a number where a text is printed.
"""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from beam_flowers.errors import ModelError, ModelFieldError
from beam_flowers.head import bundle as bundles
from beam_flowers.head.bundle import Bundle, read_bundle, write_bundle
from beam_flowers.head.softmax import Head

_DEEP = "[" * 200_000 + "]" * 200_000


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def model(tmp_path):
    bundle = Bundle(
        head=Head(np.ones((4, 2), np.float32), np.zeros(2, np.float32)),
        labels=("daisy", "rose"),
        backbone="efficientnet-lite0",
        fingerprint="f" * 64,
        pixels={"size": 224},
        recipe={"name": "lbfgs"},
        split={"rule": "hash"},
        seed=1,
        dataset_hash="d" * 64,
        metrics={},
        versions={"numpy": "2.0"},
    )
    write_bundle(str(tmp_path / "model"), bundle)
    return tmp_path / "model"


def change(model, **fields):
    """Writes other fields, with the id that they have."""
    path = model / "model.json"
    described = {**json.loads(path.read_text()), **fields}
    described = {k: v for k, v in described.items() if k != "model_id" and v is not ...}
    text = json.dumps(described, sort_keys=True, ensure_ascii=False)
    path.write_text(json.dumps({**described, "model_id": sha256(text.encode())}))


def replace_array(model, data):
    (model / "weights.npy").write_bytes(data)
    hashes = json.loads((model / "model.json").read_text())["files"]
    change(model, files={**hashes, "weights.npy": sha256(data)})


WRONG = {
    "files": [..., [], {"weights.npy": 3}, None],
    "labels": [..., "daisy", [1, 2], {"daisy": 0}, None],
    "backbone": [..., 7, None, ["a"]],
    "fingerprint": [..., 7],
    "pixels": [..., "224"],
    "metrics": [..., []],
    "seed": ["1", 1.5],
    "versions": [{"numpy": 2}],
    "temperature": ["1", None, {}],
    "multi_label": ["yes", 1],
    "thresholds": [["a", "b"], "ab"],
    "sweep": [[1]],
    "calibration": [3],
    "label_separator": [3],
    "surprise": [1],
}


@pytest.mark.parametrize(
    ("field", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_the_field_that_is_wrong_is_named(model, field, value):
    change(model, **{field: value})
    with pytest.raises(ModelFieldError) as refusal:
        read_bundle(str(model))
    assert refusal.value.file == str(model / "model.json")
    assert refusal.value.field.startswith(field) or f"`{field}`" in str(refusal.value)


def npy(header):
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def zipped():
    buffer = io.BytesIO()
    np.savez(buffer, weights=np.ones((4, 2), np.float32))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 2), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 2), }"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (4, 2), }"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': 'x', }"),
        npy("__import__('os').system('touch /tmp/x')"),
        npy("(" * 100),
        zipped(),
    ],
)
def test_an_array_that_is_none_is_named(model, data):
    replace_array(model, data)
    with pytest.raises(ModelError, match=r"weights\.npy' is no array"):
        read_bundle(str(model))


@pytest.mark.parametrize("text", [_DEEP, "{", "", "[]", "3", '{"format": {"a": 1}}'])
def test_a_description_that_is_none_is_named(model, text):
    (model / "model.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.json"):
        read_bundle(str(model))


@pytest.mark.parametrize("field", ["model_id", "format", "files"])
def test_an_error_quotes_a_little_of_a_description(model, field):
    path, long = model / "model.json", "x" * 100_000
    described = json.loads(path.read_text())
    if field == "model_id":
        path.write_text(json.dumps({**described, field: long}))
    else:
        files = {**described["files"], "weights.npy": long}
        newer = "beam-flowers model " + "9" * 100_000
        change(model, **{"files": files} if field == "files" else {"format": newer})
    with pytest.raises(ModelError) as refusal:
        read_bundle(str(model))
    assert len(str(refusal.value)) < 1500


def test_a_description_of_any_size_is_not_read(model, monkeypatch):
    monkeypatch.setattr(bundles._FORM, "most", Path(model / "model.json").stat().st_size - 1)
    with pytest.raises(ModelFieldError, match=r"model\.json is damaged \(more than [0-9]+ bytes"):
        read_bundle(str(model))
