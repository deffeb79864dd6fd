"""ONNX files of strangers: what is refused before a runtime sees it."""

import os
import resource

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="pip install 'beam-flowers[test]'")

from onnx import TensorProto, helper  # noqa: E402
from onnx_networks import Maker, publish, vit  # noqa: E402

from beam_flowers.backbones import engine, onnx_file  # noqa: E402
from beam_flowers.backbones.onnx_check import require_usable  # noqa: E402
from beam_flowers.backbones.resolve import resolve  # noqa: E402
from beam_flowers.errors import BackboneError  # noqa: E402


def small(change=lambda m, x: x, **more):
    """The mean of an image's channels, with one more step between."""
    m = Maker(0)
    x = m.node("ReduceMean", "pixel_values", axes=[2, 3], keepdims=0)
    m.node("Identity", change(m, x), name="pooler_output")
    return m.model({"pooler_output": ("batch", 3)}, **more)


def written(folder, model):
    """The network, without ONNX's own checks."""
    publish(folder, vit())
    (folder / "onnx" / "model.onnx").write_bytes(
        model if isinstance(model, bytes) else model.SerializeToString()
    )
    return str(folder)


def own(operator, domain=""):
    return lambda m, x: m.node(operator, x, domain=domain)


def nested(depth):
    """An `If` whose branches hold such, so many deep."""
    inside = helper.make_node("Identity", ["x"], ["y"])
    for _ in range(depth):
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([inside], "branch", [], [output])
        inside = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)

    def change(m, x):
        m.nodes.append(inside)
        return x

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (own("RandomNormalLike"), "operator 'RandomNormalLike'.*draw by chance.*--trust-backbone"),
        (own("Loop"), "operator 'Loop'"),
        (own("ImageDecoder"), "operator 'ImageDecoder'"),
        (own("Evil", "my.ops"), "operator 'Evil' of the domain 'my.ops'.*not ONNX's own"),
        (own("MatMulNBits", "com.microsoft"), "'MatMulNBits' of the domain 'com.microsoft'"),
        (nested(2), None),
        (nested(12), "graphs lie more than 8 deep"),
    ],
)
def test_operators_are_refused_by_name(tmp_path, change, message):
    folder = written(tmp_path / "net", small(change))
    if message is None:
        resolve(folder)
        return
    with pytest.raises(BackboneError, match=message):
        resolve(folder)


def test_an_operator_inside_a_branch_is_found_and_trust_takes_it(tmp_path):
    loop = helper.make_node("Multinomial", ["x"], ["y"])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([loop], "branch", [], [output])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
    folder = written(tmp_path / "net", small(lambda m, x: m.nodes.append(branch) or x))
    with pytest.raises(BackboneError, match="operator 'Multinomial'"):
        resolve(folder)
    assert resolve(folder, trust=True).trusted


def odd(kind):
    model = small()
    if kind == "function":
        model.functions.append(
            helper.make_function("f", "Own", ["x"], ["y"], [], [helper.make_opsetid("", 17)])
        )
    elif kind == "training":
        model.training_info.add()
    else:
        model.graph.sparse_initializer.add().dims.append(3)
    return model


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("kind", ["function", "training", "sparse"])
def test_what_no_network_needs_is_refused_even_if_trusted(tmp_path, kind, trust):
    with pytest.raises(BackboneError, match=f"holds .*{kind}"):
        resolve(written(tmp_path / "net", odd(kind)), trust=trust)


def with_weights(**fields):
    """A network with one more array of weights."""
    model = small()
    tensor = TensorProto(name="evil", data_type=TensorProto.FLOAT)
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dims": [2**40], "raw_data": b"1234"}, "would be 4,398,046,511,104 bytes"),
        ({"dims": [2**20] * 20}, "impossible shape"),
        ({"dims": [-1]}, "impossible shape"),
        ({"dims": [100], "raw_data": b"1234"}, "have only 4 bytes in the file"),
        ({"dims": [1], "data_type": TensorProto.STRING}, "of a type that is not taken"),
        ({"dims": [2], "data_type": TensorProto.INT4}, "of a type that is not taken"),
        ({"dims": [1], "data_type": 99}, "of a type that is not taken"),
    ],
)
def test_weights_that_are_not_there_are_refused(tmp_path, fields, message):
    with pytest.raises(BackboneError, match=f"weights 'evil'.*{message}"):
        resolve(written(tmp_path / "net", with_weights(**fields)))


def external(**entries):
    model = with_weights(dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        model.graph.initializer[-1].external_data.add(key=key, value=value)
    return model


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"location": "../secret"}, "'../secret', which lies outside of its folder"),
        ({"location": "a/../../secret"}, "outside of its folder"),
        ({"location": "/etc/passwd"}, "'/etc/passwd', which lies outside of its folder"),
        ({"location": "C:\\secret"}, "outside of its folder"),
        ({"location": "..\\secret"}, "outside of its folder"),
        ({"location": "a\x00b"}, "outside of its folder"),
        ({"location": ""}, "outside of its folder"),
        ({}, "do not say which file"),
        ({"location": "link"}, "'link', a link that leads out of its folder.*cp -rL"),
        ({"location": "up/secret"}, "a link that leads out"),
        ({"location": "none"}, "'none', which is not beside it"),
        ({"location": "here", "offset": "1"}, "do not fit"),
        ({"location": "here", "offset": "-1"}, "do not fit"),
        ({"location": "here", "offset": "9" * 50}, "do not fit"),
        ({"location": "here", "length": "15"}, "do not fit"),
        ({"location": "short"}, "do not fit"),
        ({"location": "here"}, None),
    ],
)
def test_other_files_of_this_machine_are_not_read(tmp_path, entries, message):
    folder = written(tmp_path / "net", external(**entries))
    graphs = tmp_path / "net" / "onnx"
    (tmp_path / "secret").write_bytes(bytes(16))
    (graphs / "link").symlink_to(tmp_path / "secret")
    (graphs / "up").symlink_to(tmp_path)
    (graphs / "here").write_bytes(bytes(16))
    (graphs / "short").write_bytes(bytes(15))
    if message is None:
        assert resolve(folder).weights_sha256
        return
    with pytest.raises(BackboneError, match=message):
        resolve(folder, trust=True)


def test_a_name_that_comes_twice_is_refused(tmp_path):
    model = external(location="here")
    model.graph.initializer[-1].external_data.add(key="location", value="../secret")
    with pytest.raises(BackboneError, match="name their place twice"):
        resolve(written(tmp_path / "net", model))


def test_too_many_data_files_are_refused(tmp_path):
    model = small()
    for number in range(300):
        tensor = TensorProto(name=f"t{number}", dims=[1], data_type=1, data_location=1)
        tensor.external_data.add(key="location", value=f"d{number}")
        model.graph.initializer.append(tensor)
    with pytest.raises(BackboneError, match="weights in 300 files"):
        resolve(written(tmp_path / "net", model))


def length(data):
    number, found = len(data), b""
    while number > 127:
        found, number = found + bytes([number & 127 | 128]), number >> 7
    return found + bytes([number])


def key(number, wire=2):
    return bytes([number << 3 | wire])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged, or no ONNX file"),
        (b"not a network at all", "damaged, or no ONNX file"),
        (b"\x08\x08", "it has no graph"),
        (small().SerializeToString() * 2, "graph comes twice in one Model"),
        (key(7) + b"\xff\xff\xff\xff\x0f", "it ends early"),
        (key(7) + b"\xff" * 12, "no number at byte"),
        (key(7, 0) + b"\x01", "a field has another type"),
        (key(7) + length(bytes(40_000)) + b"\x0a\x00" * 20_000, "more than 10,000 fields"),
        (
            key(7)
            + b"\x84\x80\x08"
            + key(1)
            + b"\x80\x80\x08"
            + b"\x1a\xfc\xff\x07"
            + b"n" * 131068,
            "a name of 131,068 bytes",
        ),
    ],
)
def test_files_that_no_program_writes_are_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(onnx_file, "_MOST_FIELDS", 10_000)
    with pytest.raises(BackboneError, match=message):
        resolve(written(tmp_path / "net", content))


def test_packed_dimensions_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "_MOST_FIELDS", 10_000)
    many = b"\x01" * 11_000
    tensor = key(1) + length(many) + many
    graph = key(5) + length(tensor) + tensor
    with pytest.raises(BackboneError, match="more than 10,000 fields"):
        resolve(written(tmp_path / "net", key(7) + length(graph) + graph))


def test_damaged_files_never_end_in_another_error(tmp_path):
    path = tmp_path / "net.onnx"
    whole = vit(blocks=1).SerializeToString()
    random = np.random.default_rng(0)
    for _ in range(150):
        end = random.integers(1, len(whole)) if random.random() < 0.3 else len(whole)
        data = bytearray(whole[:end])
        for place in random.integers(0, len(data), 20):
            data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            graph = onnx_file.read_graph(str(path))
            require_usable(graph, str(path), str(tmp_path))
        except BackboneError:
            continue


def number_of(count):
    """A varint of ten bytes, so that lengths are known before their numbers are."""
    return bytes(count >> 7 * place & 127 | 128 for place in range(9)) + b"\x00"


def test_reading_steps_over_the_weights(tmp_path):
    size, path = 2**30, tmp_path / "net.onnx"
    head = key(1, 0) + number_of(2**28) + key(2, 0) + b"\x01" + key(9) + number_of(size)
    tensor = key(5) + number_of(len(head) + size) + head
    with path.open("wb") as file:
        file.write(key(7) + number_of(len(tensor) + size) + tensor)
        file.truncate(file.tell() + size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (found,) = onnx_file.read_graph(str(path)).tensors
    assert (found.stored, found.dims) == (size, (2**28,))
    if os.uname().sysname == "Linux":  # Elsewhere in other units.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**15


def bomb(kind):
    def change(m, x):
        if kind == "ConstantOfShape":
            made = m.node(kind, np.array([2**20, 2**20]))
        elif kind == "Expand":
            made = m.node(kind, np.ones((1, 1), "f4"), np.array([2**18, 2**18]))
        elif kind == "Tile":
            made = m.node(kind, "pixel_values", np.array([1, 1, 2**12, 2**12]))
        else:
            count = m.node("Cast", m.node("ReduceMax", "pixel_values", keepdims=1), to=7)
            made = m.node("ConstantOfShape", m.node("Reshape", count, np.array([1])))
        return m.node("Add", x, m.node("ReduceSum", made, keepdims=0))

    return small(change)


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Expand", "Tile", "of the image"])
def test_arrays_that_fill_the_memory_are_refused_before_they_are_made(tmp_path, kind):
    pytest.importorskip("openvino")
    backbone = resolve(publish(tmp_path / "net", bomb(kind)), engine="openvino")
    message = "depends on the image" if kind == "of the image" else "would make .* bytes"
    with pytest.raises(BackboneError, match=message):
        engine.load(backbone)


def test_a_runtime_that_fails_is_an_error_of_ours(tmp_path):
    pytest.importorskip("onnxruntime")
    backbone = resolve(publish(tmp_path / "net", bomb("ConstantOfShape")), engine="onnxruntime")
    with pytest.raises(BackboneError, match="cannot be loaded as 'net'"):
        engine.load(backbone)
