"""Processes that die while a job server and a worker pool of their own are at work."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
import servers
from stores import rows, scenes, visible

from beam_flowers.store.commits import versions
from beam_flowers.transforms.preflight import PATIENCE

pytestmark = [pytest.mark.engines, pytest.mark.timeout(300)]
COUNT = 120
GOES_ON = "stopped; the same command goes on from what is finished; "


@pytest.fixture
def external(tmp_path):
    """Flags of a Prism and a pool that are nobody else's."""
    with ExitStack() as stack:
        prism = stack.enter_context(servers.prism(tmp_path / "prism.log"))
        pool = stack.enter_context(servers.worker_pool(tmp_path / "pool.log"))
        yield servers.external(prism, pool)


@pytest.fixture
def embedding(tmp_path, external):
    """(command, folder, store) of a run that takes seconds."""
    folder, store = scenes(tmp_path / "images", COUNT), tmp_path / "store"
    command = [*servers.COMMAND, "embed", str(folder), "--store", str(store), "--shards", "60"]
    return [*command, *external], folder, store


def begun(command, store):
    """The command running, and at least two parts of its work done."""
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait(lambda: len(list(store.glob("__work/run-*/*/part-*.parquet"))) > 1, process)
    return process


def wait(until, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "not in time"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def assert_whole(command, folder, store):
    """A run more, after which all images are there, each once."""
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert {row["uri"] for row in rows(store)} == visible(folder)
    return again.stdout


def test_the_job_of_a_killed_driver_goes_on_and_commits(embedding):
    command, folder, store = embedding
    process = begun(command, store)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert versions(str(store)) == []
    wait(lambda: versions(str(store)) == [1])
    assert f"embedded 0, reused {COUNT}" in assert_whole(command, folder, store)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (signal.SIGKILL, "SDK worker disconnected|the workers have died"),
        (signal.SIGSTOP, "no worker gave a sign of life.*the workers have died"),
    ],
)
def test_a_worker_that_dies_or_hangs_is_an_error(embedding, monkeypatch, fault, message):
    monkeypatch.setenv(PATIENCE, "15")
    command, folder, store = embedding
    process = begun(command, store)
    (answer,) = store.glob("__work/run-*/answers/[!.]*")
    worker = int(answer.name.rpartition("-")[2])
    os.kill(worker, fault)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1
    assert re.search(message, said), said
    assert not versions(str(store))
    if fault == signal.SIGSTOP:
        os.kill(worker, signal.SIGKILL)
    assert_whole(command, folder, store)


def test_a_run_beside_the_job_of_a_killed_driver(embedding):
    command, folder, store = embedding
    process = begun(command, store)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    in_process = command[: command.index("--runner=PortableRunner")]
    assert_whole(in_process, folder, store)


def test_after_ctrl_c_the_job_commits_nothing_and_the_next_run_goes_on(embedding):
    command, folder, store = embedding
    process = begun(command, store)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(GOES_ON + r"the job job-001\S* goes on, but commits nothing", said), said
    assert versions(str(store)) == []
    said = assert_whole(command, folder, store)
    assert 0 < int(re.search(r"reused (\d+)", said)[1]) <= COUNT


def test_the_command_that_ctrl_c_prints_cancels_the_job(embedding):
    command, folder, store = embedding
    scenes(folder / "more", 10 * COUNT)
    process = begun(command, store)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    cancel = re.search(r"to cancel it: python (-m beam_flowers.runs.jobs \S+ job-001\S*)", said)
    assert cancel, said
    done = subprocess.run([sys.executable, *cancel[1].split()], capture_output=True, text=True)
    assert done.stdout.strip() in ("CANCELLING", "CANCELLED"), done.stderr
    time.sleep(3)
    assert versions(str(store)) == []
    assert "reused 0" not in assert_whole(command, folder, store)
