"""Workers that are not set up as the driver is: one clear error, no image read, no commit."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import servers
from stores import photos

import beam_flowers
from beam_flowers.store.commits import versions
from beam_flowers.transforms.preflight import PATIENCE

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]


@pytest.fixture
def folder(tmp_path):
    return photos(tmp_path / "images", 1)


@pytest.fixture
def store(tmp_path):
    (tmp_path / "stores").mkdir()
    return tmp_path / "stores" / "store"


def said_by(command, *arguments):
    """What a command that fails says."""
    done = subprocess.run(
        [*servers.COMMAND, command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 1, done
    return done.stderr


def assert_refused(said, store):
    assert "nothing was committed" in said
    assert "Mend it there" in said
    assert not versions(str(store))
    assert not list(store.rglob("*part-*"))
    assert not list(store.rglob("*rejects-*"))


def test_another_state_of_the_package(tmp_path, folder, store, prism):
    doctored = tmp_path / "doctored"
    shutil.copytree(Path(beam_flowers.__file__).parent, doctored / "beam_flowers")
    with (doctored / "beam_flowers" / "records.py").open("a") as file:
        file.write("# Another state.\n")
    with servers.worker_pool(tmp_path / "log", PYTHONPATH=str(doctored)) as pool:
        flags = servers.external(prism, pool)
        said = said_by("embed", folder, "--store", store, *flags)
        assert_refused(said, store)
        assert (
            len(re.findall("beam-flowers is sources .{8} there and sources .{8} here", said)) == 1
        )
        said = said_by("check", folder, "--store", store, *flags)
        assert "beam-flowers is sources" in said


def hidden(folder):
    """What makes a pool see an empty folder in the place of `folder`."""
    shell = f"mount -t tmpfs none '{folder}' && exec \"$@\""
    wrapped = ["unshare", "--map-root-user", "--mount", "sh", "-c", shell, "sh"]
    tried = subprocess.run([*wrapped, "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no name space of one's own here: {tried.stderr}")
    return wrapped


def test_a_store_that_workers_do_not_see(tmp_path, folder, store, prism):
    with servers.worker_pool(tmp_path / "log", hidden(store.parent)) as pool:
        flags = servers.external(prism, pool)
        said = said_by("embed", folder, "--store", store, *flags)
        assert_refused(said, store)
        assert f"it does not see {store} as this machine does" in said
        assert str(store) in said_by("check", folder, "--store", store, *flags)


def test_images_that_workers_do_not_see(tmp_path, folder, store, prism):
    with servers.worker_pool(tmp_path / "log", hidden(folder)) as pool:
        flags = servers.external(prism, pool)
        said = said_by("embed", folder, "--store", store, *flags)
        assert_refused(said, store)
        assert f"it does not see the images in {folder}" in said
        assert "cannot read" in said_by("check", folder, "--store", store, *flags)


@pytest.mark.parametrize("script", ["exit 1", "sleep 1000"], ids=str)
def test_a_pool_whose_python_is_another(tmp_path, folder, store, prism, script, monkeypatch):
    wrong = tmp_path / "bin" / "python"
    wrong.parent.mkdir()
    wrong.write_text(f"#!/bin/sh\n{script}\n")
    wrong.chmod(0o755)
    monkeypatch.setenv(PATIENCE, "10")
    path = f"{wrong.parent}:{os.environ['PATH']}"
    with servers.worker_pool(tmp_path / "log", PATH=path) as pool:
        said = said_by("embed", folder, "--store", store, *servers.external(prism, pool))
    assert "no worker gave a sign of life for 10 seconds" in said
    assert "`python` is one without Beam" in said
