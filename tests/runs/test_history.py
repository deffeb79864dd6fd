"""Replaced versions: readers keep theirs, and any of the last week can be read or restored."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import make_images
import pandas as pd
import pytest
from places import OLD
from stores import changed_rows, cli, embed, photos, rejects, rows, scenes

import beam_flowers as bf
from beam_flowers.errors import StoreError
from beam_flowers.store import commits, history
from beam_flowers.store.commits import expired, latest, publish, purge, read_manifest, versions
from beam_flowers.store.features import read_features
from beam_flowers.store.fsck import fsck
from beam_flowers.store.parts import Place, read_part

DAY = 24 * 60 * 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of three versions: ten images, the roses relabelled, the tulips forgotten."""
    base = tmp_path_factory.mktemp("history")
    folder = photos(base / "images", 2)
    (folder / "bad.jpg").write_text("no image")
    embed(folder, base / "store", shards=2)
    (folder / "roses").rename(folder / "Rosa")
    assert cli("embed", folder, "--store", base / "store", "--verify") == 0
    assert cli("forget", base / "store", folder / "tulips") == 0
    return base


@pytest.fixture
def store(made, tmp_path):
    return Path(shutil.copytree(made / "store", tmp_path / "store"))


def hashes(store):
    return {
        number: read_manifest(str(store), number).sections.popitem()[1].dataset_hash
        for number in versions(str(store))
    }


def labels(table):
    return sorted(table["label"].to_pylist())


def test_each_version_can_be_read(store):
    found = {n: bf.open_dataset(str(store), version=n).to_table() for n in (1, 2, 3)}
    assert [len(table) for table in found.values()] == [10, 10, 8]
    assert labels(found[1]).count("roses") == labels(found[2]).count("Rosa") == 2
    assert not [uri for uri in found[3]["uri"].to_pylist() if "/tulips/" in uri]
    assert bf.open_dataset(str(store)).to_table().num_rows == 8
    # A plain reader sees the newest alone.
    assert len(pd.read_parquet(store)) == 8
    assert len(list(store.glob("**/*.parquet"))) == len(
        list(store.glob("backbone=*/*.parquet"))
    ) + len(list(store.glob("__rejects/*/*.parquet")))


def test_history_says_by_whom_and_how_many(store, capsys):
    newest, second, first = history.history(str(store))
    assert [v.number for v in (newest, second, first)] == [3, 2, 1]
    assert [v.rows for v in (newest, second, first)] == [8, 10, 10]
    assert [v.rejects for v in (newest, second, first)] == [1, 1, 1]
    assert newest.time >= second.time >= first.time > time.time() - DAY
    assert newest.command == "forget"
    assert (second.command, second.options["verify"]) == ("embed", True)
    assert second.program.startswith("beam-flowers ")
    assert all(v.readable for v in (newest, second, first))
    assert cli("history", store) == 0
    assert "embed vectors=float32 verify=True" in capsys.readouterr().out


def counted(table):
    """Rows added, removed and changed, by version."""
    return {v.number: (v.added, v.removed, v.changed) for v in history.history(str(table))}


def test_history_says_what_each_commit_changed(store, capsys):
    # The folder was renamed: these images have another address.
    assert counted(store) == {1: (10, 0, 0), 2: (2, 2, 0), 3: (0, 2, 0)}
    assert cli("restore", store, 1) == 0
    assert counted(store)[4] == changed_rows(store, 3, 4) == (4, 2, 0)
    capsys.readouterr()
    assert cli("history", store) == 0
    newest = capsys.readouterr().out.splitlines()[1]
    assert newest.split()[3:] == ["10", "1", "4", "2", "0", "restore", "version=1"]


@pytest.mark.slow
def test_an_edit_and_another_label_are_changes(tmp_path):
    folder, store = scenes(tmp_path / "images" / "a", 6), tmp_path / "store"
    labels = tmp_path / "labels.csv"

    def embed_labelled(**label_of):
        lines = [f"{path},{label_of.get(path.stem[-1:], 'a')}" for path in folder.iterdir()]
        labels.write_text("\n".join(["uri,label", *lines]))
        embed(labels, store)

    embed_labelled()
    (folder / "0000.jpg").write_bytes(make_images.jpeg(seed=90))
    (folder / "0001.jpg").rename(folder / "moved.jpg")
    (folder / "0005.jpg").unlink()
    (folder / "new.jpg").write_bytes(make_images.jpeg(seed=91))
    embed_labelled()
    assert counted(store)[2] == changed_rows(store, 1, 2) == (2, 2, 1)
    embed_labelled(**{"2": "b", "3": "b"})
    assert counted(store)[3] == changed_rows(store, 2, 3) == (0, 0, 2)
    # What was an image is one no more.
    (folder / "0002.jpg").write_bytes(make_images.TEXT)
    embed_labelled(**{"2": "b", "3": "b"})
    assert counted(store)[4] == changed_rows(store, 3, 4) == (0, 1, 0)
    assert cli("embed", folder, "--store", store, "--encoding", "plain", "--verify") == 0
    assert counted(store)[5] == changed_rows(store, 4, 5)


def test_a_version_that_lost_a_part_has_no_counts(tmp_path, capsys):
    """Nobody can say which rows were in it."""
    folder, store = scenes(tmp_path / "images", 3), tmp_path / "store"
    embed(folder, store)
    next(store.glob("backbone=*/*.parquet")).unlink()
    assert cli("embed", folder, "--store", store) == 1
    assert counted(store) == {1: (3, 0, 0), 2: (None, None, None)}
    capsys.readouterr()
    assert cli("history", store) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[5:8] == ["-", "-", "-"]


def test_no_address_is_written_down(store):
    """A path or a handle may hold a password."""
    for path in store.glob("__commits/*.json"):
        made = read_manifest(str(store), int(path.stem)).made
        assert str(store.parent) not in str(made)
        assert set(made.get("options", {})) <= {"verify", "vectors"}


def test_restore_brings_rows_rejects_and_hash_back_under_new_names(store):
    before, names = hashes(store), {p.name for p in store.rglob("part-*")}
    assert cli("restore", store, 1) == 0
    assert hashes(store) == {**before, 4: before[1]}
    assert len(rows(store)) == 10
    assert len(rejects(store)) == 1
    back = {p.name for p in store.glob("backbone=*/*.parquet")}
    assert not {f"{name}.retired" for name in back} & names
    assert fsck(str(store)).is_sound
    assert cli("restore", store, 3) == 0
    assert hashes(store)[5] == before[3]
    assert len(pd.read_parquet(store)) == 8


def test_a_version_that_is_not_there_is_named(store):
    with pytest.raises(StoreError, match="has no version 9: it has 1 to 3"):
        bf.open_dataset(str(store), version=9)
    with pytest.raises(StoreError, match="has no version 0"):
        history.restore(str(store), 0)


def test_versions_go_a_week_after_they_were_replaced(store, monkeypatch):
    root = str(store)
    now = time.time()
    assert not list(expired(root))
    monkeypatch.setattr(commits.time, "time", lambda: now + 8 * DAY)
    publish(root)
    # The newest two stay, however old they are.
    assert versions(root) == [2, 3]
    assert fsck(root).left_over == []
    for number in (2, 3):
        assert bf.open_dataset(root, version=number).to_table().num_rows == {2: 10, 3: 8}[number]


def test_the_age_of_files_does_not_matter(store):
    for path in store.rglob("*"):
        os.utime(path, (0, 0))
    publish(str(store))
    assert versions(str(store)) == [1, 2, 3]
    assert bf.open_dataset(str(store), version=1).to_table().num_rows == 10


def test_only_so_many_versions_are_kept(store):
    gone = list(expired(str(store), most=2))
    assert [uri for uri in gone if uri.endswith(".json")] == [f"{store}/__commits/00000001.json"]
    assert any(uri.endswith(".retired") for uri in gone)


def test_forget_now_leaves_no_copy(made, tmp_path):
    store = Path(shutil.copytree(made / "store", tmp_path / "store"))
    folder = made / "images"
    kept = {row["uri"] for row in rows(store) if "/daisy/" not in row["uri"]}
    assert cli("forget", store, folder / "daisy", "--now") == 0
    assert versions(str(store)) == [4]
    assert not list(store.glob("__retired/**/*.*"))
    seen = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    assert b"/daisy/" not in seen
    assert {row["uri"] for row in rows(store)} == kept


def test_purge_leaves_other_files_alone(store):
    (store / "__retired" / "notes.txt").write_text("mine")
    purge(str(store))
    assert [p.name for p in (store / "__retired").rglob("*")] == ["notes.txt"]
    assert len(rows(store)) == 8


def test_a_reader_of_an_older_version_is_not_disturbed(store):
    """It pins its version, and finds parts that are replaced under its hands."""
    (section,) = latest(str(store)).sections.values()
    (key,) = latest(str(store)).sections
    place = Place(str(store), key, section.fingerprint)
    before = {part.name: read_part(place, part.name) for part in section.rows}
    assert cli("restore", store, 1) == 0
    assert cli("restore", store, 2) == 0
    for name, table in before.items():
        assert read_part(place, name).equals(table)


WRITER = """
import sys
from beam_flowers.store.history import restore
for number in range(25):
    restore(sys.argv[1], 1 + number % 2)
"""


@pytest.mark.slow
def test_readers_in_a_loop_beside_commits_are_never_wrong(store):
    """Ours; plain ones may see a part twice or not yet while a commit is being published."""
    expected = {}
    for number in (1, 2):
        table = bf.open_dataset(str(store), version=number).to_table()
        expected[tuple(labels(table))] = number
    assert cli("restore", store, 1) == 0
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(store)])
    wrong, reads, failures = [], 0, []

    def read():
        nonlocal reads
        while writer.poll() is None:
            try:
                _, features = read_features(str(store))
            except Exception as error:
                failures.append(error)
                return
            reads += 1
            if tuple(sorted(features.labels)) not in expected:
                wrong.append(features.labels)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.wait(60) == 0
    assert not failures
    assert not wrong
    assert reads > 10
    assert len(versions(str(store))) > 20
    assert len(pd.read_parquet(store)) == 10


def test_a_store_of_before_has_no_parts_of_older_versions(tmp_path, capsys):
    store = Path(shutil.copytree(OLD / "store", tmp_path / "store"))
    assert cli("history", store) == 0
    said = capsys.readouterr().out
    assert "unknown" in said
    assert said.splitlines()[1].split()[4:7] == ["-", "-", "-"]


def test_a_score_table_has_a_history_too(made, tmp_path):
    store = Path(shutil.copytree(made / "store", tmp_path / "store"))
    assert cli("train", store, "--model", tmp_path / "model") == 0
    table = tmp_path / "labels"
    command = ("score", store, "--model", tmp_path / "model", "--output", table)
    assert cli(*command) == 0
    assert cli("restore", store, 1) == 0
    assert cli(*command) == 0
    found = [bf.open_dataset(str(table), version=n).to_table().num_rows for n in (1, 2)]
    assert found == [8, 10]
    assert list(counted(table).values()) == [(4, 2, 0), (8, 0, 0)]
    assert cli("restore", table, 1) == 0
    assert len(rows(table)) == 8


def half_published(store):
    """As after a kill: the newest version's parts are in `__work` still, the old ones published."""
    manifest = latest(str(store))
    ((key, section),) = manifest.sections.items()
    place = Place(str(store), key, section.fingerprint)
    older = read_manifest(str(store), manifest.version - 1).sections[key]
    for part in {*section.parts} - {*older.parts}:
        Path(place.work(part.name)).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(place.published(part.name), place.work(part.name))
    for part in {*older.parts} - {*section.parts}:
        shutil.move(place.retired(part.name), place.published(part.name))
    for mark in (store / "__commits").glob("*.published"):
        mark.unlink()


@pytest.mark.parametrize("command", ["train", "report"])
def test_a_reading_command_finishes_what_a_killed_one_began_to_publish(store, tmp_path, command):
    expected = pd.read_parquet(store).sort_values("uri").reset_index(drop=True)
    half_published(store)
    assert len(pd.read_parquet(store)) != len(expected)
    more = (
        ["--model", tmp_path / "model"] if command == "train" else ["--output", tmp_path / "r.html"]
    )
    assert cli(command, store, *more) == 0
    found = pd.read_parquet(store).sort_values("uri").reset_index(drop=True)
    assert found["uri"].tolist() == expected["uri"].tolist()
    assert [p.name for p in (store / "__commits").glob("*.published")] == ["00000003.published"]


def test_a_report_finishes_what_a_killed_score_began_to_publish(store, tmp_path):
    model, table = tmp_path / "model", tmp_path / "scores"
    flags = ["--model", model, "--output", table]
    assert cli("train", store, "--model", model) == 0
    for number in (2, 3):
        assert cli("restore", store, number) == 0
        assert cli("score", store, *flags) == 0
    expected = rows(table)
    half_published(table)
    assert len(pd.read_parquet(table)) != len(expected)
    assert cli("report", table, "--output", tmp_path / "r.html") == 0
    assert rows(table) == expected


def test_a_store_that_may_only_be_read_is_read(store, monkeypatch):
    half_published(store)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    for name in ("move", "copy", "delete", "write_atomic", "put_if_absent"):
        monkeypatch.setattr(commits.files, name, refuse)
    _, features = read_features(str(store))
    assert len(features.uris) == 8
