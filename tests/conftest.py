"""Collections that several tests look at."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

import hypothesis
import pytest
from stores import embed, photos

import beam_flowers
from beam_flowers.backbones.tf_runtime import tensorflow
from beam_flowers.cli.main import main
from beam_flowers.head.split import retrain_split

FLOWERS = Path(beam_flowers.__file__).parent / "data" / "flowers"


def pytest_configure():
    """Gives the tests a cache of their own, and Ctrl-C to the commands that they start.

    Before any module of tests is imported: nothing reads what an earlier run left, as networks
    that other code has built.
    """
    users = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    os.environ.setdefault("BEAM_FLOWERS_USERS_CACHE", users)
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="beam-flowers-tests-")
    # Examples that failed are in the report, not in a folder that the next run reads.
    hypothesis.settings.register_profile("ours", database=None, deadline=None)
    hypothesis.settings.load_profile("ours")
    # A shell may ignore Ctrl-C for this process.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure():
    """Deletes that cache."""
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def original(tmp_path_factory):
    """A folder `images` of ten photographs and the folder `store` made of them."""
    base = tmp_path_factory.mktemp("embed")
    assert embed(photos(base / "images"), base / "store").embedded == 10
    return base


@pytest.fixture
def work(original):
    """The same two folders at the same path, to be changed; put back afterwards."""
    kept = original.with_name(original.name + "-kept")
    shutil.copytree(original, kept, symlinks=True)
    yield original
    shutil.rmtree(original)
    kept.rename(original)


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """Two folders: in `work` the blocks of the docs run, in `ready` lie the store and the model
    that many pages begin with."""
    # retrain.py's split goes by the whole path: in one folder of 300 a side of it has no image.
    while not has_all_sides((base := tmp_path_factory.mktemp("pages")) / "work"):
        pass
    store, model = str(base / "ready" / "store"), str(base / "ready" / "model")
    assert main(["embed", str(base / "work" / "photos"), "--store", store]) == 0
    assert main(["train", store, "--model", model]) == 0
    return base


@pytest.fixture
def reader(pages, monkeypatch):
    """The working folder, as a reader of the docs has it at the top of a page."""
    shutil.rmtree(pages / "work")
    photographs(pages / "work")
    monkeypatch.chdir(pages / "work")
    return pages / "work"


def has_all_sides(folder):
    """Puts the photographs there; whether retrain.py's split has some of them on each side."""
    photographs(folder)
    photos = [str(p) for p in folder.glob("photos/*/*") if p.name != "broken.jpg"]
    return len(set(retrain_split(photos, 10, 10).tolist())) == 3


def photographs(folder):
    """What a reader has: photographs by label, a broken one, further ones, two on their own."""
    for label in sorted((FLOWERS / "labelled").iterdir()):
        (folder / "photos" / label.name).mkdir(parents=True)
        for photo in sorted(label.iterdir())[:12]:
            shutil.copy2(photo, folder / "photos" / label.name)
    (folder / "photos" / "roses" / "broken.jpg").write_bytes(photo.read_bytes()[:9000])
    shutil.copytree(FLOWERS / "unseen", folder / "more-photos")
    shutil.copy2(photo, folder / "one.jpg")
    shutil.copy2(photo, folder / "another.png")


@pytest.fixture(scope="session")
def tf():
    """TensorFlow, as the package loads it."""
    return tensorflow()


@pytest.fixture(scope="session")
def keras(tf):
    """Keras on TensorFlow."""
    import keras

    return keras


def pytest_addoption(parser):
    """The engine that `tests/engines` runs on, instead of those that it starts itself."""
    group = parser.getgroup("engines")
    group.addoption("--job-endpoint", help="HOST:PORT of a job server")
    group.addoption("--runner", help="FlinkRunner, SparkRunner, ...")
    group.addoption("--environment-type", help="EXTERNAL, PROCESS, LOOPBACK, ...")
    group.addoption("--environment-config", help="as Beam's flag")
    group.addoption("--beam-flag", action="append", default=[], help="any other --name=value")
