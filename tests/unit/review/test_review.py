"""The review page: what is asked, what is written, who may ask."""

import hashlib
import http.client
import socket
import threading
import webbrowser
from pathlib import Path
from urllib.parse import urlsplit

import make_images
import numpy as np
import pytest
from report_cases import HOSTILE, LABELS, image_path, make_model, make_scores, make_store, rows
from stores import cli

from beam_flowers import files
from beam_flowers.cli.review import opened
from beam_flowers.errors import InputError
from beam_flowers.head.bundle import read_bundle
from beam_flowers.head.corrections import read_corrections
from beam_flowers.review.app import make_app
from beam_flowers.review.decisions import Decision, Decisions
from beam_flowers.review.serve import ReviewJob, reviewing
from beam_flowers.review.session import Candidate, Session, least_sure_first
from beam_flowers.scoring.read_table import ScoreTable, read_scores

pytest.importorskip("flask", reason="the report's extra is not installed")
TOKEN = "secret"


def candidates(folder, count=4):
    for i in range(count):
        data = make_images.jpeg(seed=i)
        path = folder / f"{i} <b>.jpg"
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        yield Candidate(str(path), sha256, [("ant", 0.6), ("bee", 0.4)])


@pytest.fixture
def session(tmp_path):
    return Session(list(candidates(tmp_path)), ("ant", "bee"), Decisions(str(tmp_path / "fix.csv")))


@pytest.fixture
def client(session, tmp_path):
    return make_app(session, TOKEN, str(tmp_path / "fix.csv"), "train").test_client()


def number(session):
    return session.state()["image"]["number"]


def test_images_come_by_margin_and_each_content_once():
    table = ScoreTable(
        "t.csv",
        ["/a", "/b", "/c", "/copy-of-b"],
        ["1", "2", "3", "2"],
        ["x"] * 4,
        np.array([0.9, 0.5, 0.6, 0.5]),
        [[("x", 0.9), ("y", 0.1)], [("x", 0.5), ("y", 0.45)], [("x", 0.6)], [("x", 0.5)]],
        "m",
        ("x", "y"),
        [],
    )
    assert [c.uri for c in least_sure_first(table)] == ["/b", "/c", "/a"]


def test_a_session_from_the_first_to_the_last(session, tmp_path):
    session.decide(number(session), "bee")
    session.skip(number(session))
    session.decide(number(session), '  new, "label" 玫瑰 ')
    session.decide(number(session), "")
    assert number(session) == 1  # The one that was skipped.
    session.decide(1, "ant")
    state = session.state()
    assert (state["image"], state["done"], state["total"]) == (None, 4, 4)
    labels = [row["label"] for row in rows(tmp_path / "fix.csv")]
    assert labels == ["bee", 'new, "label" 玫瑰', "", "ant"]
    assert [label["label"] for label in state["labels"]] == ["ant", "bee", 'new, "label" 玫瑰']


def test_undo_goes_back_step_by_step(session, tmp_path):
    session.decide(0, "bee")
    session.skip(1)
    session.undo()
    assert number(session) == 1
    session.undo()
    assert (number(session), rows(tmp_path / "fix.csv")) == (0, [])
    session.undo()
    assert number(session) == 0
    assert not session.state()["undo"]


def test_a_later_session_goes_on_and_can_undo_the_earlier_one(tmp_path):
    found, output = list(candidates(tmp_path)), str(tmp_path / "fix.csv")
    first = Session(found, ("ant", "bee"), Decisions(output))
    first.decide(0, "bee")
    first.decide(1, "cat")
    other = Decision("f" * 64, "/elsewhere/image.jpg", "dog")
    Decisions(output).add(other)
    second = Session(found, ("ant", "bee"), Decisions(output))
    state = second.state()
    assert (number(second), state["done"], state["saved"]) == (2, 2, 3)
    assert [x["label"] for x in state["labels"]] == ["ant", "bee", "cat", "dog"]
    second.undo()
    assert number(second) == 1
    assert [row["label"] for row in rows(output)] == ["bee", "dog"]


@pytest.mark.parametrize("label", ["two\nlines", "x" * 201, "\x00"])
def test_what_is_no_label(session, label):
    with pytest.raises(InputError, match="a label is"):
        session.decide(0, label)
    with pytest.raises(InputError, match="no image 99"):
        session.decide(99, "ant")


def test_keys_never_stand_for_two_things(tmp_path):
    many = [f"l{i}" for i in range(40)]
    session = Session(list(candidates(tmp_path)), many, Decisions(str(tmp_path / "fix.csv")))
    labels = session.state()["labels"]
    keys = [label["key"] for label in labels if label["key"]]
    assert len(labels) == 40
    assert len(keys) == len(set(keys)) == 31
    assert not {"s", "x", "u", "n"} & set(keys)


@pytest.mark.parametrize(
    ("text", "message"),
    [("uri,label\n/a,b\n", "name another --output"), ("", "cannot be read"), ("\xff", "columns")],
)
def test_a_file_of_somebody_else_is_left_alone(tmp_path, text, message):
    (tmp_path / "fix.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        Decisions(str(tmp_path / "fix.csv"))
    assert (tmp_path / "fix.csv").read_text() == text
    with pytest.raises(InputError, match=r"ends in \.csv"):
        Decisions(str(tmp_path / "fix.parquet"))


def test_what_is_not_written_is_not_said_to_be(session, client, tmp_path, monkeypatch):
    def full(uri, data):
        raise OSError(28, "No space left on device", uri)

    monkeypatch.setattr(files, "write_atomic", full)
    answer = client.post(f"/{TOKEN}/decide", json={"number": 0, "label": "ant"})
    assert answer.status_code == 400
    assert "not saved" in answer.json["error"]
    assert "No space left" in answer.json["error"]
    assert (number(session), session.state()["done"]) == (0, 0)
    assert not (tmp_path / "fix.csv").exists()


@pytest.mark.parametrize(
    "path", ["/", "/state", "/wrong/", "/wrong/state", "/wrong/image/0", f"/{TOKEN}x/state"]
)
def test_another_token_is_refused(client, path):
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert client.post("/wrong/decide", json={"number": 0, "label": "x"}).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_another_host_is_refused(client, host):
    assert client.get(f"/{TOKEN}/state", headers={"Host": host}).status_code in (400, 404)
    assert client.get(f"/{TOKEN}/state", headers={"Host": "127.0.0.1:81"}).status_code == 200


def test_only_json_is_acted_on(session, client):
    data = {"number": "0", "label": "ant"}
    assert client.post(f"/{TOKEN}/decide", data=data).status_code == 415
    for body in ({}, {"number": "0", "label": "a"}, {"number": 0}, {"number": 77, "label": "a"}):
        assert client.post(f"/{TOKEN}/decide", json=body).status_code == 400
    assert client.get(f"/{TOKEN}/decide").status_code in (404, 405)
    assert session.state()["done"] == 0


def test_pages_and_images(client, tmp_path):
    for name, kind in (("", "html"), ("review.js", "javascript"), ("review.css", "css")):
        answer = client.get(f"/{TOKEN}/{name}")
        assert (answer.status_code, kind in answer.content_type) == (200, True)
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"
    answer = client.get(f"/{TOKEN}/image/0")
    assert answer.data[8:12] == b"WEBP"
    (tmp_path / "1 <b>.jpg").write_bytes(make_images.jpeg(seed=50))
    (tmp_path / "2 <b>.jpg").unlink()
    for i, reason in ((1, "changed"), (2, "No such file"), (9, "no such image")):
        answer = client.get(f"/{TOKEN}/image/{i}")
        assert answer.status_code in (404, 410)
        assert reason in answer.text
        assert answer.content_type.startswith("text/") or i == 9


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    base = tmp_path_factory.mktemp("review")
    make_store(base, 90)
    make_model(base)
    make_scores(base)
    return base


def test_the_page_answers_on_this_machine_alone(scored, tmp_path):
    job = ReviewJob(str(scored / "scores.csv"), str(tmp_path / "fix.csv"))
    with reviewing(job) as found:
        thread = threading.Thread(target=found.server.serve_forever)
        thread.start()
        parts = urlsplit(found.url)
        try:
            connection = http.client.HTTPConnection(parts.hostname, parts.port)
            connection.request("GET", f"{parts.path}state")
            assert connection.getresponse().status == 200
            assert found.server.socket.getsockname()[0] == "127.0.0.1"
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.2", parts.port), 1)
        finally:
            found.server.shutdown()
            thread.join()
    assert len(parts.path) > 20


def test_the_loop_score_review_train(scored, tmp_path, capsys):
    """A new name for a label, by the page's own functions; newlines and markup in the names."""
    table, output = read_scores(str(scored / "scores.csv")), str(tmp_path / "fix.csv")
    session = Session(least_sure_first(table), table.names, Decisions(output))
    odd = str(image_path(scored, 7))
    while now := session.state()["image"]:
        label = now["ranking"][0]["label"]
        session.decide(now["number"], "renamed" if label == HOSTILE else label)
    assert len(read_corrections(output).labels) == 90
    assert odd in [row["uri"] for row in rows(output)]
    code = cli(
        "train", scored / "store", "--model", tmp_path / "again", "--labels", output
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    assert set(read_bundle(str(tmp_path / "again")).labels) == {*LABELS[1:], "renamed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.csv",), "is not there; name a feature store"),
        (("scores.csv", "--port", "70000"), "a port is"),
        (("scores.csv", "--runner", "FnApiRunner"), "runs no pipeline"),
    ],
)
def test_what_cannot_be_reviewed(scored, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(scored)
    assert cli("review", *arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "message"), [("fix.txt", "ends in .csv"), ("scores.csv", "is an input")]
)
def test_outputs_of_a_review_that_cannot_be(scored, output, message, capsys, monkeypatch):
    monkeypatch.chdir(scored)
    kept = (scored / "scores.csv").read_bytes()
    assert cli("review", "scores.csv", "--output", output) == 2
    assert message in capsys.readouterr().err
    assert (scored / "scores.csv").read_bytes() == kept


def test_a_taken_port_is_told(scored, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        job = ReviewJob(str(scored / "scores.csv"), str(tmp_path / "fix.csv"), port)
        with pytest.raises(InputError, match=f"port {port} cannot be used"), reviewing(job):
            pass


NO_OBJECTS = ["[]", "null", "1", '"text"', "true", "[" * 30_000]


@pytest.mark.parametrize(
    ("action", "data"),
    [
        *((action, data) for action in ("decide", "skip", "undo") for data in NO_OBJECTS),
        *((action, '{"number": true, "label": "bee"}') for action in ("decide", "skip")),
    ],
)
def test_what_is_no_decision_changes_nothing(client, session, action, data):
    """It would end the thread, and `true` label image 1."""
    before = session.state()
    answer = client.post(f"/{TOKEN}/{action}", data=data, content_type="application/json")
    assert answer.status_code == 400
    assert session.state() == before


def test_the_secret_is_on_no_command_line(monkeypatch):
    """Every user of the machine sees the arguments of a browser, and could label with them."""
    commands = []

    def open_(address):
        path = Path(urlsplit(address).path)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        commands.append((address, path.read_text()))
        return True

    monkeypatch.setattr(webbrowser, "open", open_)
    with opened(f"http://127.0.0.1:1/{TOKEN}/"):
        ((address, page),) = commands
        assert TOKEN not in address
        assert f"url=http://127.0.0.1:1/{TOKEN}/" in page
    assert not Path(urlsplit(address).path).exists()
