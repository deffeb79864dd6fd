"""The examples that never end, on Prism: pictures come one after the other, and so do labels."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pictures
import pytest
import servers
from places import EXAMPLES
from stores import PHOTOS, cli, embed, photos

from beam_flowers.head.bundle import model_id, read_bundle

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]
ON_ALL = ("--validation-percentage", "0", "--testing-percentage", "0")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The store of ten photographs, and a model in the folder `models`."""
    base = tmp_path_factory.mktemp("arrivals")
    embed(photos(base / "pictures", 2), base / "store")
    train(base, "first", 1)
    return base


def train(base, name, seed):
    flags = ("--model", base / "models" / name, "--seed", seed, *ON_ALL)
    assert cli("train", base / "store", *flags) == 0
    return model_id(read_bundle(str(base / "models" / name)))


def arrive(photo, folder, name):
    """Puts a picture into a folder as a careful program does: hidden until it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(photo, folder / f".{name}")
    os.rename(folder / f".{name}", folder / name)


@contextmanager
def running(log, name, *arguments):
    """An example on Prism, which is over when the test is."""
    prism = servers.program(servers.PRISM)
    flags = ["--runner=PrismRunner", f"--prism_location={prism}", "--streaming", "--seconds=2"]
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments), *flags]
    with log.open("wb") as file:
        process = subprocess.Popen(command, start_new_session=True, stderr=file)
    try:
        yield process
    finally:
        servers.end(process)


def line_of(process, output, name, seconds=120):
    """The line about a picture, once it is there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        for path in output.glob("*.jsonl"):
            for line in path.read_text().splitlines():
                if json.loads(line)["uri"].endswith(f"/{name}"):
                    return json.loads(line)
        time.sleep(0.2)
    raise AssertionError(f"no line about {name}; the example's exit code: {process.poll()}")


def test_pictures_are_labelled_as_they_come_and_a_broken_one_is_a_reject(base, tmp_path):
    incoming, output = tmp_path / "in", tmp_path / "out"
    incoming.mkdir()
    roses, tulips = (sorted((PHOTOS / name).iterdir())[0] for name in ("roses", "tulips"))
    command = ("label_arrivals", incoming, base / "models" / "first", output)
    with running(tmp_path / "log", *command) as process:
        arrive(roses, incoming, "one.jpg")
        assert line_of(process, output, "one.jpg")["label"] == "roses"
        (tmp_path / "cut.jpg").write_bytes(pictures.truncated(tulips.read_bytes()))
        arrive(tmp_path / "cut.jpg", incoming / "deep", "two.jpg")
        assert "JPEG ends before its picture does" in line_of(process, output, "two.jpg")["reason"]
        arrive(tulips, incoming / "deep", "three.jpg")
        assert line_of(process, output, "three.jpg")["label"] == "tulips"
        assert process.poll() is None


def test_a_model_trained_meanwhile_takes_over(base, tmp_path):
    incoming, output = tmp_path / "in", tmp_path / "out"
    incoming.mkdir()
    first = model_id(read_bundle(str(base / "models" / "first")))
    photo = sorted((PHOTOS / "roses").iterdir())[0]
    command = ("refresh_model", incoming, base / "models", output / "labels")
    with running(tmp_path / "log", *command) as process:
        arrive(photo, incoming / "a", "one.jpg")
        found = line_of(process, output, "one.jpg")
        assert (found["folder"], found["model_id"]) == ("a", first)
        second = train(base, "second", 2)
        time.sleep(2)
        arrive(photo, incoming / "b", "two.jpg")
        found = line_of(process, output, "two.jpg")
        assert (found["folder"], found["model_id"]) == ("b", second)
    assert first != second
