"""The files in pipelines/: what they write is what the commands write."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import make_images
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import ROOT
from stores import cli, junk, photos, rejects, rows

from beam_flowers.errors import InputError
from beam_flowers.store.commits import latest

PIPELINES = ROOT / "pipelines"
NAMES = ("embed", "train", "score")


def load(name):
    spec = importlib.util.spec_from_file_location(f"pipelines_{name}", PIPELINES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, *arguments):
    load(name).run([str(argument) for argument in arguments])


def reject_rows(table):
    """All columns of all rejects, by uri."""
    parts = [pq.read_table(path) for path in Path(table).glob("__rejects/**/*.parquet")]
    return pa.concat_tables(parts).sort_by("uri").to_pylist() if parts else []


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """`images`: ten photographs and all kinds of junk; `store` and `model` by the commands."""
    base = tmp_path_factory.mktemp("pipelines")
    photos(base / "images", 2)
    junk(base / "images" / "junk")
    cli("embed", base / "images", "--store", base / "store")
    cli("train", base / "store", "--model", base / "model")
    return base


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_can_be_read(name):
    text = (PIPELINES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 80
    assert "with beam.Pipeline(options=bf.pipeline_options(beams)) as pipeline:" in text
    assert "beam_flowers.cli" not in text


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_runs_as_a_program(name, tmp_path):
    command = [sys.executable, PIPELINES / f"{name}.py", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: {name}.py")


def test_embed_gives_the_rows_and_rejects_of_the_command(base, tmp_path):
    run("embed", base / "images", "--store", tmp_path / "store")
    assert rows(tmp_path / "store") == rows(base / "store")
    assert reject_rows(tmp_path / "store") == reject_rows(base / "store")
    assert len(rejects(base / "store")) == 9
    (ours,), (theirs,) = (latest(str(p / "store")).sections.values() for p in (tmp_path, base))
    assert ours.dataset_hash == theirs.dataset_hash
    assert (ours.about, ours.roots) == (theirs.about, theirs.roots)
    # The command has nothing left to do.
    assert cli("embed", base / "images", "--store", tmp_path / "store") == 0
    assert latest(str(tmp_path / "store")).version == 1


def test_sources_that_overlap_are_listed_once_as_by_the_command(base, tmp_path):
    listed = tmp_path / "some.csv"
    roses = sorted((base / "images" / "roses").iterdir())
    listed.write_text(f"uri,label\n{roses[0]},Rosa\n{roses[0]},Rosa\n")
    sources = (base / "images" / "roses", listed, base / "images", f"{base}/images/*/*.jpg")
    run("embed", *sources, "--store", tmp_path / "ours")
    assert cli("embed", *sources, "--store", tmp_path / "theirs") == 0
    assert rows(tmp_path / "ours") == rows(tmp_path / "theirs")
    assert reject_rows(tmp_path / "ours") == reject_rows(tmp_path / "theirs")
    assert {row["label"] for row in rows(tmp_path / "ours")} >= {"Rosa", "roses"}


def test_rows_of_gone_files_stay_and_all_others_are_computed_again(base, tmp_path):
    folder = photos(tmp_path / "images", 1)
    run("embed", folder, "--store", tmp_path / "store")
    next((folder / "roses").iterdir()).unlink()
    (folder / "daisy" / "new.jpg").write_bytes(make_images.jpeg(seed=3))
    run("embed", folder, "--store", tmp_path / "store")
    assert len(rows(tmp_path / "store")) == 6
    assert cli("embed", folder, "--store", tmp_path / "store") == 0
    assert len(rows(tmp_path / "store")) == 5


def test_a_file_that_is_damaged_now_loses_its_row_and_back(tmp_path):
    folder = photos(tmp_path / "images", 1)
    rose = next((folder / "roses").iterdir())
    whole = rose.read_bytes()
    for content, left in ((whole, 5), (make_images.truncated(whole), 4), (whole, 5)):
        rose.write_bytes(content)
        run("embed", folder, "--store", tmp_path / "store")
        assert len(rows(tmp_path / "store")) == left
        assert len(rejects(tmp_path / "store")) == 5 - left


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--threshold", "0.7")])
def test_score_gives_the_rows_and_rejects_of_the_command(base, tmp_path, flags):
    given = (base / "images", "--model", base / "model", "--output")
    run("score", *given, tmp_path / "ours", *flags)
    assert cli("score", *given, tmp_path / "theirs", *flags) == 0
    assert rows(tmp_path / "ours") == rows(tmp_path / "theirs")
    assert reject_rows(tmp_path / "ours") == reject_rows(tmp_path / "theirs")
    ours, theirs = (latest(str(tmp_path / name)).sections[""] for name in ("ours", "theirs"))
    assert (ours.fingerprint, ours.dataset_hash) == (theirs.fingerprint, theirs.dataset_hash)
    assert ours.about == theirs.about
    # The command finds the pipeline's table up to date.
    assert cli("score", *given, tmp_path / "ours", *flags) == 0
    assert latest(str(tmp_path / "ours")).version == 1


def test_train_gives_the_model_of_the_commands(base, tmp_path, capsys):
    run("train", base / "images", "--store", tmp_path / "store", "--model", tmp_path / "model")
    for name in ("weights.npy", "bias.npy", "labels.txt"):
        ours, theirs = (folder / "model" / name for folder in (tmp_path, base))
        assert ours.read_bytes() == theirs.read_bytes()
    said = capsys.readouterr()
    assert "training accuracy 1" in said.out
    assert "warning: " in said.out


def test_flags_of_beam_are_handed_on(base, tmp_path):
    with pytest.raises(Exception, match="NoSuchRunner"):
        run("embed", base / "images", "--store", tmp_path / "store", "--runner=NoSuchRunner")
    two = ("--direct_num_workers=2", "--direct_running_mode=multi_threading")
    run("embed", base / "images", "--store", tmp_path / "store", *two)
    assert rows(tmp_path / "store") == rows(base / "store")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flag", ["--threshhold=.5", "--nosuchflag", "--partition-by"])
def test_a_flag_that_nobody_knows_is_refused(name, flag, base, tmp_path):
    given = {"embed": ["--store"], "train": ["--store"], "score": ["--model", base / "model"]}
    output = "--model" if name == "train" else "--output" if name == "score" else "--store"
    arguments = [*given[name], *([tmp_path / "s"] if name != "score" else [])]
    arguments += [output, tmp_path / "out"] if name != "embed" else []
    with pytest.raises(InputError, match=f"unknown flag '{flag[:8]}"):
        run(name, base / "images", *arguments, flag)
    assert not list(tmp_path.iterdir())


def test_train_looks_at_the_models_folder_first(base, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(Exception, match="holds other things than a model"):
        run("train", base / "images", "--store", tmp_path / "s", "--model", tmp_path / "notes")
    assert not (tmp_path / "s").exists()


def test_scores_go_over_nothing_of_the_users(base, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "part-0.parquet").write_bytes(b"mine")
    given = (base / "images", "--model", base / "model", "--output")
    for output in (tmp_path / "notes", base / "store"):
        before = sorted(path.name for path in output.iterdir())
        with pytest.raises(Exception, match="holds other things and is no table"):
            run("score", *given, output)
        assert sorted(path.name for path in output.iterdir()) == before
    with pytest.raises(Exception, match="is named like a file"):
        run("score", *given, tmp_path / "labels.csv")
    with pytest.raises(Exception, match=r"\.xlsx is not written"):
        run("score", *given, tmp_path / "labels.xlsx")


def test_a_table_by_another_rule_is_left_alone(base, tmp_path):
    given = (base / "images", "--model", base / "model", "--output", tmp_path / "table")
    run("score", *given)
    before = rows(tmp_path / "table")
    with pytest.raises(Exception, match="has scores by other models, another rule"):
        run("score", *given, "--threshold=0.9")
    assert rows(tmp_path / "table") == before


def test_a_store_that_cannot_be_one_is_refused(base, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(Exception, match=r"holds other things \('mine.txt'\)"):
        run("embed", base / "images", "--store", tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_a_missing_folder_ends_the_pipeline_and_is_named(tmp_path):
    with pytest.raises(Exception, match="'/absent' is not there"):
        run("embed", "/absent", "--store", tmp_path / "store")
    assert not (tmp_path / "store").exists()
