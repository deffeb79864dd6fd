"""Processes that are killed, and two that write to one store."""

import os
import signal
import subprocess
import sys
import time

from stores import photos, rows, scenes, visible

COMMAND = [sys.executable, "-m", "beam_flowers.cli.main"]


def finished_parts(store):
    return list(store.glob("__work/[0-9a-f]*/part-*.parquet"))


def wait_for_parts(store, process, count):
    deadline = time.monotonic() + 60
    while len(finished_parts(store)) < count:
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_kill_9_in_the_middle_of_embed(tmp_path):
    folder, store = scenes(tmp_path / "pictures", 200), tmp_path / "store"
    command = [*COMMAND, "embed", str(folder), "--store", str(store), "--shards", "40"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    wait_for_parts(store, process, 2)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = sum(len(rows(part.parent)) for part in finished_parts(store)[:1])
    assert not list(store.glob("backbone=*"))
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert {row["uri"] for row in rows(store)} == visible(folder)
    assert f"(store: {store})" in again.stdout
    words = again.stdout.split()
    embedded, reused = int(words[1].strip(",")), int(words[3].strip(","))
    assert (embedded + reused, reused) == (200, done)
    assert 0 < reused < 200


def test_two_runs_at_once_make_one_store(tmp_path):
    folder, other = photos(tmp_path / "pictures"), scenes(tmp_path / "more", 20)
    store = tmp_path / "store"
    command = [*COMMAND, "embed", "--store", str(store), "--shards", "5", str(folder)]
    runs = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for arguments in (command, [*command, str(other)])
    ]
    for run in runs:
        _, said = run.communicate(timeout=100)
        assert run.returncode == 0, said
    assert {row["uri"] for row in rows(store)} == visible(folder) | visible(other)
