"""Bad files cost one row each and nothing else."""

import re
import shutil

import pyarrow.parquet as pq
import pytest
from stores import cli, embed, junk, refusing, rejects, rows, visible

from beam_flowers import files
from beam_flowers.store.commits import latest
from beam_flowers.workflows import embed as embed_run


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """(folder, store, summary) of a collection with everything in it."""
    base = tmp_path_factory.mktemp("junk")
    folder = junk(base / "images")
    return folder, base / "store", embed(folder, base / "store")


def test_each_file_is_in_one_of_the_two_tables(embedded):
    folder, store, _ = embedded
    good, bad = {row["uri"] for row in rows(store)}, set(rejects(store))
    assert not good & bad
    assert good | bad == visible(folder)


def test_names_are_kept_as_they_are(embedded):
    _, store, _ = embedded
    good = {row["relative_path"]: row["label"] for row in rows(store)}
    names = ["a b.jpg", "y[1].jpg", "x*?.jpg", "new\nline.jpg", "百合%20.jpg", "is-a-png.jpg"]
    assert good == {f"玫瑰 [odd]/{n}": "玫瑰 [odd]" for n in names} | {"without-label.jpg": None}


def test_a_format_is_told_by_content(embedded):
    formats = {row["relative_path"]: row["format"] for row in rows(embedded[1])}
    assert formats["玫瑰 [odd]/is-a-png.jpg"] == "PNG"


@pytest.mark.parametrize(
    ("name", "error_class"),
    [
        ("empty.jpg", "EmptyFile"),
        ("text.jpg", "NotAnImage"),
        ("LICENSE.txt", "NotAnImage"),
        ("Thumbs.db", "NotAnImage"),
        ("truncated.jpg", "Truncated"),
        ("bomb.png", "TooManyPixels"),
        ("new.jxl", "UnsupportedFormat"),
        ("dangling.jpg", "DanglingLink"),
        ("pipe.jpg", "NotARegularFile"),
    ],
)
def test_each_reject_says_why(embedded, name, error_class):
    folder, store, _ = embedded
    assert rejects(store)[str(folder / "bad" / name)] == error_class


def test_counts_are_exact(embedded):
    folder, store, summary = embedded
    assert str(summary) == "embedded 7, reused 0, rejected 9, hidden 2, of 18"
    assert summary.failures == 6  # Three files are no images at all.
    assert len(visible(folder)) == len(rows(store)) + len(rejects(store)) == 16


def test_messages_are_the_same_on_every_machine(embedded):
    for part in embedded[1].glob("__rejects/**/*.parquet"):
        for row in pq.read_table(part).to_pylist():
            assert not re.search(r"0x[0-9a-f]{4}|/tmp|\n", row["message"])


def test_a_second_run_computes_and_changes_nothing(embedded, monkeypatch):
    folder, store, first = embedded
    monkeypatch.setattr(embed_run, "run_plan", lambda *_, **__: pytest.fail("it ran"))
    version = latest(str(store)).version
    again = embed(folder, store)
    assert str(again) == "embedded 0, reused 7, rejected 9, hidden 2, of 18"
    assert (again.dataset_hash, again.failures) == (first.dataset_hash, first.failures)
    assert latest(str(store)).version == version


def test_a_file_that_cannot_be_opened_is_tried_again(embedded, tmp_path, monkeypatch):
    folder = tmp_path / "images"
    shutil.copytree(embedded[0] / "玫瑰 [odd]", folder)
    locked = str(folder / "a b.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(files, "read_bytes", refusing(locked))
        assert embed(folder, tmp_path / "store").rejected == 1
    assert rejects(tmp_path / "store") == {locked: "PermissionError"}
    retried = embed(folder, tmp_path / "store")
    assert str(retried) == "embedded 1, reused 5, rejected 0, hidden 0, of 6"
    assert rejects(tmp_path / "store") == {}
    assert locked in {row["uri"] for row in rows(tmp_path / "store")}


def test_rejects_that_fail_again_stay_once(embedded, tmp_path):
    folder, store, first = embedded
    shutil.copytree(store, tmp_path / "store")
    again = embed(folder, tmp_path / "store", retry_rejects=True)
    assert str(again) == "embedded 0, reused 7, rejected 9, hidden 2, of 18"
    assert (again.dataset_hash, again.failures) == (first.dataset_hash, 6)
    assert len(rejects(tmp_path / "store")) == 9


def test_too_many_failures_end_in_exit_code_3_after_all_is_written(embedded, tmp_path, capsys):
    folder, _, first = embedded
    store = tmp_path / "store"
    assert cli("embed", folder, "--store", store, "--max-bad-fraction", "0.4") == 3
    assert "6 of 13 images failed, 46.2%" in capsys.readouterr().err
    assert latest(str(store)).sections.popitem()[1].dataset_hash == first.dataset_hash
    assert cli("embed", folder, "--store", store, "--max-bad-fraction", "0.5") == 0


def test_files_that_are_no_images_are_no_failures(embedded, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(embedded[0] / "玫瑰 [odd]", folder)
    (folder / "LICENSE.txt").write_text("All under CC-BY.")
    assert cli("embed", folder, "--store", tmp_path / "s", "--max-bad-fraction", "0") == 0


@pytest.mark.parametrize("content", ["nothing", "hidden", "text"])
def test_a_folder_without_images_is_an_error(tmp_path, capsys, content):
    folder = tmp_path / "images"
    folder.mkdir()
    if content != "nothing":
        (folder / {"hidden": ".a.jpg", "text": "a.txt"}[content]).write_text("text")
    assert cli("embed", folder, "--store", tmp_path / "store") == 1
    message = capsys.readouterr().err
    assert "no file to read" in message or "__rejects" in message
