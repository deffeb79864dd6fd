"""An image that crashes a decoder of C.

An attacker would end a run over millions of images with one of them, again and again; or have
sound images that were decoded beside it rejected.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from subprocess import PIPE

import numpy as np
import PIL
import psutil
import pyarrow.parquet as pq
import pytest
from crashing import deadly, obedient, own_decoders  # noqa: F401
from stores import cli, embed, photos, rejects, rows, scenes, visible

from beam_flowers import classify_images, read_bundle
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import resolve
from beam_flowers.doctor.facts import examine
from beam_flowers.errors import ImageError
from beam_flowers.images.decode import decode
from beam_flowers.images.decoder_protocol import SIZES, options_of
from beam_flowers.images.recipe import Limits, PixelRecipe
from beam_flowers.images.rules import RULES, decoder_versions
from beam_flowers.pages.thumbnails import read_thumbnail
from beam_flowers.records import Image, Reject
from beam_flowers.store.commits import latest

CRASHES = ["segv", "abort", "exit", "segv", "abort"]


@pytest.fixture
def folder(tmp_path):
    """Twenty sound images and five that crash, two of them of equal bytes."""
    folder = scenes(tmp_path / "images", 20)
    for number, what in enumerate(CRASHES):
        (folder / f"crash-{number}.jpg").write_bytes(deadly(what))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of the five flowers."""
    base = tmp_path_factory.mktemp("model")
    embed(photos(base / "photos", 4), base / "store")
    assert cli("train", base / "store", "--model", base / "model") == 0
    return base / "model"


def crashed(folder):
    return {str(folder / f"crash-{number}.jpg"): "Crashed" for number in range(len(CRASHES))}


def dataset_hash(store):
    return latest(str(store)).sections.popitem()[1].dataset_hash


@pytest.mark.usefixtures("obedient")
class TestCrash:
    """An image that ends its decoder's process costs a reject."""

    @pytest.mark.slow
    def test_it_costs_one_row_and_the_others_keep_their_bits(self, folder, tmp_path):
        summary = embed(folder, tmp_path / "store")
        assert (summary.embedded, summary.rejected, summary.reasons) == (20, 5, {"Crashed": 5})
        assert rejects(tmp_path / "store") == crashed(folder)
        engine = load(resolve("efficientnet-lite0"))
        for row in rows(tmp_path / "store"):
            with open(row["uri"], "rb") as file:
                here = engine.embed(decode(file.read(), engine.recipe).pixels[np.newaxis])[0]
            assert np.array_equal(np.asarray(row["vector"], np.float32), here)

    @pytest.mark.slow
    def test_the_reject_names_format_signal_and_decoders(self, folder, tmp_path):
        embed(folder, tmp_path / "store")
        parts = (tmp_path / "store").glob("__rejects/**/*.parquet")
        found = [row for part in parts for row in pq.read_table(part).to_pylist()]
        about = decoder_versions()
        assert about.startswith(f"Pillow {PIL.__version__}, libjpeg_turbo ")
        names = {"segv": "SIGSEGV", "abort": "SIGABRT", "exit": "exit code 1"}
        for row in found:
            what = CRASHES[int(row["relative_path"][len("crash-")])]
            assert row["stage"] == "decode"
            assert row["sha256"] == hashlib.sha256(deadly(what)).hexdigest()
            assert row["message"] == (
                f"JPEG ends its decoder, also one of its own ({names[what]}; {about}): "
                "save it anew with another program"
            )

    @pytest.mark.slow
    def test_it_is_tried_again_only_by_other_decoders(self, folder, tmp_path, monkeypatch):
        embed(folder, tmp_path / "store")
        before = dataset_hash(tmp_path / "store")
        # Decoders that crash no more, of which nobody knows.
        monkeypatch.delenv("PYTHONPATH")
        own_decoders(monkeypatch)
        assert embed(folder, tmp_path / "store").embedded == 0
        assert dataset_hash(tmp_path / "store") == before
        with monkeypatch.context() as patch:
            patch.setattr(PIL, "__version__", "99.9")
            decoder_versions.cache_clear()
            assert embed(folder, tmp_path / "store").embedded == 3  # Contents, of five files.
        decoder_versions.cache_clear()
        assert rejects(tmp_path / "store") == {}
        embed(folder, tmp_path / "fresh")
        assert dataset_hash(tmp_path / "store") == dataset_hash(tmp_path / "fresh")

    def test_a_sound_image_in_a_process_that_another_one_broke_is_accepted(self, tmp_path):
        folder = scenes(tmp_path / "images", 3)
        (folder / "suspect.jpg").write_bytes(deadly("segv_once", tmp_path / "mark"))
        assert embed(folder, tmp_path / "store").embedded == 4
        assert (tmp_path / "mark").exists()

    @pytest.mark.slow
    def test_score_and_classify_go_on(self, folder, model, tmp_path):
        command = ["score", folder, "--model", model, "--output", tmp_path / "table"]
        assert cli(*command) == 0
        assert len(rows(tmp_path / "table")) == 20
        assert rejects(tmp_path / "table") == crashed(folder)
        some = [str(folder / name) for name in ("0001.jpg", "crash-0.jpg", "0002.jpg")]
        results = classify_images(some, read_bundle(str(model)), resolve("efficientnet-lite0"))
        assert [isinstance(result, Reject) for result in results] == [False, True, False]
        assert results[1].error_class == "Crashed"

    def test_doctor_and_report_go_on(self, folder):
        uri = str(folder / "crash-0.jpg")
        assert examine(Image(uri, str(folder), "crash-0.jpg"), Limits()).error_class == "Crashed"
        assert read_thumbnail(uri, 64).problem.startswith("Crashed: JPEG ends its decoder")

    @pytest.mark.slow
    def test_no_process_is_left_unburied(self, folder, tmp_path):
        embed(folder, tmp_path / "store")
        states = [child.status() for child in psutil.Process().children()]
        assert psutil.STATUS_ZOMBIE not in states


@pytest.mark.usefixtures("obedient")
class TestKilled:
    """A process that is killed, as where memory runs out, says nothing of its image."""

    def test_killed_once_nothing_is_lost(self, tmp_path):
        folder = scenes(tmp_path / "images", 3)
        (folder / "large.jpg").write_bytes(deadly("kill_once", tmp_path / "mark"))
        assert embed(folder, tmp_path / "store").embedded == 4
        assert (tmp_path / "mark").exists()

    @pytest.mark.slow
    @pytest.mark.parametrize("what", ["kill", "memory"])
    def test_killed_each_time_it_is_tried_again_by_the_next_run(self, tmp_path, monkeypatch, what):
        folder = scenes(tmp_path / "images", 3)
        for name in ("large.jpg", "copy.jpg"):
            (folder / name).write_bytes(deadly(what))
        assert embed(folder, tmp_path / "store").reasons == {"Killed": 2}
        monkeypatch.delenv("PYTHONPATH")
        own_decoders(monkeypatch)
        assert embed(folder, tmp_path / "store").embedded == 1
        assert {row["uri"] for row in rows(tmp_path / "store")} == visible(folder)

    @pytest.mark.slow
    def test_a_row_that_is_known_stays(self, tmp_path, monkeypatch):
        folder, store = scenes(tmp_path / "images", 3), tmp_path / "store"
        (folder / "large.jpg").write_bytes(deadly("kill"))
        with monkeypatch.context() as patch:
            patch.delenv("PYTHONPATH")
            own_decoders(patch)
            assert embed(folder, store).embedded == 4
        # As if JPEGs had to be looked at again.
        monkeypatch.setitem(RULES, "JPEG", RULES["JPEG"] + 1)
        assert cli("embed", folder, "--store", store) == 0
        assert {row["uri"] for row in rows(store)} == visible(folder)
        assert rejects(store) == {}


@pytest.mark.usefixtures("obedient")
def test_a_decoder_that_never_asks_for_more_is_stopped():
    """An attacker would keep all threads busy for ever."""
    started = time.monotonic()
    with pytest.raises(ImageError, match=r"more than 0\.3 seconds of CPU time") as caught:
        decode_apart(deadly("spin"), PixelRecipe(8, 8), Limits(seconds=0.05))
    assert caught.value.error_class == "Timeout"
    assert time.monotonic() - started < 30


@pytest.mark.slow
def test_no_decoder_outlives_a_run_that_is_killed(tmp_path):
    """An attacker would fill the memory of a machine whose runs are killed and begun again."""
    folder, store = scenes(tmp_path / "images", 300), tmp_path / "store"
    command = [sys.executable, "-m", "beam_flowers.cli.main", "embed", str(folder)]
    run = subprocess.Popen([*command, "--store", str(store)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (children := psutil.Process(run.pid).children()):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert gone
    assert not alive


@pytest.mark.slow
@pytest.mark.usefixtures("obedient")
def test_nor_does_one_that_never_returns():
    """It would keep a core busy until somebody looks."""
    code = (
        "from beam_flowers.images import decoder_process; decoder_process._MOST_SECONDS = 2; "
        "decoder_process.main(2**40)"
    )
    # A request as `decode_apart` makes it, of a process that is gone at once.
    options, data = options_of(PixelRecipe(8, 8), Limits(), False), deadly("spin")
    child = subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE)
    child.stdin.write(SIZES.pack(len(options), len(data)) + options + data)
    child.stdin.close()
    assert child.wait(timeout=30) == -signal.SIGALRM
