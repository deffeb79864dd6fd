"""Runs of `embed`: options, units, backbones, what is refused."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import apache_beam as beam
import pytest
from stores import embed, rows

import beam_flowers
from beam_flowers.backbones.preprocessor_config import CONFIG_FILE
from beam_flowers.backbones.tf_runtime import tensorflow
from beam_flowers.errors import InputError, StoreError
from beam_flowers.store.commits import latest
from beam_flowers.store.features import read_features
from beam_flowers.workflows import embed as embed_run
from beam_flowers.workflows.embed import RunOptions


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A network of one's own: six numbers from the mean colour."""
    tf = tensorflow()
    module = tf.Module()
    module.kernel = tf.Variable(tf.random.stateless_normal((3, 6), seed=(1, 2)))
    signature = [tf.TensorSpec((None, 8, 8, 3), "float32")]
    module.__call__ = tf.function(
        lambda pixels: tf.reduce_mean(pixels, [1, 2]) @ module.kernel, input_signature=signature
    )
    path = str(tmp_path_factory.mktemp("tiny") / "tiny")
    tf.saved_model.save(module, path)
    Path(path, CONFIG_FILE).write_text('{"pixel_range": [-1, 1]}')
    return path


def test_two_backbones_lie_side_by_side(work, tiny):
    store = work / "store"
    before = latest(str(store)).sections
    assert embed(work / "images", store, tiny).embedded == 10
    sections = latest(str(store)).sections
    assert {key: sections[key] for key in before} == before
    assert len(list(store.glob("backbone=*"))) == len(sections) == 2
    lengths = {len(r["vector"]) for key in sections for r in rows(store / key)}
    assert lengths == {6, 1280}
    (work / "images" / "roses").rename(work / "images" / "Rosa")
    assert embed(work / "images", store, tiny).reused == 10
    assert len(read_features(str(store), "efficientnet-lite0")[1].uris) == 10


def test_a_run_that_has_nothing_to_do_loads_neither_beam_nor_tensorflow(original):
    script = (
        "import sys; from beam_flowers.cli.main import main\n"
        f"code = main(['embed', {str(original / 'images')!r}, '--store', "
        f"{str(original / 'store')!r}])\n"
        "assert code == 0\n"
        "heavy = {'tensorflow', 'apache_beam.pipeline', 'keras'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "embedded 0, reused 10" in done.stdout


@pytest.mark.parametrize(
    "options",
    [
        {"shards": 3},
        {"shards": 100},
        {"pipeline": ["--runner=DirectRunner"]},
        {"pipeline": ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]},
    ],
    ids=str,
)
def test_the_data_do_not_depend_on_how_they_were_made(original, tmp_path, options):
    expected = latest(str(original / "store")).sections.popitem()[1].dataset_hash
    assert embed(original / "images", tmp_path / "s", **options).dataset_hash == expected


def test_the_units_are_as_many_as_asked_for(original, tmp_path):
    embed(original / "images", tmp_path / "store", shards=3)
    assert len(list((tmp_path / "store").glob("backbone=*/*.parquet"))) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--runner=Nonsense"], "Unexpected pipeline runner"),
        (["--runner=no.such.Runner"], "No module named"),
        (["--direct_num_workers=two"], "invalid int value: 'two'"),
    ],
)
def test_options_that_beam_does_not_take_are_refused_before_any_work(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        embed(tmp_path / "not looked at", tmp_path / "store", pipeline=options)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("below", ["store", "daisy/store"])
def test_a_store_in_the_folder_that_is_read_is_refused(original, below):
    with pytest.raises(InputError, match="put it elsewhere"):
        embed(original / "images", original / "images" / below)


def test_a_hidden_store_may_lie_in_the_folder_that_is_read(work):
    for embedded in (10, 0):
        summary = embed(work / "images", work / "images" / ".store")
        assert (
            str(summary)
            == f"embedded {embedded}, reused {10 - embedded}, rejected 0, hidden 0, of 10"
        )


def test_a_pipeline_that_did_not_commit_is_an_error(original, tmp_path, monkeypatch):
    monkeypatch.setattr(embed_run, "run_plan", lambda *_, **__: None)
    with pytest.raises(StoreError, match="without its last step"):
        embed(original / "images", tmp_path / "store")


def test_few_functions_stand_between_the_call_and_beam(original, tmp_path, monkeypatch):
    package, names = Path(beam_flowers.__file__).parent, []

    def stop(_):
        stack = traceback.extract_stack()
        names.extend(f.name for f in stack if package in Path(f.filename).parents)
        raise InterruptedError

    monkeypatch.setattr(beam.Pipeline, "run", stop)
    with pytest.raises(InterruptedError):
        embed(original / "images", tmp_path / "store")
    assert " ".join(names) == (
        "embed_images bring_up_to_date _attempt _carry_out run_plan run_pipeline"
    )


@pytest.mark.parametrize("shards", [0, -1])
def test_shards_are_at_least_one(shards):
    with pytest.raises(InputError, match="shards must be 1 or more"):
        RunOptions(shards=shards)


def test_paths_may_be_relative(original, tmp_path, monkeypatch):
    monkeypatch.chdir(original)
    embed("images", os.path.relpath(tmp_path / "store"))
    assert all(Path(row["uri"]).is_absolute() for row in rows(tmp_path / "store"))
