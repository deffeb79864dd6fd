"""Runs that share a table, and which of them is the last."""

import subprocess
import sys

import pytest

from beam_flowers.store import presence as presences
from beam_flowers.store.names import is_reserved_file
from beam_flowers.store.presence import Presence, present


def test_the_last_one_to_leave_is_told_so(tmp_path):
    table = str(tmp_path / "table")
    first, second, third = (Presence(table) for _ in range(3))
    assert not second.leave()
    assert not first.leave()
    assert third.is_there()
    assert third.leave()
    assert third.leave()
    assert not third.is_there()


def test_who_was_killed_is_not_present(tmp_path):
    table = str(tmp_path / "table")
    own = Presence(table)
    script = (
        "import os, signal, sys\n"
        "from beam_flowers.store.presence import Presence\n"
        "presence = Presence(sys.argv[1]); print('there', flush=True)\n"
        "sys.stdin.read(1); os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, table],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "there\n"
        assert not own.leave()
        process.stdin.write("x")
        process.stdin.flush()
        process.wait()
    names = [path.name for path in (tmp_path / "table" / "__work").iterdir()]
    assert len(names) == 1
    assert is_reserved_file(f"__work/{names[0]}")
    assert own.leave()


def test_nothing_stays_of_a_table_that_was_not_begun(tmp_path):
    with present(str(tmp_path / "table")):
        assert (tmp_path / "table").is_dir()
    assert not (tmp_path / "table").exists()
    with present(str(tmp_path / "table")):
        (tmp_path / "table" / "more").mkdir()
    assert [path.name for path in (tmp_path / "table").iterdir()] == ["more"]


def test_who_cannot_lock_is_taken_for_gone(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(presences.fcntl, "flock", refuse)
    first, second = Presence(str(tmp_path)), Presence(str(tmp_path))
    assert second.leave()
    assert first.is_there()


@pytest.mark.parametrize("kept", [True, False])
def test_a_table_that_is_deleted_under_its_hands(tmp_path, monkeypatch, kept):
    table, locked = tmp_path / "table", presences._locked

    def lock(path):
        (table / "__work" / path.rpartition("/")[2]).unlink()
        return locked(path)

    if not kept:
        monkeypatch.setattr(presences, "_locked", lock)
    presence = Presence(str(table))
    assert presence.is_there() is kept
    assert presence.leave()
