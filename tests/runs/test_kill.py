"""Processes that are killed, and two that write to one store."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from stores import embed, photos, rows, scenes, visible

from beam_flowers.store.fsck import fsck
from beam_flowers.store.vacuum import vacuum

COMMAND = [sys.executable, "-m", "beam_flowers.cli.main"]


def finished_parts(store):
    return list(store.glob("__work/run-*/*/part-*.parquet"))


def wait_for_parts(store, process, count):
    deadline = time.monotonic() + 60
    while len(finished_parts(store)) < count:
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_kill_9_in_the_middle_of_embed(tmp_path):
    folder, store = scenes(tmp_path / "images", 200), tmp_path / "store"
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


@pytest.mark.slow
def test_the_work_of_a_killed_run_waits_for_its_own_folder(tmp_path):
    folder, other = scenes(tmp_path / "images", 200), scenes(tmp_path / "more", 5)
    store = tmp_path / "store"
    embed(other, store)
    command = [*COMMAND, "embed", str(folder), "--store", str(store), "--shards", "40"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    wait_for_parts(store, process, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(finished_parts(store))
    shutil.copy(other / "0000.jpg", other / "copy.jpg")
    assert embed(other, store).rows == 6
    assert len(finished_parts(store)) == done
    assert 0 < embed(folder, store).reused < 200
    assert {row["uri"] for row in rows(store)} == visible(folder) | visible(other)


@pytest.mark.slow
def test_a_run_that_slept_while_vacuum_took_its_work_plans_again(tmp_path):
    folder, store = scenes(tmp_path / "images", 200), tmp_path / "store"
    embed(scenes(tmp_path / "more", 3), store)
    command = [*COMMAND, "embed", str(folder), "--store", str(store), "--shards", "40"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    wait_for_parts(store, process, 2)
    os.killpg(process.pid, signal.SIGSTOP)
    found = vacuum(str(store), older_than=0)
    assert [uri for uri in found.deleted if "/part-" in uri]
    assert not finished_parts(store)
    os.killpg(process.pid, signal.SIGCONT)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert visible(folder) < {row["uri"] for row in rows(store)}
    assert fsck(str(store)).is_sound


def test_two_runs_at_once_make_one_store(tmp_path):
    folder, other = photos(tmp_path / "images"), scenes(tmp_path / "more", 20)
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


@pytest.mark.slow
def test_vacuum_beside_running_embeds_harms_none(tmp_path):
    """Vacuum in a loop beside an embed, as another process; it killed one of four before."""
    store = tmp_path / "store"
    embed(scenes(tmp_path / "0", 3), store)
    loop = (
        "import sys; from beam_flowers.store.vacuum import vacuum\n"
        "while True: vacuum(sys.argv[1]); print('.', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", loop, str(store)], stdout=subprocess.PIPE, text=True
    ) as beside:
        try:
            assert beside.stdout.readline() == ".\n"
            for number in range(1, 7):
                embed(scenes(tmp_path / str(number), 3 + number), store, shards=4)
                assert beside.poll() is None
        finally:
            beside.kill()
    assert len(rows(store)) == sum(3 + number for number in range(7))
