"""Damaged and lost parts: found before a row is copied, and never committed away."""

import contextlib
import hashlib
import io
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import OLD
from stores import cli, embed, photos, refusing, rejects, rows

from beam_flowers import files
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import PartDamagedError, PartLostError, StoreError
from beam_flowers.store.commits import latest
from beam_flowers.store.features import read_features
from beam_flowers.store.fsck import fsck
from beam_flowers.workflows.embed import RunOptions, embed_images

NETWORK = resolve("efficientnet-lite0")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """`images`: twenty photographs; `store`: their rows in four parts."""
    base = tmp_path_factory.mktemp("integrity")
    photos(base / "images", 4)
    embed(base / "images", base / "store", shards=4)
    return base


@pytest.fixture
def work(made, tmp_path):
    """The same images, which keep their names, and a store that a test may damage."""
    shutil.copytree(made / "store", tmp_path / "store")
    return made / "images", tmp_path / "store"


def parts_of(store):
    return sorted(store.glob("backbone=*/*.parquet"))


def flip(path, position=None, bit=0):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1 << bit
    path.write_bytes(data)


def run(images, store, **options):
    """Embeds; returns the summary and the warnings."""
    said = []
    summary = embed_images(
        [str(images)], str(store), NETWORK, RunOptions(**options), warn=said.append
    )
    return summary, said


def section(store):
    (found,) = latest(str(store)).sections.values()
    return found


def test_a_part_is_described_with_its_bytes(made):
    for part in section(made / "store").rows:
        path = next((made / "store").glob(f"backbone=*/{part.name}"))
        assert part.bytes == path.stat().st_size
        pages = pq.ParquetFile(path, page_checksum_verification=True)
        assert pages.read().num_rows == part.rows


def test_no_flipped_bit_gives_other_rows(work):
    """Of each flip a reader sees an error or the same rows; a copying one always an error."""
    _, store = work
    path = parts_of(store)[0]
    whole = path.read_bytes()
    expected = {row["uri"]: row for row in rows(store)}
    draws, wrong = random.Random(0), 0
    for _ in range(60):
        flip(path, draws.randrange(len(whole)), draws.randrange(8))
        with contextlib.suppress(StoreError):
            _, features = read_features(str(store))
            for uri, vector in zip(features.uris, features.vectors, strict=True):
                wrong += not np.array_equal(vector, expected[uri]["vector"])
        found = fsck(str(store))
        assert list(found.damaged) == [str(path)]
        path.write_bytes(whole)
    assert wrong == 0
    assert fsck(str(store)).is_sound


@pytest.mark.slow
@pytest.mark.parametrize("position", [None, -20], ids=["a page", "the footer"])
def test_a_damaged_part_is_made_again_and_set_aside(work, position):
    images, store = work
    before, path = section(store), parts_of(store)[0]
    flip(path, position)
    summary, said = run(images, store, verify=True)
    assert summary.dataset_hash == before.dataset_hash
    assert 0 < summary.embedded < 20
    assert summary.lost == summary.embedded
    assert f"{path} is damaged: of its {summary.lost} rows" in " ".join(said)
    assert [part.name for part in section(store).lost] == [path.name]
    assert not path.exists()
    assert [p.name for p in store.glob("__damaged/*/*")] == [f"{path.name}.damaged"]
    assert len(rows(store)) == 20
    # It is said once, and stays written down until somebody clears it.
    assert run(images, store) == (summary.__class__(0, 20, 0, 0, 20, 0, summary.dataset_hash), [])
    assert not fsck(str(store)).is_sound
    assert fsck(str(store), repair=True).back == 0
    assert section(store).lost == ()
    assert fsck(str(store)).is_sound
    assert section(store).dataset_hash == before.dataset_hash


def before_layout_3(store):
    """Makes the store one whose manifest and parts have no digest of bytes."""
    for path in parts_of(store):
        pq.write_table(pq.ParquetFile(path).read(), path, write_page_checksum=False)
    (manifest,) = store.glob("__commits/*.json")
    document = json.loads(manifest.read_text())
    document["layout"] = 2
    for section in document["sections"].values():
        for part in section["parts"]:
            del part["bytes"], part["sha256"]
    manifest.write_text(json.dumps(document))


def test_a_verified_run_describes_the_bytes_of_parts_of_before(work):
    images, store = work
    before = section(store).dataset_hash
    before_layout_3(store)
    assert all(part.sha256 is None for part in section(store).parts)
    summary, said = run(images, store, verify=True)
    assert (summary.embedded, summary.dataset_hash, said) == (0, before, [])
    for part in section(store).parts:
        data = next(store.glob(f"backbone=*/{part.name}")).read_bytes()
        assert (part.bytes, part.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 1
        with pytest.raises((OSError, pa.ArrowException)):
            pq.ParquetFile(io.BytesIO(damaged), page_checksum_verification=True).read()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["hashed first", "read at once"])
def test_rows_of_files_that_cannot_be_read_are_not_kept_from_a_damaged_part(
    work, monkeypatch, step
):
    """Nor from one of before, of whose bytes there is no digest."""
    images, store = work
    before_layout_3(store)
    path = parts_of(store)[0]
    rows_there = pq.ParquetFile(path).read()
    vectors = np.stack(rows_there["vector"].to_numpy(zero_copy_only=False))
    vectors[0, 0] += 1
    column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    index = rows_there.schema.get_field_index("vector")
    other = rows_there.set_column(index, rows_there.schema.field(index), column)
    pq.write_table(other, path, write_page_checksum=False)
    if step == "read at once":  # Of files whose sizes are those of no stored row.
        monkeypatch.setattr(
            "beam_flowers.store.ledger_sql.DOUBT", "CREATE TABLE doubtful AS SELECT 0 AS bytes"
        )
    unreadable = rows_there["uri"].to_pylist()
    for uri in unreadable:
        monkeypatch.setattr(files, "read_bytes", refusing(uri))
    _, said = run(images, store, verify=True)
    assert any(f"{path} is damaged" in line for line in said)
    assert rejects(store) == dict.fromkeys(unreadable, "PermissionError")
    assert len(rows(store)) == 20 - len(unreadable)


def test_a_verified_run_computes_only_what_is_damaged(work):
    images, store = work
    flip(parts_of(store)[1])
    summary, _ = run(images, store, verify=True)
    assert summary.embedded + summary.reused == 20
    assert summary.embedded == summary.lost


def test_a_row_is_not_copied_from_a_damaged_part(work, tmp_path):
    """A moved image, whose vector lies in a part with a flipped bit, is computed."""
    images, store = work
    moved = Path(shutil.copytree(images, tmp_path / "moved"))
    expected = {row["sha256"]: row["vector"] for row in rows(store)}
    for path in parts_of(store):
        flip(path, -20)  # The footer: no page tells.
    summary, _ = run(moved, store)
    assert (summary.embedded, summary.reused) == (20, 0)
    for row in rows(store):
        np.testing.assert_array_equal(row["vector"], expected[row["sha256"]])


def test_rows_that_a_run_did_not_list_are_not_committed_away(work):
    images, store = work
    path = parts_of(store)[0]
    held = pq.read_table(path)["uri"].to_pylist()
    content = path.read_bytes()
    path.unlink()
    roses = images / "roses"
    summary, said = run(roses, store)
    again = [uri for uri in held if "/roses/" in uri]
    assert summary.embedded == len(again)
    assert any(f"{path} is gone: of its {len(held)} rows" in line for line in said)
    assert len(rows(store)) == 20 - len(held) + len(again)
    # The file comes back: no row is doubled, and `fsck` adds those that have none.
    path.write_bytes(content)
    assert run(roses, store)[0].total == 4
    assert len(rows(store)) == 20 - len(held) + len(again)
    assert fsck(str(store), repair=True).back == len(held) - len(again)
    assert len(rows(store)) == 20
    assert latest(str(store)).counts["added"] == len(held) - len(again)
    assert fsck(str(store)).is_sound
    assert run(images, store)[0].embedded == 0


def test_a_damaged_file_that_comes_back_is_set_aside(work):
    images, store = work
    path = parts_of(store)[0]
    content = path.read_bytes()
    path.unlink()
    run(images / "roses", store)
    path.write_bytes(content[:-1])
    run(images / "tulips", store)
    assert not path.exists()
    assert [p.name for p in store.glob("__damaged/*/*")] == [f"{path.name}.damaged"]
    assert fsck(str(store), repair=True).back == 0


def test_the_command_ends_with_an_error_code_once(work, capsys):
    images, store = work
    parts_of(store)[0].unlink()
    assert cli("embed", images, "--store", store) == 1
    assert "is gone: of its" in capsys.readouterr().err
    assert cli("embed", images, "--store", store) == 0


def test_forget_clears_what_is_lost(work):
    images, store = work
    path = parts_of(store)[0]
    content = path.read_bytes()
    path.unlink()
    run(images / "roses", store)
    path.write_bytes(content)
    run(images / "tulips", store)
    assert cli("forget", store, images / "daisy", "--now") == 0
    assert section(store).lost == ()
    assert not list(store.rglob(f"{path.name}*"))
    assert not [row for row in rows(store) if "/daisy/" in row["uri"]]


def test_reading_names_a_lost_and_a_damaged_part(work):
    _, store = work
    first, second = parts_of(store)[:2]
    flip(second)
    with pytest.raises(PartDamagedError, match=f"{second} is damaged .*CRC.*fsck {store}"):
        read_features(str(store))
    first.unlink()
    with pytest.raises(PartLostError, match=f"{first.name} is gone"):
        read_features(str(store))


def test_a_store_of_before_is_checked_by_its_rows(tmp_path):
    """Parts that were described without the digest of their bytes."""
    store = Path(shutil.copytree(OLD / "store", tmp_path / "store"))
    assert fsck(str(store)).is_sound
    (path, *_) = parts_of(store)
    table = pq.read_table(path)
    index = table.schema.get_field_index("label")
    others = pa.array(["other"] * len(table), pa.string())
    pq.write_table(table.set_column(index, table.schema.field(index), others), path)
    assert list(fsck(str(store)).damaged) == [str(path)]


def test_fsck_says_what_is_left_over_and_foreign_and_touches_nothing(work, capsys):
    _, store = work
    (store / "notes.txt").write_text("mine")
    left = store / "__work" / ("0" * 16) / ("part-" + "0" * 24 + ".parquet")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    before = sorted(store.rglob("*"))
    assert cli("fsck", store) == 0
    said = capsys.readouterr().out
    assert f"foreign: {store / 'notes.txt'}" in said
    assert f"left over: {left}" in said
    assert "all rows are as they were written" in said
    assert f"next: beam-flowers vacuum {store}" in said
    assert sorted(store.rglob("*")) == before
    parts_of(store)[0].unlink()
    assert cli("fsck", store) == 1
    assert "missing: " in capsys.readouterr().out
    assert cli("fsck", store, "--repair") == 0
    assert cli("fsck", store) == 0
    assert (store / "notes.txt").read_text() == "mine"


def test_a_score_table_is_checked_too(work, tmp_path):
    images, store = work
    assert cli("train", store, "--model", tmp_path / "model") == 0
    table = tmp_path / "labels"
    assert cli("score", images, "--model", tmp_path / "model", "--output", table) == 0
    assert fsck(str(table)).is_sound
    (path, *_) = sorted(table.glob("part-*.parquet"))
    flip(path)
    assert list(fsck(str(table)).damaged) == [str(path)]
    # A table holds exactly what is listed, so that nothing is lost.
    again = ("score", images, "--model", tmp_path / "model", "--output", table, "--verify")
    assert cli(*again) == 0
    assert fsck(str(table)).is_sound
    assert len(rows(table)) == 20


@pytest.mark.parametrize("table", ["absent", "empty"])
def test_what_is_no_table_is_refused(table, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no store at"):
        fsck(str(tmp_path / table))
