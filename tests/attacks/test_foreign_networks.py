"""A model or a store from somebody else names its network: only the catalogue's names are followed.

The network here is a SavedModel that writes a file when it is loaded: it could do anything else.
"""

import json
import os
import shutil
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import apache_beam as beam
import pytest
from stores import PHOTOS, cli, photos

from beam_flowers import transforms
from beam_flowers.backbones import engine
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import BackboneError
from beam_flowers.head.backbones import backbones_of, recipes_of_model
from beam_flowers.head.bundle import read_bundle, write_bundle
from beam_flowers.transforms import beam_yaml
from beam_flowers.transforms.run_inference import ScoreModelHandler

NAMES = ["net", "./net", "{base}/net", "{base}/net.keras", "file://{base}/net", "{url}/net", "mine"]
"""What a foreign model may name: a folder that lies where the command is run, a path, an address,
and a name that its trainer has chosen."""


@pytest.fixture(scope="module")
def original(tf, keras, tmp_path_factory):
    """Twelve images, the network `net`, the store of its vectors, and a model of them."""
    base = tmp_path_factory.mktemp("foreign")
    photos(base / "photos", 4)
    save_trap(tf, base / "net", base / "loaded")
    pixels = keras.Input((16, 16, 3))
    keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels)).save(base / "net.keras")
    trusted = ("--backbone", base / "net", "--trust-backbone", "--pixel-range", "-1,1")
    assert cli("embed", base / "photos", "--store", base / "store", *trusted) == 0
    assert cli("train", base / "store", "--model", base / "model") == 0
    assert read_bundle(str(base / "model")).backbone == "net"
    return base


def save_trap(tf, folder, told):
    """A SavedModel that writes the file `told` when it is loaded."""

    class Trap(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.MutableHashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self):
            tf.io.write_file(str(told), "loaded")

    class Net(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3], tf.float32)])
        def __call__(self, pixels):
            return tf.reduce_mean(pixels, [1, 2]) @ self.kernel

    net = Net()
    net.kernel, net.trap = tf.Variable([[1.0, 2, 0], [0, 1, 2], [3, 0, 1]]), Trap()
    tf.saved_model.save(net, str(folder))


class Handler(SimpleHTTPRequestHandler):
    """Counts requests."""

    def log_message(self, format, *args):
        self.server.requested.append(self.path)


@pytest.fixture(scope="module")
def server(original):
    """A web server; `requested` is what it was asked for."""
    handler = partial(Handler, directory=str(original))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requested, server.url = [], f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def base(original, server, monkeypatch, tmp_path):
    """The folder of `original`, worked in; whatever a test does may neither load nor ask."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(original)
    engine._load.cache_clear()
    server.requested.clear()
    (original / "loaded").unlink(missing_ok=True)
    yield original
    engine._load.cache_clear()
    assert server.requested == []


@pytest.fixture(params=NAMES)
def name(request, base, server):
    return request.param.format(base=base, url=server.url)


@pytest.fixture
def model(base, name, tmp_path):
    """The model, with that name for its network."""
    bundle = replace(read_bundle(str(base / "model")), backbone=name)
    write_bundle(str(tmp_path / "model"), bundle)
    return tmp_path / "model"


def foreign_store(base, name, folder):
    """The store, with that name for its network."""
    shutil.copytree(base / "store", folder)
    for commit in Path(folder, "__commits").glob("*.json"):
        described = json.loads(commit.read_text())
        for section in described["sections"].values():
            section["about"]["name"] = name
        commit.write_text(json.dumps(described))
    return folder


IMAGE = f"photos/roses/{min(os.listdir(PHOTOS / 'roses'))}"
COMMANDS = {
    "classify": f"classify {IMAGE} --model MODEL",
    "score": "score photos --model MODEL --output OUT.csv",
    "score with a store": "score photos --model MODEL --output OUT.csv --store OUT",
    "score in a precision": "score store --model MODEL --output OUT.csv --precision bf16",
    "export": "export MODEL --to tflite --output OUT.tflite",
}
WITHOUT_NETWORK = {
    "score a store": "score store --model MODEL --output OUT.csv",
    "evaluate": "evaluate store --model MODEL --output OUT",
    "labels": "export MODEL --to labels --output OUT.txt",
    "warm start": "train store --model OUT --warm-start MODEL",
    "report": "report MODEL --store store --output OUT.html",
}


def run(command, model, tmp_path, *flags):
    words = command.replace("MODEL", str(model)).replace("OUT", str(tmp_path / "out")).split()
    return cli(*words, *flags)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_no_command_follows_what_a_model_names(command, base, model, name, tmp_path, capsys):
    assert run(command, model, tmp_path) == 1
    said = capsys.readouterr().err
    assert f"the model names the backbone {name!r}, which is not in the catalogue" in said
    assert "load only what you trust" in said
    assert "--backbone-path" in said
    assert not (base / "loaded").exists()
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("name", ["net", "{url}/net"], indirect=True)
@pytest.mark.parametrize("command", WITHOUT_NETWORK.values(), ids=WITHOUT_NETWORK)
def test_what_needs_no_network_loads_none(command, base, model, tmp_path):
    named_as_in_the_store = read_bundle(str(model)).backbone == "net"
    code = run(command, model, tmp_path)
    assert code == int("--warm-start" in command and not named_as_in_the_store)
    assert not (base / "loaded").exists()


@pytest.mark.parametrize(
    "kind", [k if k != "export" else pytest.param(k, marks=pytest.mark.slow) for k in COMMANDS]
)
def test_the_users_own_flag_is_followed(kind, base, tmp_path):
    command = COMMANDS[kind].replace("bf16", "float32")
    assert run(command, "model", tmp_path, "--backbone-path", base / "net", "--trust-backbone") == 0
    # Of a store all vectors are there.
    assert (base / "loaded").exists() == ("score store" not in command)


def test_python_names_the_argument(base, model, name):
    bundle = read_bundle(str(model))
    with pytest.raises(BackboneError, match="argument `backbone`: resolve"):
        backbones_of(bundle)
    images = beam.Pipeline() | beam.Create([])
    for refused in (transforms.ScoreImages(bundle), beam_yaml.ScoreImages(str(model))):
        with pytest.raises(BackboneError, match="argument `backbone`: resolve"):
            images | type(refused).__module__ >> refused
    ScoreModelHandler(str(model)).load_model()
    assert not (base / "loaded").exists()


def test_python_takes_what_is_given(base):
    bundle = read_bundle("model")
    given = {"name": "net", "path": str(base / "net"), "trust": True}
    images = beam.Pipeline() | beam.Create([])
    known = recipes_of_model(bundle)
    images | "Ours" >> transforms.ScoreImages(bundle, resolve(**given, known=known))
    images | "Yaml" >> beam_yaml.ScoreImages("model", backbone=given)


@pytest.mark.parametrize("command", ["classify", "score"])
def test_of_networks_side_by_side_none_is_followed(command, base, name, tmp_path, capsys):
    lite = resolve("efficientnet-lite0")
    bundle = read_bundle(str(base / "model"))
    joined = {
        "backbone": f"{lite.row.name}+{name}",
        "fingerprint": f"{lite.fingerprint}+{bundle.fingerprint}",
    }
    write_bundle(str(tmp_path / "both"), replace(bundle, **joined))
    assert run(COMMANDS[command], tmp_path / "both", tmp_path) == 1
    said = capsys.readouterr().err
    assert f"names the backbone {name!r}, which is not in the catalogue" in said
    assert "by `embed --backbone`, and score the store" in said
    with pytest.raises(BackboneError, match="argument `backbone`: resolve"):
        backbones_of(read_bundle(str(tmp_path / "both")))
    assert not (base / "loaded").exists()


FINE_TUNE = "train STORE --fine-tune photos --fine-tuned OUT --train-epochs 1"


def test_fine_tuning_follows_no_name_of_a_store(base, name, tmp_path, capsys):
    store = foreign_store(base, name, tmp_path / "foreign")
    assert run(FINE_TUNE.replace("STORE", str(store)), "", tmp_path) == 1
    said = capsys.readouterr().err
    assert f"the store names the backbone {name!r}, which is not in the catalogue" in said
    assert "--backbone-path" in said
    assert not (base / "loaded").exists()
