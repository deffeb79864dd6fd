"""Decoder processes: the same answers as here, and what becomes of the processes."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import make_images
import numpy as np
import psutil
import pytest
from crashing import deadly, obedient  # noqa: F401

from beam_flowers.backbones import decoders
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.errors import ImageError, WorkerError
from beam_flowers.images.decode import decode, decode_whole
from beam_flowers.images.memory_gate import Gate
from beam_flowers.images.recipe import DEFAULT_LIMITS, Limits, PixelRecipe

RECIPE = PixelRecipe(24, 32, crop=0.875, resample="lanczos")
SOUND = make_images.each_format()

_NO_GUARD = """
from pathlib import Path
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.images.recipe import PixelRecipe
print(decode_apart(Path("one.jpg").read_bytes(), PixelRecipe(8, 8)).format)
"""
_INTERRUPTED = """
import os, signal, threading
from pathlib import Path
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.images.recipe import PixelRecipe
sound, spinning, small = (Path(name).read_bytes() for name in ("sound", "spinning", "small"))
# A shell that starts the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
decode_apart(sound, PixelRecipe(8, 8))
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    decode_apart(spinning, PixelRecipe(8, 8))
except KeyboardInterrupt:
    print(decode_apart(small, PixelRecipe(8, 8)).width)
"""
_FORKED = """
import os, sys
from pathlib import Path
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.images.recipe import PixelRecipe
data = [Path(name).read_bytes() for name in ("one.jpg", "two.jpg")]
wanted = [decode_apart(some, PixelRecipe(8, 8)).pixels.tobytes() for some in data]
pid = os.fork()
for _ in range(300):
    found = decode_apart(data[pid > 0], PixelRecipe(8, 8)).pixels.tobytes()
    assert found == wanted[pid > 0]
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    print("equal")
"""


@pytest.fixture
def own(monkeypatch):
    """Decoder processes of the test's own."""
    monkeypatch.setattr(decoders, "_decoders", decoders._Decoders())
    yield decoders._decoders
    decoders._decoders.end()


class NotingGate(Gate):
    """Knows how much was held at a time at most, by how many."""

    def __init__(self, limit, processes):
        super().__init__(limit, processes)
        self.held, self.lock, self.peak = [], threading.Lock(), (0, 0)

    @contextlib.contextmanager
    def hold(self, needed, what):
        with super().hold(needed, what):
            with self.lock:
                self.held.append(needed)
                self.peak = max(self.peak, (sum(self.held), len(self.held)))
            yield
            with self.lock:
                self.held.remove(needed)


@pytest.mark.slow
@pytest.mark.parametrize(("mib", "at_once"), [(1024, [2]), (128, [1])])
@pytest.mark.usefixtures("own")
def test_large_images_share_the_memory_of_all_processes(monkeypatch, mib, at_once):
    """Else as many as there are cores would take a quarter of it each."""
    gate = NotingGate(mib * 2**20, 4)
    monkeypatch.setattr(decoders, "cores", lambda: 4)
    monkeypatch.setattr(decoders, "_START_SECONDS", 0.0)
    monkeypatch.setattr(decoders, "_gate", lambda: gate)
    large = make_images.saved(make_images.scene(3000, 1000), "WEBP", quality=10)
    expected = decode(large, RECIPE).pixels
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: decode_apart(large, RECIPE), range(12)))
    assert all((image.pixels == expected).all() for image in found)
    needed, together = gate.peak
    assert together in at_once
    assert together == 1 or needed <= gate.budget
    assert (gate.held, gate._used) == ([], 0)


@pytest.mark.usefixtures("own")
def test_small_images_cost_no_question(monkeypatch):
    gate = NotingGate(2**30, 2)
    monkeypatch.setattr(decoders, "_gate", lambda: gate)
    assert decode_apart(SOUND["JPEG"], RECIPE).width
    assert gate.peak == (0, 0)


def children():
    return {process.pid for process in psutil.Process().children()}


@pytest.mark.parametrize("kind", sorted(SOUND))
@pytest.mark.parametrize("whole", [False, True])
def test_images_are_those_that_are_decoded_here(kind, whole):
    here = (decode_whole if whole else decode)(SOUND[kind], RECIPE)
    apart = decode_apart(SOUND[kind], RECIPE, whole=whole)
    assert apart[1:] == here[1:]
    assert apart.pixels.dtype == here.pixels.dtype
    np.testing.assert_array_equal(apart.pixels, here.pixels)
    assert apart.pixels.flags.writeable == here.pixels.flags.writeable


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        *((data, DEFAULT_LIMITS) for data in make_images.bad_files().values()),
        (b"", DEFAULT_LIMITS),
        (make_images.png(), Limits(max_bytes=100)),
        (make_images.png(), Limits(max_pixels=100)),
        (make_images.png(), Limits(seconds=1e-9)),
    ],
)
def test_rejects_are_those_that_are_given_here(data, limits):
    found = []
    for function in (decode, decode_apart):
        with pytest.raises(ImageError) as caught:
            function(data, RECIPE, limits)
        found.append((caught.value.error_class, caught.value.message, caught.value.stage))
    assert found[0] == found[1]


def test_files_and_pixels_larger_than_any_pipe():
    data = make_images.png(1500, 1200, seed=1) + bytes(3_000_000)
    recipe = PixelRecipe(1200, 1500)
    np.testing.assert_array_equal(decode_apart(data, recipe).pixels, decode(data, recipe).pixels)


def test_many_threads_get_their_own_images():
    some = [make_images.jpeg(seed=seed) for seed in range(40)]
    wanted = [decode(data, RECIPE).pixels for data in some]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            found = pool.map(lambda data: decode_apart(data, RECIPE).pixels, some)
            for mine, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(mine, other)


def test_few_images_start_one_process_and_many_threads_as_many_as_cores(own, monkeypatch):
    monkeypatch.setattr(decoders, "cores", lambda: 3)
    before = children()
    for seed in range(5):
        decode_apart(make_images.jpeg(seed=seed), RECIPE)
    assert len(children() - before) == 1
    monkeypatch.setattr(decoders, "_START_SECONDS", 0.0)
    data = make_images.jpeg(1200, 900)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: decode_apart(data, RECIPE), range(100)))
    assert len(children() - before) == 3
    own.end()
    assert children() == before


@pytest.mark.slow
def test_a_process_that_was_killed_while_it_was_idle_is_replaced(own):
    before = children()
    decode_apart(SOUND["JPEG"], RECIPE)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV):
        (pid,) = children() - before
        os.kill(pid, number)
        assert decode_apart(SOUND["JPEG"], RECIPE).format == "JPEG"


def test_ctrl_c_of_the_terminal_is_not_theirs(own):
    before = children()
    decode_apart(SOUND["JPEG"], RECIPE)
    (pid,) = children() - before
    os.kill(pid, signal.SIGINT)
    decode_apart(SOUND["JPEG"], RECIPE)
    assert children() - before == {pid}


@pytest.mark.usefixtures("obedient")
def test_an_answer_that_nobody_waited_for_is_not_the_next_ones(tmp_path):
    """Ctrl-C comes between question and answer."""
    # In a process of its own: the signal ended the tests' process, among a hundred threads of
    # libraries, by a segmentation fault at the next step, in two of two whole runs.
    images = {"sound": SOUND["JPEG"], "spinning": deadly("spin"), "small": make_images.png(10, 10)}
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    said = subprocess.check_output([sys.executable, "-c", _INTERRUPTED], cwd=tmp_path, text=True)
    assert said == "10\n"


def test_a_path_without_this_package_ends_the_run_with_its_reason(tmp_path):
    # In a process of its own: other threads of this one may import meanwhile.
    (tmp_path / "one.jpg").write_bytes(SOUND["JPEG"])
    code = _NO_GUARD.replace("print", "import numpy, sys; sys.path[:] = ['/nowhere']\nprint")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert re.search(r"WorkerError: .*does not start \(exit code 1\): .*No module", done.stderr)


@pytest.mark.usefixtures("own")
def test_an_interpreter_that_is_not_there_ends_the_run_with_its_reason(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerError, match="no decoder process can be started"):
        decode_apart(SOUND["JPEG"], RECIPE)


def test_a_script_without_a_guard_runs_once(tmp_path):
    (tmp_path / "one.jpg").write_bytes(SOUND["JPEG"])
    (tmp_path / "script.py").write_text(_NO_GUARD)
    said = subprocess.check_output([sys.executable, "script.py"], cwd=tmp_path, text=True)
    assert said == "JPEG\n"


def test_a_process_that_is_forked_off_starts_decoders_of_its_own(tmp_path):
    for seed, name in enumerate(["one.jpg", "two.jpg"]):
        (tmp_path / name).write_bytes(make_images.jpeg(seed=seed))
    said = subprocess.check_output([sys.executable, "-c", _FORKED], cwd=tmp_path, text=True)
    assert said == "equal\n"


def test_no_file_and_no_process_is_left_behind(tmp_path):
    (tmp_path / "one.jpg").write_bytes(SOUND["JPEG"])
    code = _NO_GUARD + "import psutil; print(*(p.pid for p in psutil.Process().children()))"
    said = subprocess.check_output([sys.executable, "-c", code], cwd=tmp_path, text=True)
    started = [int(pid) for pid in said.split()[1:]]
    assert len(started) == 1
    assert not any(map(psutil.pid_exists, started))
    assert os.listdir(tmp_path) == ["one.jpg"]


def test_after_its_end_a_pool_decodes_again(own):
    first = decode_apart(SOUND["PNG"], PixelRecipe(8, 8)).pixels
    own.end()
    np.testing.assert_array_equal(decode_apart(SOUND["PNG"], PixelRecipe(8, 8)).pixels, first)
