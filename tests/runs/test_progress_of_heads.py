"""How far training and evaluation are, and what Ctrl-C leaves of each command."""

import io
import json
import re
import sys
import time

import pytest
from stores import cli, rows, scenes, visible
from terminals import Stamped, on_a_terminal
from vectors import make_store

from beam_flowers.cli import screen
from beam_flowers.cli.progress import Bar
from beam_flowers.head.recipes import recipe, steps_of
from beam_flowers.workflows.progress import Progress, ProgressState

SMALL = ("--backbone", "small")
COMMAND = [sys.executable, "-m", "beam_flowers.cli.main"]


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def stages(told):
    """The stages in their order, each with the totals seen in it."""
    found = {}
    for state in told:
        if state["event"] == "progress":
            found.setdefault(state["stage"], set()).add(state["total"])
    return found


def test_what_is_told_again_from_the_start_begins_anew():
    progress = Progress()
    tell = progress.callback("reading")
    seen = []
    for done, total in [(5, 10), (10, 10), (3, 10), (7, 20)]:
        tell(done, total)
        state = progress.state()
        seen.append((state.stage, state.done, state.total))
    expected = [(5, 10), (10, 10), (3, 10), (7, 20)]
    assert seen == [("reading", *numbers) for numbers in expected]


def test_recipes_know_their_steps_where_they_have_a_number():
    assert steps_of(recipe("retrain", how_many_training_steps=70)) == 70
    assert steps_of(recipe("image-classifier", train_epochs=3)) == 3
    assert steps_of(recipe("lbfgs")) is None


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


@pytest.mark.slow
def test_train_tells_its_stages_and_steps(store, tmp_path, capsys):
    model = tmp_path / "m"
    flags = ("--recipe", "retrain", "--how-many-training-steps", 20000, "--progress", "json")
    assert cli("train", store, *SMALL, "--model", model, *flags) == 0
    said = capsys.readouterr()
    *_, summary = told = objects(said.err)
    assert stages(told)["training"] == {20000}
    assert [*summary["seconds"]] == ["reading", "training", "writing"]
    assert summary["event"] == "summary"
    assert summary["model_id"] in (model / "model.json").read_text()
    assert set(summary["accuracies"]) == {"training", "validation", "testing"}
    assert "step 19999: " in said.out


def test_a_sweep_counts_its_trials(store, tmp_path, capsys):
    flags = ("--sweep", "--folds", 2, "--progress", "json")
    assert cli("train", store, *SMALL, "--model", tmp_path / "m", *flags) == 0
    seconds = objects(capsys.readouterr().err)[-1]["seconds"]
    assert [*seconds] == ["reading", "sweeping", "training", "writing"]


def test_evaluate_tells_its_stages_and_folds(store, tmp_path, capsys):
    assert cli("train", store, *SMALL, "--model", tmp_path / "m", "--progress", "none") == 0
    capsys.readouterr()
    flags = ("--output", tmp_path / "e", "--folds", 3, "--progress", "json")
    assert cli("evaluate", store, "--model", tmp_path / "m", *flags) == 0
    *_, summary = objects(capsys.readouterr().err)
    assert [*summary["seconds"]] == ["reading", "measuring", "searching wrong labels", "writing"]
    report = json.loads((tmp_path / "e" / "evaluation.json").read_text())
    assert summary["accuracy"] == report["accuracy"]["value"]


def test_lines_of_a_run_stand_above_the_bar(monkeypatch, capsys):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    bar = Bar()
    bar.show(ProgressState("training", 5, 10), 1.0)
    screen.tell("step 5: train accuracy 90.0%")
    bar.close()
    screen.tell("after")
    assert capsys.readouterr().out == "step 5: train accuracy 90.0%\nafter\n"
    assert "training: 5 of 10" in stderr.getvalue()
    assert stderr.getvalue().endswith("\r")


def stopped(command, shows):
    """(exit code, last line) of a command that gets a Ctrl-C when its terminal shows that."""
    code, shown = on_a_terminal(command, shows)
    return code, re.split(r"[\r\n]+", shown.rstrip())[-1]


@pytest.mark.slow
def test_ctrl_c_in_a_training_leaves_the_old_model(store, tmp_path):
    model = tmp_path / "m"
    assert cli("train", store, *SMALL, "--model", model, "--progress", "none") == 0
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    steps = ("--recipe", "retrain", "--how-many-training-steps", 10_000_000)
    code, last = stopped(
        [*COMMAND, "train", store, *SMALL, "--model", model, *steps], "training: [1-9]"
    )
    assert code == 130
    left = "store and model are as they were; the same command begins anew"
    assert last == f"beam-flowers: stopped; {left}"
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


@pytest.mark.slow
def test_ctrl_c_in_a_scoring_leaves_what_the_next_goes_on_from(tmp_path):
    folder, store, model = scenes(tmp_path / "p", 300), tmp_path / "s", tmp_path / "m"
    for label in ("a", "b"):
        scenes(tmp_path / "few" / label, 12)
    assert cli("embed", tmp_path / "few", "--store", store, "--progress", "none") == 0
    assert cli("train", store, "--model", model, "--progress", "none") == 0
    command = ["score", folder, "--model", model, "--output", tmp_path / "out", "--shards", 60]
    code, last = stopped([*COMMAND, *command], "computing: [1-9]")
    assert code == 130
    assert last == "beam-flowers: stopped; the same command goes on from what is finished"
    assert cli(*command, "--progress", "none") == 0
    assert {row["uri"] for row in rows(tmp_path / "out")} == visible(folder)


@pytest.mark.slow
def test_ctrl_c_in_doctor_says_that_nothing_was_written(tmp_path):
    folder, output = scenes(tmp_path / "p", 1500), tmp_path / "findings.json"
    command = [*COMMAND, "doctor", folder, "--output", output]
    code, last = stopped(command, "reading: [1-9]")
    assert code == 130
    assert last == "beam-flowers: stopped; nothing was written; the same command begins anew"
    assert not output.exists()


@pytest.mark.slow
def test_a_line_of_a_training_within_two_seconds(store, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr := Stamped())
    steps = ("--recipe", "retrain", "--how-many-training-steps", 24_000)
    begun = time.monotonic()
    assert cli("train", store, *SMALL, "--model", tmp_path / "m", *steps) == 0
    assert stderr.first - begun < 2
    assert stderr.getvalue().startswith("training: ")
