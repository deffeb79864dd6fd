"""Networks that are fetched from a Hub: here a server of this machine."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from stores import cli

pytest.importorskip("onnx", reason="pip install 'beam-flowers[test]'")

from onnx_networks import VIT, Maker, publish, vit

from beam_flowers.backbones import engine, huggingface
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import BackboneError

COMMIT, LATER = "a" * 40, "b" * 40
MAIN = "hf://org/tiny-vit@main"


class Hub(BaseHTTPRequestHandler):
    """Answers as the Hub does, of `server.revisions`: contents by name, by commit."""

    def do_GET(self):
        self.server.asked.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if self.server.status:
            self.send_error(self.server.status)
        elif parts[:4] == ["api", "models", "org", "tiny-vit"] and parts[4] == "revision":
            commit = self.server.branches.get(parts[5], parts[5])
            siblings = [self.sibling(*one) for one in self.server.revisions[commit].items()]
            about = {"sha": commit, "siblings": siblings, "tags": ["onnx", "license:mit"]}
            self.answer(json.dumps(about).encode())
        elif parts[:3] == ["org", "tiny-vit", "resolve"]:
            self.answer(self.server.revisions[parts[3]]["/".join(parts[4:])], self.server.cut)
        else:
            self.send_error(404)

    def sibling(self, name, content):
        about = {"rfilename": name, "size": len(content), "blobId": "0" * 40}
        if name in self.server.large:
            digest = self.server.large[name] or hashlib.sha256(content).hexdigest()
            about["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
        return about

    def answer(self, content, cut=0):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: cut or None])

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """The files of a network with external data, by their names."""
    folder = tmp_path_factory.mktemp("published")
    publish(folder, vit(blocks=1), VIT, data="model.onnx_data")
    publish(folder, vit(blocks=1, seed=1), VIT, file="onnx/model_small.onnx")
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return found | {"README.md": b"A network."}


@pytest.fixture
def server(tmp_path, monkeypatch, contents):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked, server.status, server.cut = [], 0, 0
        server.branches, server.revisions = {"main": COMMIT}, {COMMIT: dict(contents)}
        server.large = {"onnx/model.onnx": "", "onnx/model.onnx_data": ""}
        monkeypatch.setenv(huggingface.ENDPOINT, f"http://127.0.0.1:{server.server_port}/")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.shutdown()


def nothing(line):
    pass


def test_a_network_is_installed_and_used_by_its_address(server, capsys):
    assert cli("backbones", "--install", MAIN) == 0
    assert "--backbone hf://org/tiny-vit@main" in capsys.readouterr().out
    assert not any("README" in path for path in server.asked)
    asked = len(server.asked)
    backbone = resolve(MAIN)
    assert backbone.row.name == "tiny-vit"
    assert engine.load(backbone).vector_length == 48
    assert cli("backbones", "--install", MAIN) == 0
    assert "is there already" in capsys.readouterr().out
    assert len(server.asked) == asked


def test_the_lock_file_says_what_was_fetched(server, tmp_path, contents):
    folder = tmp_path / "nets" / "tiny"
    lines = []
    assert huggingface.install(MAIN, str(folder), lines.append) == str(folder)
    lock = json.loads((folder / huggingface.LOCK).read_text())
    assert (lock["source"], lock["commit"], lock["licence"]) == (MAIN, COMMIT, "mit")
    wanted = {"preprocessor_config.json", "onnx/model.onnx", "onnx/model.onnx_data"}
    assert set(lock["files"]) == wanted
    for name, about in lock["files"].items():
        expected = hashlib.sha256(contents[name]).hexdigest()
        assert about == {"sha256": expected, "bytes": len(contents[name])}
        assert (folder / name).read_bytes() == contents[name]
        assert any(expected in line for line in lines)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["tiny"]


def test_a_lock_file_gets_its_commit_although_the_branch_moved(server, tmp_path, contents):
    huggingface.install(MAIN, str(tmp_path / "first"), nothing)
    server.revisions[LATER] = {**contents, "preprocessor_config.json": b"{}"}
    server.branches["main"] = LATER
    (tmp_path / "again").mkdir()
    lock = (tmp_path / "first" / huggingface.LOCK).read_bytes()
    (tmp_path / "again" / huggingface.LOCK).write_bytes(lock)
    huggingface.install(MAIN, str(tmp_path / "again"), nothing)
    for name in ("preprocessor_config.json", "onnx/model.onnx_data", huggingface.LOCK):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_other_bytes_than_the_lock_files_are_refused(server, tmp_path, contents):
    huggingface.install(MAIN, str(tmp_path / "first"), nothing)
    other = json.dumps(VIT | {"resample": 3}).encode()
    server.revisions[COMMIT]["preprocessor_config.json"] = other
    (tmp_path / "again").mkdir()
    lock = (tmp_path / "first" / huggingface.LOCK).read_bytes()
    (tmp_path / "again" / huggingface.LOCK).write_bytes(lock)
    with pytest.raises(BackboneError, match="is not what the lock file says: nothing was written"):
        huggingface.install(MAIN, str(tmp_path / "again"), nothing)
    assert [path.name for path in (tmp_path / "again").iterdir()] == [huggingface.LOCK]


def test_another_file_is_named_after_the_revision(server):
    address = f"{MAIN}/onnx/model_small.onnx"
    assert cli("backbones", "--install", address) == 0
    backbone = resolve("small", path=address)
    assert backbone.path.endswith("tiny-vit/onnx/model_small.onnx")
    assert resolve(address).row.name == "tiny-vit-small"


def test_a_damaged_file_is_named_and_replaced_by_nobody(server, tmp_path):
    folder = tmp_path / "net"
    huggingface.install(MAIN, str(folder), nothing)
    (folder / "onnx" / "model.onnx_data").write_bytes(b"mine")
    with pytest.raises(BackboneError, match=r"model\.onnx_data' is not what its lock file says"):
        huggingface.install(MAIN, str(folder), nothing)
    assert (folder / "onnx" / "model.onnx_data").read_bytes() == b"mine"


def test_files_of_the_user_stay(server, tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "preprocessor_config.json").write_text("mine")
    with pytest.raises(BackboneError, match=r"preprocessor_config\.json' is not what"):
        huggingface.install(MAIN, str(folder), nothing)
    assert [path.read_text() for path in folder.rglob("*")] == ["mine"]


def evil():
    m = Maker(0)
    m.node("Evil", "pixel_values", name="pooler_output", domain="my.ops")
    return m.model({"pooler_output": ("batch", 3)}).SerializeToString()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: setattr(s, "cut", 40), r"ended after 40 of [\d,]+ bytes"),
        (lambda s: setattr(s, "status", 404), "cannot be fetched: HTTPError"),
        (lambda s: setattr(s, "status", 401), "its page asks for a login"),
        (lambda s: s.large.update({"onnx/model.onnx": "0" * 64}), "the Hub says 0000"),
        (lambda s: s.revisions[COMMIT].pop("onnx/model.onnx_data"), r"no file 'onnx/model\.onnx_d"),
        (lambda s: s.revisions[COMMIT].pop("preprocessor_config.json"), "no file 'preprocessor"),
        (lambda s: s.revisions[COMMIT].pop("onnx/model.onnx"), r"name one of onnx/model_small\.on"),
        (lambda s: s.revisions[COMMIT].update({"onnx/model.onnx": evil()}), "operator 'Evil'"),
        (lambda s: s.branches.update({"main": "no commit"}), "is damaged"),
    ],
)
def test_what_cannot_be_fetched_leaves_nothing(server, tmp_path, change, message):
    if message == "is damaged":
        server.revisions["no commit"] = server.revisions[COMMIT]
    change(server)
    with pytest.raises(BackboneError, match=message):
        huggingface.install(MAIN, str(tmp_path / "nets" / "net"), nothing)
    assert not list((tmp_path / "nets").iterdir())


def test_a_hub_that_is_not_there_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv(huggingface.ENDPOINT, "http://127.0.0.1:9")
    with pytest.raises(BackboneError, match=r"cannot be fetched.*give their folder"):
        huggingface.install(MAIN, str(tmp_path / "net"), nothing)


def test_a_hub_without_encryption_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setenv(huggingface.ENDPOINT, "http://hub.example")
    with pytest.raises(BackboneError, match="over anything but https"):
        huggingface.install(MAIN, str(tmp_path / "net"), nothing)


def test_an_address_that_is_not_installed_says_how(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BackboneError, match="backbones --install hf://org/tiny-vit@main fetches"):
        resolve(MAIN)


@pytest.mark.parametrize(
    "address",
    [
        "hf://org/net",
        "hf://net@main",
        "hf://org/net@",
        "hf://org/../net@main",
        "hf://org/net@..",
        "hf://org/net@main/../../x.onnx",
        "hf://org/net@main//etc/x.onnx",
        "hf://org/net@main/onnx/model.bin",
        "hf://org/net@main?x=1",
    ],
)
def test_other_addresses_are_refused(address):
    with pytest.raises(BackboneError, match="is no address of a network: give hf://ORG/REPO@REV"):
        resolve(address)


def test_two_commands_at_once_are_refused(capsys):
    assert cli("backbones", "--install", MAIN, "--measure", "efficientnet-lite0") == 1
    assert "exclude each other" in capsys.readouterr().err
