"""The examples that never end, on Prism: images come one after the other, and so do labels."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import make_images
import pytest
import servers
from places import EXAMPLES
from stores import PHOTOS, cli, embed, photos, rejects, rows

from beam_flowers.head.bundle import model_id, read_bundle
from beam_flowers.store.commits import versions

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]
ON_ALL = ("--validation-percentage", "0", "--testing-percentage", "0")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The store of ten photographs, and a model in the folder `models`."""
    base = tmp_path_factory.mktemp("arrivals")
    embed(photos(base / "images", 2), base / "store")
    train(base, "first", 1)
    return base


def train(base, name, seed):
    flags = ("--model", base / "models" / name, "--seed", seed, *ON_ALL)
    assert cli("train", base / "store", *flags) == 0
    return model_id(read_bundle(str(base / "models" / name)))


def arrive(photo, folder, name):
    """Puts an image into a folder as a careful program does: hidden until it is whole."""
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
    """The line about an image, once it is there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        for path in output.glob("*.jsonl"):
            for line in path.read_text().splitlines():
                if json.loads(line)["uri"].endswith(f"/{name}"):
                    return json.loads(line)
        time.sleep(0.2)
    raise AssertionError(f"no line about {name}; the example's exit code: {process.poll()}")


def test_images_are_labelled_as_they_come_and_a_broken_one_is_a_reject(base, tmp_path):
    incoming, output = tmp_path / "in", tmp_path / "out"
    incoming.mkdir()
    roses, tulips = (sorted((PHOTOS / name).iterdir())[0] for name in ("roses", "tulips"))
    command = ("label_arrivals", incoming, base / "models" / "first", output)
    with running(tmp_path / "log", *command) as process:
        arrive(roses, incoming, "one.jpg")
        assert line_of(process, output, "one.jpg")["label"] == "roses"
        (tmp_path / "cut.jpg").write_bytes(make_images.truncated(tulips.read_bytes()))
        arrive(tmp_path / "cut.jpg", incoming / "deep", "two.jpg")
        assert "JPEG ends before its image does" in line_of(process, output, "two.jpg")["reason"]
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


STORE_PIPELINE = """
import sys
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows
import beam_flowers as bf

incoming, store, *flags = sys.argv[1:]
network = bf.resolve("efficientnet-lite0")
with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
    images = pipeline | bf.WatchImages(incoming, 1.0) | beam.WindowInto(FixedWindows(2))
    computed = images | bf.ComputeEmbeddings(network)
    (computed.embeddings, computed.rejects) | bf.WriteStore(store, network)
"""


def test_each_window_is_committed_into_a_store_with_its_rejects(tmp_path):
    incoming, store = tmp_path / "in", tmp_path / "store"
    incoming.mkdir()
    (tmp_path / "pipeline.py").write_text(STORE_PIPELINE)
    roses, tulips = (sorted((PHOTOS / name).iterdir())[0] for name in ("roses", "tulips"))
    with running(tmp_path / "log", tmp_path / "pipeline", incoming, store) as process:
        arrive(roses, incoming, "one.jpg")
        wait_until(process, lambda: len(versions(str(store))) == 1)
        (tmp_path / "text.jpg").write_bytes(make_images.TEXT)
        arrive(tmp_path / "text.jpg", incoming, "two.jpg")
        wait_until(process, lambda: len(versions(str(store))) == 2)
        arrive(tulips, incoming, "three.jpg")
        wait_until(process, lambda: len(rows(store)) == 2)
        assert rejects(store) == {str(incoming / "two.jpg"): "NotAnImage"}
        assert process.poll() is None


def wait_until(process, is_so, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if is_so():
            return
        time.sleep(0.2)
    raise AssertionError(f"it did not come to be; the pipeline's exit code: {process.poll()}")
