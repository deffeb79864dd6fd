"""Parts, commits and what a crash or another writer leaves."""

import json
import secrets
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from vectors import FINGERPRINT, embedding

from beam_flowers import files
from beam_flowers.errors import StoreError
from beam_flowers.records import Image, Reject
from beam_flowers.store import commits
from beam_flowers.store.append import append_parts, append_window, store_place
from beam_flowers.store.commits import Manifest, Section
from beam_flowers.store.features import read_features
from beam_flowers.store.history import history
from beam_flowers.store.parts import RejectRows, derive, read_part, work_parts, write_part
from beam_flowers.store.schema import (
    embeddings_of,
    images_table,
    rejects_table,
    vectors_of,
)


@pytest.fixture
def place_and_kind(tmp_path):
    return store_place(str(tmp_path / "store"), "tiny", FINGERPRINT)


def committed(place, kind, embeddings):
    part = write_part(place, kind, kind.table(embeddings))
    assert append_parts(place, kind, {}, [part]) == len(embeddings)
    return part


def fresh_run(place):
    return replace(place, run=secrets.token_hex(8))


def test_rows_come_back_as_they_went_in(place_and_kind):
    place, kind = place_and_kind
    rows = [embedding("a", "玫瑰 A", 1), embedding("b", None, 2)]
    part = committed(place, kind, rows)
    back = embeddings_of(read_part(place, part.name))
    for expected, found in zip(rows, back, strict=True):
        assert expected[:5] == found[:5]
        np.testing.assert_array_equal(expected.vector, found.vector)


def test_a_plain_reader_sees_the_contract(place_and_kind):
    place, kind = place_and_kind
    committed(place, kind, [embedding("a", "Rose-Tree", 1)])
    frame = pd.read_parquet(place.root)
    contract = [
        "uri",
        "root",
        "relative_path",
        "label",
        "label_normalized",
        "sha256",
        "bytes",
        "modified",
        "width",
        "height",
        "format",
        "fingerprint",
        "vector",
    ]
    assert set(contract) <= set(frame.columns)
    assert frame.loc[0, "label_normalized"] == "rose tree"
    assert str(frame.loc[0, "modified"]) == "2023-11-14 22:13:20+00:00"
    words = ("vector", "embedding", "embedding")
    assert [c for c in frame.columns if any(w in c for w in words)] == ["vector"]


def test_vectors_are_split_into_byte_streams(place_and_kind):
    place, kind = place_and_kind
    part = committed(place, kind, [embedding("a")])
    row_group = pq.ParquetFile(place.locate(part.name)).metadata.row_group(0)
    encodings = {
        row_group.column(i).path_in_schema: row_group.column(i).encodings
        for i in range(row_group.num_columns)
    }
    assert "BYTE_STREAM_SPLIT" in encodings["vector.list.element"]


def test_the_hash_of_a_dataset_does_not_depend_on_parts_or_order(place_and_kind):
    _, kind = place_and_kind
    a, b, c = (kind.table([embedding(n, seed=i)]) for i, n in enumerate("abc"))
    together = kind.table([embedding(n, seed=i) for i, n in reversed(list(enumerate("abc")))])
    assert sum(map(kind.digest, (a, b, c))) % 2**256 == kind.digest(together)


@pytest.mark.parametrize("change", ["label", "vector", "uri", "sha256"])
def test_the_hash_of_a_dataset_sees_every_change(place_and_kind, change):
    _, kind = place_and_kind
    row = embedding("a")
    other = {
        "label": row._replace(image=row.image._replace(label="tulip")),
        "uri": row._replace(image=row.image._replace(uri="/r/z")),
        "sha256": row._replace(sha256="f" * 64),
        "vector": row._replace(vector=row.vector + np.float32(1e-6)),
    }[change]
    assert kind.digest(kind.table([row])) != kind.digest(kind.table([other]))


def test_deriving_by_content_moves_a_row(place_and_kind):
    _, kind = place_and_kind
    source = kind.table([embedding("a", seed=1), embedding("b", seed=2)])
    moved = Image("/r/new/b", "/r", "new/b", "new", None, 10, 5)
    rows = derive(source, images_table([moved], [f"{2:064x}"]), "sha256", kind)
    assert (rows["uri"][0].as_py(), rows["label_normalized"][0].as_py()) == ("/r/new/b", "new")
    np.testing.assert_array_equal(vectors_of(rows)[0], embedding("b", seed=2).vector)


def test_new_rows_replace_those_of_the_same_uri(place_and_kind):
    place, kind = place_and_kind
    committed(place, kind, [embedding("a", seed=1), embedding("b", seed=2)])
    committed(fresh_run(place), kind, [embedding("b", "tulip", 3), embedding("c", seed=4)])
    _, features = read_features(place.root)
    assert features.uris == ["/r/a", "/r/b", "/r/c"]
    assert features.labels == ["rose", "tulip", "rose"]
    assert len(pd.read_parquet(place.root)) == 3
    newest, first = history(place.root)
    assert [(v.added, v.removed, v.changed) for v in (first, newest)] == [(2, 0, 0), (1, 0, 1)]


def test_two_new_rows_of_one_uri_are_an_error(place_and_kind):
    place, kind = place_and_kind
    part = write_part(place, kind, kind.table([embedding("a", seed=1), embedding("a", seed=2)]))
    with pytest.raises(StoreError, match="one uri"):
        append_parts(place, kind, {}, [part])


def changed(name, seconds, seed):
    row = embedding(name, seed=seed)
    return row._replace(image=row.image._replace(modified=seconds * 1_000_000))


def window(place, kind, *blocks):
    parts = [write_part(place, kind, kind.table(list(rows))) for rows in blocks]
    return sorted(parts, key=lambda part: part.name)


def test_of_a_file_that_changed_within_a_window_the_newest_row_is_kept(place_and_kind):
    place, kind = place_and_kind
    first = [changed("a", 3, 1), changed("a", 5, 2), changed("b", 5, 3)]
    parts = window(place, kind, first, [changed("a", 4, 4), changed("c", 1, 5)])
    assert append_window(place, kind, {}, parts) == 3
    _, features = read_features(place.root)
    assert features.uris == ["/r/a", "/r/b", "/r/c"]
    np.testing.assert_array_equal(features.vectors[0], changed("a", 5, 2).vector)
    assert not work_parts(place)
    assert append_window(place, kind, {}, parts) == 3
    # As if the first try had been killed before it cleared them away.
    window(place, kind, first, [changed("a", 4, 4), changed("c", 1, 5)])
    assert append_window(place, kind, {}, parts) == 3
    assert not work_parts(place)
    assert commits.versions(place.root) == [1]


@pytest.mark.parametrize("twice", [False, True])
def test_a_window_that_is_repeated_after_a_later_one_is_known_to_be_done(place_and_kind, twice):
    place, kind = place_and_kind
    rows = [changed("a", 3, 1), changed("a" if twice else "b", 5, 2)]
    early = window(place, kind, rows)
    assert append_window(place, kind, {}, early) == len({row.image.uri for row in rows})
    late = window(place, kind, [changed("a", 7, 3), changed("b", 7, 4)])
    assert append_window(place, kind, {}, late) == 2
    # The parts were left where the first try was killed before it cleared them away.
    if twice:
        window(place, kind, rows)
    assert append_window(place, kind, {}, early) == len({row.image.uri for row in rows})
    assert commits.versions(place.root) == [1, 2]
    _, features = read_features(place.root)
    np.testing.assert_array_equal(features.vectors[0], changed("a", 7, 3).vector)


def test_the_second_writer_of_a_version_loses(tmp_path):
    root = str(tmp_path / "store")
    assert commits.commit(root, Manifest(1, "one"))
    assert not commits.commit(root, Manifest(1, "two"))
    assert commits.commit(root, Manifest(1, "one"))
    assert commits.latest(root).run == "one"


def test_readers_follow_a_commit_that_was_not_published(place_and_kind):
    place, kind = place_and_kind
    part = write_part(place, kind, kind.table([embedding("a")]))
    section = Section(FINGERPRINT, {"name": "tiny"}, (part,))
    commits.commit(place.root, Manifest(1, "run", {place.section: section}))
    assert read_features(place.root)[1].uris == ["/r/a"]
    commits.publish(place.root)
    assert Path(place.published(part.name)).exists()
    assert read_features(place.root)[1].uris == ["/r/a"]


def test_a_publish_that_was_killed_is_finished_by_the_next(place_and_kind):
    place, kind = place_and_kind
    old = committed(place, kind, [embedding("a", seed=1)])
    new = write_part(place, kind, kind.table([embedding("a", seed=2)]))
    section = Section(FINGERPRINT, {"name": "tiny"}, (new,))
    commits.commit(place.root, Manifest(2, "other", {place.section: section}))
    # Killed here: the old part is still where plain readers look.
    assert Path(place.published(old.name)).exists()
    commits.publish(place.root)
    assert not Path(place.published(old.name)).exists()
    assert len(pd.read_parquet(place.root)) == 1


def test_rejects_have_the_contract_columns(place_and_kind):
    place, _ = place_and_kind
    reject = Reject(embedding("a").image, "decode", "Truncated", "ends early", "ff" * 32)
    part = write_part(place, RejectRows(), rejects_table([reject]))
    rows = read_part(place, part.name)
    assert rows.schema.names[:6] == [
        "uri",
        "stage",
        "error_class",
        "message",
        "bytes",
        "sha256",
    ]
    assert part.failures == 1


@pytest.mark.parametrize("content", ["file", "foreign folder"])
def test_what_is_no_store_is_not_written_to(tmp_path, content):
    root = tmp_path / "store"
    if content == "file":
        root.write_text("x")
    else:
        root.mkdir()
        (root / "holiday.jpg").write_text("x")
    with pytest.raises(StoreError, match="folder"):
        commits.require_table_place(str(root))


def test_a_missing_store_is_named(tmp_path):
    with pytest.raises(StoreError, match="no store at"):
        commits.open_table(str(tmp_path / "nowhere"))


def test_a_damaged_commit_is_named(place_and_kind):
    place, kind = place_and_kind
    committed(place, kind, [embedding("a")])
    path = Path(place.root, "__commits", "00000001.json")
    path.write_text(json.dumps({"layout": 1}))
    with pytest.raises(StoreError, match=r"00000001\.json is damaged"):
        read_features(place.root)


def test_two_backbones_have_to_be_told_apart(place_and_kind):
    place, kind = place_and_kind
    committed(place, kind, [embedding("a")])
    other, other_kind = store_place(place.root, "other", "ef" * 32)
    committed(other, other_kind, [embedding("a")])
    with pytest.raises(StoreError, match="choose one with --backbone"):
        read_features(place.root)
    assert read_features(place.root, "other")[0].fingerprint == "ef" * 32
    with pytest.raises(StoreError, match="it holds: other-efefefef, tiny-cdcdcdcd"):
        read_features(place.root, "absent")


def test_part_names_never_come_back(place_and_kind):
    place, kind = place_and_kind
    rows = kind.table([embedding("a")])
    assert write_part(place, kind, rows) == write_part(place, kind, rows)
    assert write_part(place, kind, rows).name != write_part(fresh_run(place), kind, rows).name
    assert files.is_folder(place.work_folder)
