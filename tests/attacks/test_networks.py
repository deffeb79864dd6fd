"""Networks from strangers: SavedModels, `.keras` files, archives behind addresses, and caches.

A network is a program. Each case says what its author would gain if it were loaded.
"""

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from stores import PHOTOS, cli

from beam_flowers.backbones import cache, engine, hub, keras_check, operations, resolve, weights
from beam_flowers.backbones import saved_model_messages as messages
from beam_flowers.backbones.catalogue import Backbone
from beam_flowers.errors import BackboneError
from beam_flowers.files import private

IMAGE = str(min((PHOTOS / "roses").iterdir()))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    engine._load.cache_clear()
    hub._folder_of_this_run.cache_clear()
    private._tell.cache_clear()


# --- SavedModels ---


def _mean(tf, pixels):
    return tf.reduce_mean(pixels, [1, 2]) @ tf.eye(3)


def _net(tf, act):
    """A network of 8 x 8 pixels; `act(pixels)` gives a number that is added to its vector."""

    class Net(tf.Module):
        def __init__(self):
            self.scale = tf.Variable(1.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
        def __call__(self, pixels):
            return _mean(tf, pixels * self.scale) + act(pixels)

    return Net()


def _reads(tf, goal):
    text = tf.io.read_file(str(goal))
    return tf.cast(tf.strings.length(text), tf.float32)


def _writes(tf, goal):
    with tf.control_dependencies([tf.io.write_file(str(goal), "was here")]):
        return tf.constant(0.0)


def _python(tf, goal):
    def steal():
        Path(goal).write_text("was here")
        return np.float32(0)

    return tf.py_function(steal, [], tf.float32)


def _nested(tf, goal):
    inner = tf.function(lambda: _writes(tf, goal))
    return tf.function(lambda: inner())()


def _in_a_loop(tf, goal):
    start = [tf.constant(0), tf.constant(0.0)]
    return tf.while_loop(lambda i, _: i < 1, lambda i, _: (i + 1, _writes(tf, goal)), start)[1]


def _in_a_branch(tf, goal):
    yes = tf.reduce_sum(tf.random.uniform([2])) >= 0
    return tf.cond(yes, lambda: _writes(tf, goal), lambda: tf.constant(0.0))


def _in_a_switch(tf, goal):
    which = tf.cast(tf.random.uniform([]) * 0, tf.int32)
    return tf.switch_case(which, [lambda: _writes(tf, goal), lambda: tf.constant(0.0)])


def _printed(tf, goal):
    tf.print("was here", output_stream=f"file://{goal}")
    return tf.constant(0.0)


def _mapped_file(tf, goal):
    """Not a file operation by name: it maps one into memory."""
    return tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=[], memory_region_name=str(goal))


def _data_set(tf, goal):
    found = tf.data.Dataset.list_files(str(goal), shuffle=False)
    return found.reduce(0.0, lambda total, _: total + 1)


IN_A_SIGNATURE = {
    "a file of the user's, read into the vectors": (_reads, "ReadFile"),
    "a file written, such as .bashrc": (_writes, "WriteFile"),
    "Python": (_python, "EagerPyFunc"),
    "a file written two functions down": (_nested, "WriteFile"),
    "a file written in the body of a loop": (_in_a_loop, "WriteFile"),
    "a file written in a branch": (_in_a_branch, "WriteFile"),
    "a file written in a switch": (_in_a_switch, "WriteFile"),
    "a file printed into": (_printed, "PrintV2"),
    "a file mapped into memory": (_mapped_file, "ImmutableConst"),
    "the names of the user's files": (_data_set, "MatchingFiles|Dataset"),
}


@pytest.fixture
def goal(tmp_path):
    """The file that an attack would write."""
    yield tmp_path / "goal"
    assert not (tmp_path / "goal").exists()


def _refused(path, operation):
    with pytest.raises(BackboneError, match=f"holds the operation '[^']*({operation})") as error:
        resolve.resolve(str(path))
    assert "--trust-backbone" in str(error.value)
    assert "node '" in str(error.value)


@pytest.mark.parametrize(("act", "operation"), IN_A_SIGNATURE.values(), ids=IN_A_SIGNATURE)
def test_an_operation_of_a_network_gains(tf, tmp_path, act, operation, goal):
    there = tmp_path / "there"
    there.write_bytes(bytes(64))
    target = there if act in (_reads, _mapped_file, _data_set) else goal
    net = _net(tf, lambda _: act(tf, target))
    tf.saved_model.save(net, str(tmp_path / "net"))
    goal.unlink(missing_ok=True)
    _refused(tmp_path / "net", operation)


def test_an_initialiser_gains_a_file_when_the_network_is_loaded(tf, tmp_path, goal):
    class Trap(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self):
            tf.io.write_file(str(goal), "was here")

    net = _net(tf, lambda _: 0.0)
    net.trap = Trap()
    tf.saved_model.save(net, str(tmp_path / "net"))
    goal.unlink(missing_ok=True)
    _refused(tmp_path / "net", "WriteFile")


def test_a_restore_function_gains_a_file_when_the_network_is_loaded(tf, tmp_path, goal):
    class Trap(tf.Module):
        def _serialize_to_tensors(self):
            return {"value": tf.constant(1.0)}

        def _restore_from_tensors(self, tensors):
            with tf.control_dependencies([tf.io.write_file(str(goal), "was here")]):
                return tf.identity(tensors["value"])

    net = _net(tf, lambda _: 0.0)
    net.trap = Trap()
    tf.saved_model.save(net, str(tmp_path / "net"))
    goal.unlink(missing_ok=True)
    _refused(tmp_path / "net", "WriteFile")


def test_a_function_that_nobody_calls_gains_a_file_while_shapes_are_computed(tf, tmp_path):
    # TensorFlow 2.21 runs ReadFile when it imports this function, to know the shape.
    goal = tmp_path / "there"
    goal.write_bytes(np.array([1, 3], np.int32).tobytes())

    net = _net(tf, lambda _: 0.0)

    @tf.function(input_signature=[tf.TensorSpec([3], tf.float32)])
    def other(values):
        shape = tf.io.decode_raw(tf.io.read_file(str(goal)), tf.int32)
        return tf.reshape(values, tf.reshape(shape, [2]))

    net.other = other
    tf.saved_model.save(net, str(tmp_path / "net"))
    _refused(tmp_path / "net", "ReadFile")


def _save_tf1(tf, folder, goal, where):
    """A module of TensorFlow 1 that writes a file in its signature, initialiser or restoring."""
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        pixels = v1.placeholder(tf.float32, [None, 8, 8, 3])
        v1.get_variable("kernel", initializer=np.eye(3, dtype=np.float32))
        vector = tf.reduce_mean(pixels, [1, 2]) @ v1.global_variables()[0]
        write = tf.io.write_file(str(goal), "was here")
        if where == "signature":
            with v1.control_dependencies([write]):
                vector = tf.identity(vector)
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"images": pixels}, {"default": vector})
        builder = v1.saved_model.Builder(str(folder))
        saver = v1.train.Saver()
        if where == "restoring":
            restore = v1.get_default_graph().get_operation_by_name("save/restore_all")
            restore._add_control_input(write)
        builder.add_meta_graph_and_variables(
            session,
            [],
            {"default": signature},
            main_op=write if where == "initialiser" else None,
            saver=saver,
        )
        builder.save()


@pytest.mark.parametrize("where", ["signature", "initialiser", "restoring"])
def test_a_module_of_tensorflow_1_gains_a_file(tf, tmp_path, goal, where):
    _save_tf1(tf, tmp_path / "net", goal, where)
    _refused(tmp_path / "net", "WriteFile")


def test_a_custom_operation_gains_what_its_library_does(tf, tmp_path):
    path = tmp_path / "net"
    tf.saved_model.save(_net(tf, lambda _: 0.0), str(path))
    content = (path / "saved_model.pb").read_bytes()
    assert content.count(b"MatMul") > 0
    (path / "saved_model.pb").write_bytes(content.replace(b"\x12\x06MatMul", b"\x12\x06Matmu1"))
    _refused(path, "Matmu1")


def test_a_function_named_as_an_operation_hides_none(tmp_path):
    model = messages.saved_model_class()()
    graph = model.meta_graphs.add().graph_def.add()
    graph.library.add().function.add().signature.add().name.append(b"ReadFile")
    node = graph.node.add()
    node.name.append(b"a")
    node.op.append(b"ReadFile")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "saved_model.pb").write_bytes(model.SerializeToString())
    _refused(tmp_path / "net", "ReadFile")


def test_the_refusal_is_that_of_the_command(tf, tmp_path, capsys, goal):
    net = _net(tf, lambda _: _writes(tf, goal))
    tf.saved_model.save(net, str(tmp_path / "net"))
    goal.unlink(missing_ok=True)
    store = tmp_path / "store"
    embed = ("embed", IMAGE, "--store", store, "--backbone", tmp_path / "net")
    assert cli(*embed) == 1
    said = capsys.readouterr().err
    assert "holds the operation 'WriteFile' (node 'WriteFile' of the function" in said
    assert not store.exists()
    assert not goal.exists()
    # Whoever insists gets what they insist on.
    told = ("--pixel-range=0,1", "--engine", "tensorflow", "--trust-backbone")
    assert cli(*embed, *told) == 0
    goal.unlink()


def test_the_loader_holds_it_too(tf, tmp_path, goal):
    """Workers, and whoever makes a `ResolvedBackbone` without `resolve`."""
    from beam_flowers.backbones import saved_model

    tf.saved_model.save(_net(tf, lambda _: _writes(tf, goal)), str(tmp_path / "net"))
    goal.unlink(missing_ok=True)
    with pytest.raises(BackboneError, match="WriteFile"):
        saved_model.load(str(tmp_path / "net"))


def test_a_model_in_pieces_gains_that_another_is_loaded_than_was_checked(tf, tmp_path):
    tf.saved_model.save(_net(tf, lambda _: 0.0), str(tmp_path / "net"))
    (tmp_path / "net" / "saved_model.cpb").write_bytes(b"")
    with pytest.raises(BackboneError, match=r"saved_model\.cpb' is not read"):
        resolve.resolve(str(tmp_path / "net"))


def _field(number, content):
    """A field of a message that holds another."""
    size, length = len(content), b""
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def _deep(levels):
    """A signature whose tensor is of tensors of tensors: TensorInfo.composite_tensor.components."""
    content = b""
    for _ in range(levels):
        content = _field(5, _field(2, content))
    # SavedModel.meta_graphs, MetaGraphDef.signature_def, its value, SignatureDef.inputs, its value.
    for number in (2, 1, 2, 5, 2):
        content = _field(number, content)
    return content


@pytest.mark.parametrize("content", [_deep(10_000), b"\xff" * 99], ids=["deep", "noise"])
def test_a_file_of_messages_gains_no_crash(tmp_path, content):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "saved_model.pb").write_bytes(content)
    with pytest.raises(BackboneError, match="is damaged, or no SavedModel"):
        resolve.resolve(str(tmp_path / "net"))


def test_a_huge_file_of_messages_gains_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("beam_flowers.backbones.saved_model_check.LIMIT", 2**20)
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "saved_model.pb").write_bytes(bytes(2**20 + 1))
    with pytest.raises(BackboneError, match="larger than 1 MiB, too large to be checked"):
        resolve.resolve(str(tmp_path / "net"))


def test_millions_of_empty_nodes_gain_no_hour(tmp_path):
    (tmp_path / "net").mkdir()
    content = _field(2, _field(2, b"\x0a\x00" * 2_000_001))
    (tmp_path / "net" / "saved_model.pb").write_bytes(content)
    with pytest.raises(BackboneError, match="a SavedModel of 2,000,001 nodes is not checked"):
        resolve.resolve(str(tmp_path / "net"))


def test_the_messages_are_those_of_tensorflow(tf):
    from tensorflow.core.protobuf import saved_model_pb2

    theirs = {"SavedModel": saved_model_pb2.SavedModel.DESCRIPTOR}
    seen = set()
    while set(theirs) - seen:
        name = next(iter(set(theirs) - seen))
        seen.add(name)
        for field, (number, kind) in messages.FIELDS[name].items():
            found = theirs[name].fields_by_name[field]
            assert found.number == number, (name, field)
            is_message = kind not in ("", messages.NUMBER)
            assert is_message == (found.message_type is not None), (name, field)
            if is_message:
                theirs.setdefault(kind, found.message_type)
    assert seen == set(messages.FIELDS)


def test_all_operations_of_the_list_exist_and_none_reaches_out(tf):
    from tensorflow.python.framework import op_def_registry

    unknown = {name for name in operations.SAVES if op_def_registry.get(name) is None}
    assert not unknown
    outside = "File|Func$|Dataset|Iterator|Send|Recv|Print|Library|Remote|Collective|Rpc|Xla|Tpu"
    found = {name for name in operations.COMPUTES if re.search(outside, name)}
    assert not found
    # From an operation that gives something back and has no state, TensorFlow computes shapes.
    for name in operations.SAVES - operations.COMPUTES - {"ShardedFilename", "ShardedFilespec"}:
        assert op_def_registry.get(name).is_stateful or not op_def_registry.get(name).output_arg


APPLICATIONS = ["MobileNetV2", "EfficientNetB0", "InceptionV3", "ResNet50", "ConvNeXtTiny"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["export", "save", "keras"])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_networks_in_use_are_accepted(tf, keras, tmp_path, name, how):
    build = getattr(keras.applications, name)
    model = build(weights=None, include_top=False, pooling="avg", input_shape=(96, 96, 3))
    path = str(tmp_path / ("net.keras" if how == "keras" else "net"))
    if how == "export":
        model.export(path, verbose=False)
    elif how == "save":
        tf.saved_model.save(model, path)
    else:
        model.save(path)
    found = resolve.resolve(path, pixel_range=(0, 255), engine="tensorflow")
    if how != "export":
        return
    network = engine.load(found)
    pixels = np.zeros((1, 96, 96, 3), np.uint8)
    expected = model(pixels.astype("float32"), training=False).numpy()
    np.testing.assert_allclose(network.embed(pixels), expected, rtol=1e-3, atol=1e-4)


# --- .keras files ---


def _keras_file(path, config, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        for name, content in entries.items():
            archive.writestr(name, content)
    return str(path)


def _layer(name, module="keras.layers", **config):
    return {"class_name": name, "module": module, "config": config, "registered_name": None}


def _function(name, module="builtins", **more):
    return {"class_name": "function", "module": module, "config": name, **more}


def _model(*layers):
    return _layer("Sequential", "keras", layers=list(layers))


HOSTILE = {
    "Python, by a Lambda": _layer("Lambda", function={"class_name": "__lambda__", "config": {}}),
    "Python, by a lambda as an activation": _layer(
        "Dense", activation={"class_name": "__lambda__", "config": {"value": ["", None, None]}}
    ),
    "a SavedModel's operations": _layer("TFSMLayer", filepath="/tmp/net"),
    "a file as a vocabulary": _layer("StringLookup", vocabulary="/etc/passwd"),
    "a file as words": _layer("TextVectorization", vocabulary="/etc/passwd"),
    "a pickle": _layer("TorchModuleWrapper", module={}),
    "any module's import": _layer("Thing", "os"),
    "any function of the library": _layer("Dense", activation=_function("system", "os")),
    "a download": _layer("get_file", "keras.utils", origin="http://127.0.0.1/x"),
    "a function in place of a class": _layer("deserialize", "keras.metrics"),
    "a switch of safe mode": _layer("enable_unsafe_deserialization", "keras.config"),
    "a private module": _layer("PickleableClass", "keras.src.saving.keras_saveable"),
    "a class of the user's own": {**_layer("Dense"), "registered_name": "my>Dense"},
    "a module that only begins alike": _layer("Dense", "keras.layers_of_mine"),
    "a name that is none": {"class_name": ["Dense"], "module": "keras.layers", "config": {}},
    "a type": {"class_name": "__typespec__", "module": "os", "config": [], "spec_name": "x"},
}


@pytest.mark.parametrize("layer", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
def test_a_keras_file_gains(tmp_path, layer, nested):
    model = _model(_layer("TimeDistributed", layer=_model(layer))) if nested else _model(layer)
    path = _keras_file(tmp_path / "net.keras", model)
    with pytest.raises(BackboneError, match="which is not among the layers that only compute"):
        resolve.resolve(path)


def test_a_keras_file_is_held_by_its_loader_too(tmp_path):
    from beam_flowers.backbones import keras_models

    path = _keras_file(tmp_path / "net.keras", _model(HOSTILE["Python, by a Lambda"]))
    backbone = resolve.ResolvedBackbone(Backbone("net", None, None), "keras-file", path, "")
    with pytest.raises(BackboneError, match="holds 'Lambda'"):
        keras_models.read_file(path, backbone)


def test_losses_of_ones_own_do_not_matter_as_they_are_not_loaded(tmp_path):
    model = {**_model(_layer("Dense")), "compile_config": {"loss": _function("mine", "__main__")}}
    keras_check.require_no_code(_keras_file(tmp_path / "net.keras", model))


PLAIN = _model(_layer("Dense", activation="relu"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("../../.bashrc", "leads out of its folder"), ("/etc/cron.d/x", "leads out of its folder")],
)
def test_an_entry_gains_a_file_elsewhere(tmp_path, name, message):
    path = _keras_file(tmp_path / "net.keras", PLAIN, **{name: "x"})
    with pytest.raises(BackboneError, match=message):
        resolve.resolve(path)


def test_a_link_in_an_archive_gains_a_file_of_the_users(tmp_path):
    with zipfile.ZipFile(_keras_file(tmp_path / "net.keras", PLAIN), "a") as archive:
        link = zipfile.ZipInfo("assets/x")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BackboneError, match="holds the link 'assets/x'"):
        resolve.resolve(str(tmp_path / "net.keras"))


def test_a_second_config_gains_that_another_is_checked_than_is_loaded(tmp_path):
    path = tmp_path / "net.keras"
    with (
        zipfile.ZipFile(_keras_file(path, _model(_layer("Lambda"))), "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("config.json", json.dumps(PLAIN))
    with pytest.raises(BackboneError, match="two entries of one name"):
        resolve.resolve(str(path))


def test_a_bomb_gains_the_memory_or_the_disk(tmp_path):
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(_keras_file(path, PLAIN), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2**25))
    with pytest.raises(BackboneError, match="would grow more than 100 fold"):
        resolve.resolve(str(path))


def test_json_in_json_gains_no_crash(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.keras", "w") as archive:
        archive.writestr("config.json", "[" * 200_000)
    with pytest.raises(BackboneError, match=r"not a \.keras file, or damaged"):
        resolve.resolve(str(tmp_path / "net.keras"))


@pytest.mark.parametrize("kind", ["stream", "offset"])
def test_a_damaged_keras_file_is_named(tmp_path, kind):
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(PLAIN))
    data = bytearray(path.read_bytes())
    if kind == "stream":
        data[60] ^= 0xFF
    else:  # The list of the archive begins before the file does.
        data[-6:-2] = b"\0\0\0\x7f"
    path.write_bytes(data)
    with pytest.raises(BackboneError, match=r"net\.keras' is not a \.keras file, or damaged"):
        keras_check.require_no_code(str(path))


@pytest.mark.parametrize("version", ["3.5.0", "3.11.3", "3.12.3", "3.13.2", "3.14.1", "3.15.0"])
@pytest.mark.parametrize("name", ["net.keras", "net.h5"])
def test_keras_with_holes_in_its_safe_mode_gains_the_attacker_code(
    tmp_path, monkeypatch, version, name
):
    path = _keras_file(tmp_path / name, PLAIN)
    known = "inception-v3" if name.endswith(".h5") else path
    digest = weights.sha256(path, "keras-file")
    resolve.resolve(known, path, digest, (0, 1))
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    with pytest.raises(BackboneError, match=rf"needs Keras 3\.12\.4, .*here is {version}"):
        resolve.resolve(known, path, digest, (0, 1))


@pytest.mark.parametrize("version", ["3.12.4", "3.12.10", "3.15.1", "3.16.0", "4.0"])
def test_a_repaired_keras_is_taken(monkeypatch, version):
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    keras_check.require_safe_keras("net.keras")


def test_a_whole_model_in_h5_gains_code_that_no_safe_mode_stops(tmp_path):
    (tmp_path / "net.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(BackboneError, match=r"\.h5 file can hold code"):
        resolve.resolve(str(tmp_path / "net.h5"))


def test_all_classes_of_the_list_are_keras_own(keras):
    import importlib

    for module, names in keras_check.CLASSES.items():
        found = importlib.import_module(module)
        # Keras finds this one by another name.
        missing = {name for name in names if not hasattr(found, name)} - {"Functional"}
        assert not missing, module
        assert all(isinstance(getattr(found, name, type), type) for name in names)
    assert all(callable(getattr(keras.activations, name)) for name in keras_check.ACTIVATIONS)


# --- addresses ---


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        answer = self.server.answers[self.path.partition("?")[0]]
        self.send_response(200 if isinstance(answer, bytes) else 302)
        if isinstance(answer, bytes):
            self.end_headers()
            self.wfile.write(answer)
        else:
            self.send_header("Location", answer)
            self.end_headers()


@pytest.fixture
def server():
    """A web server; `answers` maps paths to contents, or to addresses that they lead to."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.answers, server.url = {}, f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _tar(*members, **contents):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in members:
            tar.addfile(member)
    return gzip.compress(file.getvalue())


@pytest.fixture
def module(tf, tmp_path, server):
    """A network behind an address: the address and its archive's digest."""
    tf.saved_model.save(_net(tf, lambda _: 0.0), str(tmp_path / "net"))
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.add(tmp_path / "net", ".")
    server.answers["/net.tar.gz"] = file.getvalue()
    return f"{server.url}/net.tar.gz", hashlib.sha256(file.getvalue()).hexdigest()


@pytest.mark.parametrize("handle", ["http://example.org/net", "HTTP://example.org/net"])
def test_an_address_without_tls_gains_whoever_is_on_the_way_a_program(handle):
    with pytest.raises(BackboneError, match="is not read: a network is a program"):
        resolve.resolve(handle)


def test_a_redirection_gains_what_an_address_may_not(server):
    for place in ("http://example.org/net", "ftp://example.org/net", "file:///etc/passwd"):
        server.answers["/net"] = place
        with pytest.raises(BackboneError, match=r"is not read|cannot be .*not allowed"):
            resolve.resolve(f"{server.url}/net")


def test_another_archive_gains_nothing_where_its_digest_is_known(module, tmp_path, server):
    handle, digest = module
    server.answers["/net.tar.gz"] = other = _tar(**{"saved_model.pb": b"other"})
    found = hashlib.sha256(other).hexdigest()
    with pytest.raises(BackboneError, match=f"has the sha256 {found}, the files in it") as error:
        resolve.resolve(handle, sha256=digest)
    assert "was not loaded" in str(error.value)
    folder = tmp_path / "cache" / "beam-flowers" / hub.FOLDER
    assert list(folder.iterdir()) == []


def test_either_digest_pins_a_network(module):
    handle, digest = module
    found = resolve.resolve(handle, sha256=digest)
    assert resolve.resolve(handle, sha256=found.weights_sha256) == found
    with pytest.raises(BackboneError, match=f"has the sha256 {digest}, .* not '{'0' * 64}'"):
        resolve.resolve(handle, sha256="0" * 64)


def test_the_digest_of_the_files_will_do_before_anything_is_unpacked(module, tmp_path):
    expected = weights.sha256(str(tmp_path / "net"), "saved-model")
    assert resolve.resolve(module[0], sha256=expected).weights_sha256 == expected


def test_a_first_use_prints_the_digest_once(module, caplog):
    handle, digest = module
    for _ in "12":
        resolve.resolve(handle)
    (line,) = [record.getMessage() for record in caplog.records if digest in record.getMessage()]
    assert "--backbone-sha256" in line


def test_the_folder_of_downloads_is_the_users_own(module, tmp_path, monkeypatch):
    # In TensorFlow Hub's own, in /tmp, anybody may lay a network that is taken for this one.
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "planted"))
    path = Path(resolve.resolve(module[0]).path)
    folder = tmp_path / "cache" / "beam-flowers"
    assert folder in path.parents
    assert {(folder / name).stat().st_mode & 0o777 for name in (".", hub.FOLDER)} == {0o700}
    assert not (tmp_path / "planted").exists()


def test_a_downloaded_network_is_held_as_any_other(tf, tmp_path, server, goal):
    tf.saved_model.save(_net(tf, lambda _: _writes(tf, goal)), str(tmp_path / "net"))
    goal.unlink(missing_ok=True)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.add(tmp_path / "net", ".")
    server.answers["/net"] = file.getvalue()
    _refused(f"{server.url}/net", "WriteFile")


def _special(name, kind, target=""):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (_tar(**{"../../x": b"x", "saved_model.pb": b""}), "leads out of its folder"),
        (_tar(**{"/tmp/x": b"x", "saved_model.pb": b""}), "leads out of its folder"),
        (_tar(_special("assets", tarfile.SYMTYPE, "/etc")), "neither a file nor a folder"),
        (_tar(_special("x", tarfile.LNKTYPE, "/etc/passwd")), "neither a file nor a folder"),
        (_tar(_special("x", tarfile.CHRTYPE)), "neither a file nor a folder"),
        (_tar(**{"saved_model.pb": bytes(2**20)}), "more than 10000 files or 0 GiB"),
        (_tar(**{str(number): b"" for number in range(10_001)}), "more than 10000 files"),
        (_tar(_special("x" * 2**25, tarfile.REGTYPE)), "a header of more than 16 MiB"),
        (_tar(**{"other": b""}), "holds no saved_model.pb"),
        (b"\x1f\x8bnoise", "cannot be downloaded"),
    ],
    ids=["up", "root", "link", "hard", "device", "size", "count", "header", "none", "noise"],
)
def test_an_archive_gains(server, monkeypatch, tmp_path, archive, message):
    if "0 GiB" in message:
        monkeypatch.setattr(hub, "_MOST_BYTES", 2**20 - 1)
    server.answers["/net"] = archive
    with pytest.raises(BackboneError, match=message):
        resolve.resolve(f"{server.url}/net")
    assert list((tmp_path / "cache" / "beam-flowers" / hub.FOLDER).iterdir()) == []


def test_an_endless_answer_gains_the_disk(server, monkeypatch):
    monkeypatch.setattr(hub, "_MOST_BYTES", 2**20)
    server.answers["/net"] = bytes(2**20 + 1)
    with pytest.raises(BackboneError, match="it is larger than"):
        resolve.resolve(f"{server.url}/net")


# --- caches ---


def _warned(caplog):
    return [r.getMessage() for r in caplog.records if "cache folder" in r.getMessage()]


@pytest.fixture
def loads(monkeypatch):
    """Loads a network as a new process would; gives the vector of an image."""

    def load():
        engine._load.cache_clear()
        pixels = np.zeros((1, 224, 224, 3), np.uint8)
        backbone = resolve.resolve("efficientnet-lite0", engine="tensorflow")
        return engine.load(backbone).embed(pixels)

    return load


def _open_to_all(folder):
    folder.chmod(0o777)


def _others(folder):
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(folder, 12345, -1)


def _others_link(folder):
    _others(folder)
    target = folder.with_name("target")
    folder.rename(target)
    folder.symlink_to(target)
    os.chown(target, 0, -1)
    os.lchown(folder, 12345, -1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [".", "tensorflow"])
@pytest.mark.parametrize("spoil", [_open_to_all, _others, _others_link])
def test_a_cache_of_others_gains_them_a_network_of_theirs(loads, tmp_path, caplog, spoil, name):
    expected = loads()
    folder = tmp_path / "cache" / "beam-flowers"
    (network,) = (folder / "tensorflow").iterdir()
    # Whole as to its digests, but another network: an attacker writes those too.
    (network / "network.pb").write_bytes(b"planted")
    (network / "sha256").write_text(cache._digest(network))
    assert cache.is_whole(network)
    spoil(folder / name if name != "." else folder)
    np.testing.assert_array_equal(loads(), expected)
    loads()
    (line,) = _warned(caplog)
    assert "is not used, as it" in line
    assert (network / "network.pb").read_bytes() == b"planted"


def test_a_cache_of_an_earlier_version_is_closed(loads, tmp_path, caplog):
    folder = tmp_path / "cache" / "beam-flowers"
    for made in (folder, folder / "tensorflow"):
        made.mkdir(mode=0o755, parents=True)
        made.chmod(0o755)
    loads()
    assert {made.stat().st_mode & 0o777 for made in (folder, folder / "tensorflow")} == {0o700}
    assert len(list((folder / "tensorflow").iterdir())) == 1
    assert not _warned(caplog)


def test_a_log_in_a_cache_of_others_gains_them_a_file_of_the_users(tmp_path, caplog):
    folder = tmp_path / "cache" / "beam-flowers" / "logs"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert private.private_folder("logs", make=True) is None
    assert len(_warned(caplog)) == 1


def test_without_a_cache_of_ones_own_a_download_lasts_for_the_run(module, tmp_path, caplog):
    (tmp_path / "cache" / "beam-flowers").mkdir(parents=True)
    _open_to_all(tmp_path / "cache" / "beam-flowers")
    path = Path(resolve.resolve(module[0]).path)
    assert path.parents[1].stat().st_mode & 0o777 == 0o700
    assert tmp_path / "cache" not in path.parents
    assert len(_warned(caplog)) == 1
