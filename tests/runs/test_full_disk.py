"""Disks that are full or may not be written: the message has the file, the cause and a cure."""

import builtins
import errno
import os
import re
import shlex
import sqlite3
import subprocess

import make_images
import pytest
from stores import cli, embed, rejects, rows, scenes

from beam_flowers.files import local
from beam_flowers.workflows import embed as workflow

CURES = {
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the disk is full: make room",
    errno.EROFS: "that disk is mounted read-only: mount it for writing",
    errno.EACCES: "it may not be written or read by you: change its rights",
    errno.EIO: "the disk or the network gave an error",
}
WRITES = {
    "the driver": "units.parquet",
    "a worker": "/part-",
    "an outcome of a worker": "/outcomes/",
    "the commit step": "/00000001.json",
}


def fails(monkeypatch, name, code):
    """Lets writing a file of that name fail as `write()` does, which names no file."""

    def opened(path, mode="r", *arguments):
        if mode != "rb" and name in str(path).replace("/.", "/"):
            raise OSError(code, os.strerror(code))
        return builtins.open(path, mode, *arguments)

    monkeypatch.setattr(local, "open", opened, raising=False)


CASES = [
    *((where, errno.ENOSPC) for where in WRITES),
    *(("a worker", code) for code in CURES if code != errno.ENOSPC),
]


@pytest.mark.slow
@pytest.mark.parametrize(("where", "code"), CASES)
def test_file_cause_and_cure_are_named(tmp_path, monkeypatch, capsys, where, code):
    written = WRITES[where]
    images, store = scenes(tmp_path / "images", 3), tmp_path / "a store"
    with monkeypatch.context() as patched:
        fails(patched, written, code)
        assert cli("embed", images, "--store", store) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "Errno" in line]
    assert re.search(rf": '{store}/__[^']*{written}[^']*'; ", said)
    assert os.strerror(code) in said
    assert CURES[code] in said
    assert "Traceback" not in said
    assert "RuntimeError" not in said
    assert "while running" not in said
    if code == errno.ENOSPC:
        assert f"`beam-flowers vacuum '{store}' --older-than 0`" in said
    assert cli("embed", images, "--store", store) == 0
    assert len(rows(store)) == 3


def test_a_full_disk_for_temporary_files_is_named(tmp_path, monkeypatch, capsys):
    class Small(workflow.Ledger):
        def __init__(self):
            super().__init__()
            self._db.execute("PRAGMA max_page_count = 12")

    images = scenes(tmp_path / "images", 100)
    monkeypatch.setattr(workflow, "Ledger", Small)
    assert cli("embed", images, "--store", tmp_path / "store") == 1
    said = capsys.readouterr().err
    assert "is full, which holds temporary files: make room there, or set TMPDIR" in said
    with pytest.raises(sqlite3.OperationalError, match="is full"):
        embed(images, tmp_path / "store")


@pytest.fixture
def disk(tmp_path):
    """A file system of 300 KB, which needs an administrator."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def vacuum_named(said):
    (command,) = re.findall("`beam-flowers (vacuum [^`]*)`", said)
    return shlex.split(command)


@pytest.mark.slow
def test_what_a_full_disk_names_makes_room_for_the_run(disk, tmp_path, capsys):
    images, store = scenes(tmp_path / "images", 20), disk / "store"
    embed(images, store)
    code = 0
    for seed in range(20):
        for image in images.iterdir():
            image.write_bytes(make_images.jpeg(48, 50, 1000 + 100 * seed + int(image.stem)))
        capsys.readouterr()
        code = cli("embed", images, "--store", store)
        if code:
            break
    said = capsys.readouterr().err
    assert code == 1
    assert f"No space left on device: '{store}/" in said
    assert cli(*vacuum_named(said)) == 0
    assert cli("embed", images, "--store", store) == 0
    assert len(rows(store)) == 20
    assert not rejects(store)


def test_a_disk_that_is_mounted_read_only_is_named(disk, tmp_path, capsys):
    images, store = scenes(tmp_path / "images", 2), disk / "store"
    embed(images, store)
    scenes(tmp_path / "images" / "more", 3)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    commands = [
        ("embed", images, "--store", store),
        ("embed", images, "--store", store, "--encoding", "plain"),
        ("forget", store, images),
        ("restore", store, 1),
        ("vacuum", store, "--older-than", "0"),
    ]
    for command in commands:
        assert cli(*command) == 1
        said = capsys.readouterr().err
        assert f"Read-only file system: '{store}/__" in said
        assert CURES[errno.EROFS] in said
    assert cli("history", store) == 0
    assert len(rows(store)) == 2
