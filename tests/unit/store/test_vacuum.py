"""`vacuum`: only files of our own forms, old enough and needed by no version, are deleted."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stores import cli
from vectors import FINGERPRINT, embedding

from beam_flowers.records import Reject
from beam_flowers.store import commits
from beam_flowers.store.append import store_place
from beam_flowers.store.commits import Manifest, Section
from beam_flowers.store.parts import RejectRows, write_part
from beam_flowers.store.schema import rejects_table
from beam_flowers.store.vacuum import DAY, vacuum

FOREIGN = [
    "part-00000-of-00001.parquet",
    "part-0.parquet",
    "notes.txt",
    "photos/.lock",
    "photos/part-0123456789abcdef01234567.parquet",
    "backbone=tiny-cdcdcdcd/part-0.parquet",
    "backbone=tiny-cdcdcdcd/part-0123456789abcdef01234567.parquet",
    "backbone=tiny-cdcdcdcd/copy of part.parquet",
    "label=daisy/part-0123456789abcdef01234567.parquet",
    "__work/notes.txt",
    "__work/0123456789abcdef/part-0.parquet",
    "__work/0123456789abcdef/part-0123456789abcdef01234567.parquet.bak",
    "__work/run-mine/units.parquet",
    "__work/run-0123456789abcdef/thesis.docx",
    "__commits/notes.json",
    "__commits/1.json",
    "__commits/00000001.json.bak",
    "__rejects/mine.parquet",
    "__rejects/photos/rejects-0123456789abcdef01234567.parquet",
]
LEFT_OVER = [
    "__work/0123456789abcdef/part-0123456789abcdef01234567.parquet",
    "__work/0123456789abcdef/rejects-0123456789abcdef01234567.parquet",
    "__work/0123456789abcdef/label=a b%3A/part-0123456789abcdef01234567.parquet",
    "__work/0123456789abcdef/.part-0123456789abcdef01234567.parquet.0123456789ab",
    "__work/run-0123456789abcdef/units.parquet",
    "__work/run-0123456789abcdef/nonce",
    "__work/run-0123456789abcdef/references/01234567",
    "__work/run-0123456789abcdef/answers/host-0123456789abcdef-77",
    "__work/run-0123456789abcdef/.result.json.0123456789ab",
    "__work/clock-0123456789ab",
    "__commits/.00000009.json.0123456789ab",
    "__rejects/backbone=tiny-cdcdcdcd/rejects-0123456789abcdef01234567.parquet",
    "__rejects/rejects-0123456789abcdef01234567.parquet",
]


@pytest.fixture
def versions(tmp_path):
    """A store of twelve versions, each with parts of its own, the newest one unpublished."""
    place, kind = store_place(str(tmp_path / "store"), "tiny", FINGERPRINT)
    for number in range(1, 13):
        own = replace(place, run=f"{number:016x}")
        row = embedding(f"{number}.jpg", seed=number)
        rejects = rejects_table([Reject(row.image, "decode", "Truncated", "cut", None)])
        parts = (
            write_part(own, kind, kind.table([row])),
            write_part(own, RejectRows(), rejects),
        )
        section = Section(FINGERPRINT, {"name": "tiny"}, parts)
        commits.publish(place.root)
        assert commits.commit(place.root, Manifest(number, own.run, {place.section: section}))
    return place


def put(root, names):
    for name in names:
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")


def everything(root):
    return {str(path.relative_to(root)) for path in Path(root).rglob("*") if path.is_file()}


def aged(root, seconds=2 * DAY):
    for path in [*Path(root).rglob("*")]:
        os.utime(path, (time.time() - seconds,) * 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_ours_is_reported_and_never_deleted(versions, name):
    commits.publish(versions.root)
    put(versions.root, [name])
    aged(versions.root)
    found = vacuum(versions.root, retention=0)
    assert found.foreign == (f"{versions.root}/{name}",)
    assert Path(versions.root, name).read_bytes() == b"content"


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT_OVER)
def test_what_a_killed_run_left_is_deleted_when_it_is_old(versions, name):
    commits.publish(versions.root)
    put(versions.root, [name])
    assert vacuum(versions.root).deleted == ()
    assert Path(versions.root, name).exists()
    aged(versions.root)
    found = vacuum(versions.root, retention=0)
    assert f"{versions.root}/{name}" in found.deleted
    assert found.foreign == ()
    assert not Path(versions.root, name).exists()


def test_the_newest_two_versions_keep_all_that_they_name(versions):
    parts = {
        part.name
        for number in (11, 12)
        for part in commits.read_manifest(versions.root, number).sections[versions.section].parts
    }
    aged(versions.root)
    # Those of version 12 lie in the work folder still, those of 11 are published.
    assert not [
        uri
        for uri in vacuum(versions.root, dry_run=True, retention=0).deleted
        if uri.rpartition("/")[2] in parts
    ]
    found = vacuum(versions.root, retention=0)
    assert not [uri for uri in found.deleted if uri.rpartition("/")[2] in parts]
    assert commits.versions(versions.root) == [11, 12]
    # Another run's parts are published by the next run, which deletes what they replace.
    for number, locate in ((11, versions.published), (12, versions.work)):
        section = commits.read_manifest(versions.root, number).sections[versions.section]
        assert all(Path(locate(part.name)).exists() for part in section.parts)


def test_parts_that_only_older_versions_name_go(versions):
    # Publishing deletes what the last eight versions replaced; those before are vacuum's.
    (part, rejects) = commits.read_manifest(versions.root, 2).sections[versions.section].parts
    commits.publish(versions.root)
    names = [f"{versions.section}/{part.name}", f"__rejects/{versions.section}/{rejects.name}"]
    put(versions.root, names)
    assert vacuum(versions.root).young == 2
    aged(versions.root)
    found = vacuum(versions.root, retention=0)
    assert {f"{versions.root}/{name}" for name in names} < set(found.deleted)
    # Ten versions with a part and a reject part each, and these two.
    assert len(found.deleted) == 10 * 3 + 2
    assert len(pd.read_parquet(versions.root)) == 1


def test_parts_that_were_committed_and_not_published_stay(versions):
    aged(versions.root)
    found = vacuum(versions.root, dry_run=True, retention=0)
    names = [part.name for part in commits.latest(versions.root).sections[versions.section].parts]
    assert not [uri for uri in found.deleted if uri.rpartition("/")[2] in names]
    vacuum(versions.root, retention=0)
    assert all(Path(versions.work(name)).exists() for name in names)
    commits.publish(versions.root)
    assert all(Path(versions.published(name)).exists() for name in names)


def test_a_run_that_still_writes_keeps_what_it_wrote_long_ago(versions):
    commits.publish(versions.root)
    old = ["__work/run-0123456789abcdef/units.parquet", LEFT_OVER[0]]
    put(versions.root, old)
    aged(versions.root)
    put(versions.root, ["__work/run-0123456789abcdef/answers/host-0123456789abcdef-1"])
    put(versions.root, ["__work/0123456789abcdef/part-ffffffffffffffffffffffff.parquet"])
    found = vacuum(versions.root, retention=0)
    assert set(old) < everything(versions.root)
    assert found.young == 4


def test_dry_run_changes_nothing_and_names_what_would_go(versions, capsys):
    put(versions.root, [*LEFT_OVER, *FOREIGN])
    aged(versions.root)
    before = everything(versions.root)
    expected = vacuum(versions.root, dry_run=True)
    assert cli("vacuum", versions.root, "--dry-run") == 0
    assert everything(versions.root) == before
    out = capsys.readouterr().out
    assert all(f"would delete {uri}\n" in out for uri in expected.deleted)
    assert f"would delete {len(expected.deleted)} files" in out
    assert all(f"left alone: {uri}\n" in out for uri in expected.foreign)
    assert cli("vacuum", versions.root, "--older-than", "1d") == 0
    assert set(FOREIGN) < everything(versions.root)
    assert not set(LEFT_OVER) & everything(versions.root)


@pytest.mark.parametrize("age", ["yesterday", "-1h", "24", "1 week"])
def test_an_age_that_is_none_is_refused(versions, age, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli("vacuum", versions.root, f"--older-than={age}")
    assert "give a number with s, m, h or d" in capsys.readouterr().err


def test_the_lock_of_the_manifests_stays_and_is_no_news(versions):
    commits.publish(versions.root)
    put(versions.root, ["__commits/.lock"])
    aged(versions.root)
    found = vacuum(versions.root, retention=0)
    assert Path(versions.root, "__commits", ".lock").exists()
    assert not [uri for uri in (*found.deleted, *found.foreign) if uri.endswith(".lock")]


def test_the_table_that_spark_wrote_beside_the_store_survives(versions):
    folder = Path(versions.root, "export")
    folder.mkdir()
    pq.write_table(pa.table({"a": [1]}), folder / "part-00000-1f-c000.snappy.parquet")
    aged(versions.root)
    assert cli("vacuum", versions.root) == 0
    assert len(pq.read_table(folder)) == 1


def test_a_commit_between_its_two_looks_keeps_manifest_and_parts(versions, monkeypatch):
    """Another run commits after vacuum has listed the files and before it reads the manifests."""
    commits.publish(versions.root)
    place, kind = store_place(versions.root, "tiny", FINGERPRINT)
    part = write_part(place, kind, kind.table([embedding("new.jpg", seed=99)]))
    aged(versions.root)
    look = commits.versions

    def commit_then_look(root):
        if look(root)[-1] == 12:
            section = Section(FINGERPRINT, {"name": "tiny"}, (part,))
            assert commits.commit(root, Manifest(13, place.run, {place.section: section}))
        return look(root)

    monkeypatch.setattr("beam_flowers.store.vacuum.versions", commit_then_look)
    found = vacuum(versions.root, retention=0)
    assert commits.versions(versions.root) == [11, 12, 13]
    assert Path(place.work(part.name)).exists()
    assert place.work(part.name) not in found.deleted
    commits.publish(versions.root)
    assert pd.read_parquet(versions.root)["uri"].tolist() == ["/r/new.jpg"]


@pytest.mark.parametrize("gone", [3, 12])
def test_a_record_that_vacuum_deletes_under_a_reader_ends_no_run(versions, gone, monkeypatch):
    """`vacuum --older-than 0` of another process deletes a manifest between a look and a read."""
    look = commits.versions

    def look_then_delete(root):
        found = look(root)
        if (path := Path(root, "__commits", f"{gone:08d}.json")).exists():
            newer = path.with_name("00000013.json")
            newer.write_text(path.with_name("00000012.json").read_text().replace(": 12", ": 13"))
            path.unlink()
        return found

    monkeypatch.setattr(commits, "versions", look_then_delete)
    commits.publish(versions.root)
    assert commits.latest(versions.root).version == 13
    assert len(pd.read_parquet(versions.root)) == 1
