"""Two `score`s to one output at the same time."""

import subprocess
import sys

import pytest
from stores import cli, embed, photos, rejects, rows

from beam_flowers import files
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import StoreError
from beam_flowers.head.bundle import read_bundle
from beam_flowers.scoring.decision import AcceptanceRule
from beam_flowers.store import presence
from beam_flowers.workflows import score as score_run
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions

COMMAND = [sys.executable, "-m", "beam_flowers.cli.main", "score"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of ten `images` and a broken one, a `store` of the ten, a `model`."""
    base = tmp_path_factory.mktemp("twice")
    folder = photos(base / "images")
    assert embed(folder, base / "store").embedded == 10
    assert cli("train", base / "store", "--model", base / "model") == 0
    (folder / "roses" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    score(base, base / "alone.parquet")
    return base


def score(base, output, rule=None):
    job = ScoreOptions((str(base / "images"),), str(output), rule=rule or AcceptanceRule())
    model = read_bundle(str(base / "model"))
    return score_images(job, model, resolve("efficientnet-lite0"), warn=print)


def same_as_alone(base, output):
    names = {".parquet", ".rejects.parquet"}
    assert {p.name.removeprefix(output.stem) for p in output.parent.iterdir()} == names
    for ending in names:
        made, alone = (p.with_name(p.stem + ending) for p in (output, base / "alone.parquet"))
        assert made.read_bytes() == alone.read_bytes()
    return True


@pytest.mark.slow
@pytest.mark.parametrize("step", ["run_plan", "_write_files"])
@pytest.mark.parametrize("locks", [True, False])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_first_to_end_leaves_the_hidden_table_to_the_other(
    base, tmp_path, monkeypatch, step, moment, locks
):
    output, carried_out = tmp_path / "out" / "t.parquet", []
    act = getattr(score_run, step)

    def meet_another(*arguments, **named):
        monkeypatch.setattr(score_run, step, count)
        if moment == "after":
            act(*arguments, **named)
        score(base, output)
        if moment == "before":
            act(*arguments, **named)

    def count(*arguments, **named):
        carried_out.append(arguments)
        return act(*arguments, **named)

    monkeypatch.setattr(score_run, step, meet_another)
    if not locks:  # As in an object store, where nobody knows who is present.
        monkeypatch.setattr(presence.fcntl, "flock", lambda *_: None)
    summary = score(base, output)
    assert (summary.rows, summary.rejected) == (10, 1)
    assert same_as_alone(base, output)


def test_a_run_that_fails_by_itself_is_not_repeated(base, tmp_path, monkeypatch):
    tried = []

    def fail(*arguments):
        tried.append(arguments)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(score_run, "_write_files", fail)
    with pytest.raises(OSError, match="No space"):
        score(base, tmp_path / "t.parquet")
    assert len(tried) == 1
    monkeypatch.undo()
    # Its table stays for the next run.
    assert score(base, tmp_path / "t.parquet").embedded == 0
    assert not files.exists(str(tmp_path / ".t.parquet.partial"))


def test_who_is_robbed_each_time_gives_up(base, tmp_path, monkeypatch):
    def rob(job, *_):
        files.delete_tree(job.table)
        raise OSError(2, "No such file")

    monkeypatch.setattr(score_run, "_write_files", rob)
    monkeypatch.setattr(score_run, "TRIES", 2)
    with pytest.raises(StoreError, match=r"t\.parquet 2 times; run this alone"):
        score(base, tmp_path / "t.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_scores_by_another_rule_are_not_taken_for_its_own(base, tmp_path, monkeypatch):
    output, write = tmp_path / "t.parquet", score_run._write_files

    def meet_another(*arguments):
        monkeypatch.setattr(score_run, "_write_files", write)
        score(base, output, AcceptanceRule(threshold=0.99))
        write(*arguments)

    monkeypatch.setattr(score_run, "_write_files", meet_another)
    with pytest.raises(StoreError, match="scores of other models or other rules"):
        score(base, output)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t.parquet", "table"])
def test_two_processes(base, tmp_path, name):
    folder, output = base / "images", tmp_path / "out" / name
    output.parent.mkdir()
    command = [*COMMAND, folder, "--model", base / "model", "--output", output]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for run in runs:
        _, said = run.communicate(timeout=100)
        assert run.returncode == 0, said
    if name == "table":
        assert (len(rows(output)), len(rejects(output))) == (10, 1)
    else:
        assert same_as_alone(base, output)
