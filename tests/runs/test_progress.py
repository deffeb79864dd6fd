"""How far a run is: rates, lines, JSON, the bar on a terminal; and where libraries' notes go."""

import json
import os
import subprocess
import sys
import time

import pytest
from make_images import jpeg
from stores import cli, rows, scenes, visible
from terminals import Stamped, on_a_terminal

from beam_flowers.backbones.compute import compute_embeddings, pool
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import resolve
from beam_flowers.cli import log, screen
from beam_flowers.cli.progress import duration, in_words
from beam_flowers.records import Image
from beam_flowers.workflows.progress import Progress, ProgressState, Sample, rate

COMMAND = [sys.executable, "-m", "beam_flowers.cli.main"]


@pytest.mark.parametrize(
    ("samples", "now", "expected"),
    [
        ([], 5, None),
        ([(0, 0)], 5, None),
        ([(0, 0), (10, 50)], 11, None),
        ([(0, 0), (10, 50)], 20, 2.5),
        ([(0, 0), (10, 50), (15, 100)], 20, 5),
        ([(0, 0), (10, 50), (15, 100)], 60, 1),
    ],
)
def test_the_rate_leaves_the_loading_of_networks_out(samples, now, expected):
    assert rate([Sample(*sample) for sample in samples], now) == expected


def test_what_remains_follows_from_the_rate():
    assert ProgressState("computing", 40, 100, rate=5.0).remaining == 12
    assert ProgressState("computing", 120, 100, rate=5.0).remaining == 0
    assert ProgressState("computing", 40, 100).remaining is None
    assert ProgressState("listing", 40, rate=5.0).remaining is None


def test_done_never_falls_nor_passes_the_total():
    progress = Progress()
    progress.begin("computing", 10, rejects=2)
    seen = []
    for done, rejected in [(3, 2), (1, 0), (12, 5), (9, 4)]:
        progress.reach(done, rejected)
        state = progress.state()
        seen.append((state.done, state.rejects))
    assert seen == [(3, 2), (3, 2), (10, 5), (10, 5)]
    progress.begin("committing")
    assert progress.state().done == 0
    assert list(progress.seconds) == ["computing"]


def test_counted_passes_everything_on():
    progress = Progress()
    assert list(progress.counted(range(1000))) == list(range(1000))
    assert progress.state().done == 1000
    assert list(progress.counted([])) == []


def test_a_state_in_words():
    state = ProgressState("computing", 1200, 5000, 3, 40.0, 30.0)
    assert in_words(state) == "computing: 1,200 of 5,000, 40.0/s, 1:35 min left, 3 rejected"
    assert in_words(ProgressState("planning", seconds=61)) == "planning, 1:01 min so far"
    assert [duration(s) for s in (0.4, 59.6, 3599, 7500)] == [
        "0 s",
        "1:00 min",
        "59:59 min",
        "2:05 h",
    ]


def test_names_move_no_cursor():
    assert screen.visible("a\x1b[2J\r\nb\u202e\ud800") == r"a\x1b[2J\r\nb\u202e\ud800"
    assert screen.visible("玫瑰 ä\u3000b") == "玫瑰 ä\u3000b"


def test_threads_count_what_they_finish(tmp_path):
    names = sorted(map(str, scenes(tmp_path / "p", 3).iterdir()))
    images = [Image(n, str(tmp_path), n) for n in [*names, str(tmp_path / "absent")]]
    before = pool().tally
    compute_embeddings(images, load(resolve("efficientnet-lite0")))
    after = pool().tally
    assert (after.files - before.files, after.rejects - before.rejects) == (4, 1)


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def test_json_is_monotone_and_ends_with_a_summary(tmp_path, capsys):
    folder = scenes(tmp_path / "images", 40)
    (folder / "bad\x1b.jpg").write_bytes(b"nothing")
    arguments = ("embed", folder, "--store", tmp_path / "s", "--progress", "json")
    assert cli(*arguments) == 0
    *progress, summary = objects(capsys.readouterr().err)
    assert {o["event"] for o in progress} == {"progress"}
    computing = [o for o in progress if o["stage"] == "computing"]
    assert all(o["total"] == 41 for o in computing)
    done = [(o["done"], o["rejects"]) for o in computing]
    assert done == sorted(done)
    assert summary["event"] == "summary"
    assert (summary["embedded"], summary["rejected"]) == (40, 1)
    assert summary["reasons"] == {"NotAnImage": 1}
    assert summary["next"] == f"beam-flowers review {tmp_path / 's'}"
    assert {"listing", "planning", "computing", "committing"} == set(summary["seconds"])
    assert cli("embed", folder / "absent", *arguments[2:]) == 1
    last = objects(capsys.readouterr().err)[-1]
    assert last["event"] == "error"
    assert "absent" in last["message"]


@pytest.mark.slow
def test_a_line_within_two_seconds_where_there_is_no_terminal(tmp_path, monkeypatch, capsys):
    # So many that no machine is done before the first line is due.
    folder, stderr = scenes(tmp_path / "images", 800), Stamped()
    monkeypatch.setattr(sys, "stderr", stderr)
    begun = time.monotonic()
    assert cli("embed", folder, "--store", tmp_path / "s") == 0
    assert stderr.first - begun < 2
    first = stderr.getvalue().splitlines()[0]
    assert first.partition(":")[0].partition(",")[0] in ("listing", "planning", "computing")
    assert "\r" not in stderr.getvalue()
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"next: beam-flowers review {tmp_path / 's'}"
    assert "images/s" in said


@pytest.mark.slow
def test_ctrl_c_under_the_bar_leaves_a_store_to_go_on_from(tmp_path):
    folder, store = scenes(tmp_path / "images", 1000), tmp_path / "store"
    command = [*COMMAND, "embed", str(folder), "--store", str(store), "--shards", "60"]
    code, shown = on_a_terminal(command, interrupt=r"\| computing: [1-9]")
    assert code == 130
    *drawn, last = shown.replace("\r\n", "\n").rstrip("\n").split("\r")
    assert any("%|" in text and " of 1,000" in text for text in drawn)
    assert drawn[-1].strip() == "", "the bar is still there"
    assert last == "beam-flowers: stopped; the same command goes on from what is finished"
    assert cli(*command[3:], "--progress", "none") == 0
    assert {row["uri"] for row in rows(store)} == visible(folder)


def test_a_log_is_bounded_and_takes_no_file_of_others(tmp_path):
    image = tmp_path / "a.jpg"
    image.write_bytes(jpeg())
    command = [*COMMAND, "vacuum", str(tmp_path / "absent"), "--log-file"]
    refused = subprocess.run([*command, image], capture_output=True, text=True)
    assert (refused.returncode, "no log" in refused.stderr) == (2, True)
    assert image.read_bytes() == jpeg()
    file = tmp_path / "run.log"
    for _ in range(2):
        failed = subprocess.run([*command, file], capture_output=True, text=True)
        assert (failed.returncode, "no store" in failed.stderr) == (1, True)
    assert file.read_text().count("# log of beam-flowers") == 1
    unwritable = subprocess.run([*command, tmp_path], capture_output=True, text=True)
    assert (unwritable.returncode, "cannot be written" in unwritable.stderr) == (1, True)


def test_the_cache_keeps_the_last_logs_only(tmp_path):
    folder = tmp_path / "beam-flowers" / "logs"
    folder.mkdir(parents=True)
    for day in range(10, 32):
        (folder / f"run-202401{day}-000000-1.log").write_text("# log of beam-flowers\nold\n")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([*COMMAND, "backbones"], env=environment, check=True, capture_output=True)
    kept = sorted(path.name for path in folder.iterdir())
    assert kept == [f"run-202401{day}-000000-1.log" for day in range(23, 32)]


def test_log_flags_are_found_among_all_others():
    found = log.wanted(["embed", "p", "--runner", "X", "--log_file=l", "--verbose", "--", "--odd"])
    assert (found.verbose, found.log_file) == (True, "l")
    assert log.wanted(["embed", "--", "--verbose"]).log_file is None
