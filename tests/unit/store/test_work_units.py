"""Units of work: how many rows, and rows that travel by themselves."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from beam_flowers.errors import WorkerError
from beam_flowers.records import Embedding, Image
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.commits import Section, latest
from beam_flowers.store.ledger import Ledger, Rules, StoredRow
from beam_flowers.store.parts import Part, Place, write_part
from beam_flowers.store.plan import fill_ledger, make_plan, unit_rows
from beam_flowers.store.schema import IMAGE_SCHEMA, images_of
from beam_flowers.store.work_units import (
    Filed,
    pack,
    partitions_for,
    read_unchanged,
    unpack,
    write_unchanged,
)

PARTS = [f"part-{n:024x}.parquet" for n in range(2)]


def images(count):
    return [
        Image(f"/p/é/{i}.jpg", "/p", f"é/{i}.jpg", "é", None, i, i * 1000) for i in range(count)
    ]


def test_packed_rows_come_back_and_are_small():
    assert unpack(pack(images(5))) == images(5)
    assert len(pack(images(2000))) < 2000 * 30


def test_what_was_filed_is_read_and_nothing_else(tmp_path):
    filed = Filed.write(str(tmp_path / "models"), images(2))
    (tmp_path / "models").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(WorkerError, match=r"models was changed by another program"):
        filed.read()
    again = Filed.write(str(tmp_path / "again"), images(2))
    assert again.read() == images(2)


class TestUnchanged:
    @pytest.fixture
    def place(self, tmp_path):
        return Place(str(tmp_path), "backbone=x-01234567", "ab" * 32, "run")

    def test_rows_are_found_by_uri_and_told_by_part(self, place):
        found = images(25_000)
        found.sort(key=lambda image: image.uri)
        rows = [
            (StoredRow(image, f"{n}"), f"part-{n % 3:024x}.parquet")
            for n, image in enumerate(found)
        ]
        described = {PARTS[1]: Part(PARTS[1], 9, "ab" * 32, bytes=5, sha256="cd" * 32)}
        write_unchanged(place, rows, described)
        assert pq.ParquetFile(place.run_file("unchanged.parquet")).num_row_groups == 3
        wanted = [found[n].uri for n in (4, 10_000, 24_999)]
        found_rows = read_unchanged(place, [*wanted, "/p/absent"])
        assert [*found_rows] == [(PARTS[0], None), (PARTS[1], described[PARTS[1]])]
        result = {source.name: table for source, table in found_rows.items()}
        assert {part: table.schema for part, table in result.items()} == {
            PARTS[0]: IMAGE_SCHEMA,
            PARTS[1]: IMAGE_SCHEMA,
        }
        assert images_of(result[PARTS[0]]) == [found[24_999]]
        assert images_of(result[PARTS[1]]) == [found[4], found[10_000]]
        assert result[PARTS[1]]["sha256"].to_pylist() == ["4", "10000"]

    def test_without_such_rows_there_is_no_file(self, place):
        write_unchanged(place, [], {})
        assert not Path(place.run_file("unchanged.parquet")).exists()
        assert read_unchanged(place, ["/p/a"]) == {}

    def test_a_plan_writes_them(self, tmp_path):
        place, kind = store_place(str(tmp_path / "store"), "tiny", "cd" * 32)
        row = Embedding(images(1)[0], "ab" * 32, 4, 4, "JPEG", np.zeros(3, np.float32))
        part = write_part(place, kind, kind.table([row]))
        append_parts(place, kind, {}, [part])
        for rules, expected in ((Rules(verify=True), [part]), (Rules(), [])):
            again = replace(place, run=f"{rules.verify}")
            with closing(Ledger()) as ledger:
                ledger.list_found([row.image])
                fill_ledger(ledger, again, latest(place.root))
                section = Section(place.fingerprint, {})
                make_plan(ledger, again, latest(place.root), kind, section, rules)
            assert [source.part for source in read_unchanged(again, [row.image.uri])] == expected


@pytest.mark.parametrize(
    ("units", "rows", "partitions"),
    [(0, 128, 0), (3, 128, 3), (448, 447, 64), (7072, 7071, 250)],
)
def test_partitions_spread_the_work_and_fit_a_workers_memory(units, rows, partitions):
    assert partitions_for(units, rows) == partitions


@pytest.mark.parametrize(
    ("count", "shards", "rows"),
    [
        (0, None, 128),
        (10_000, None, 128),
        (1_000_000, None, 1000),
        (50_000_000, None, 7071),
        (10**9, None, 8192),
        (1000, 3, 334),
        (0, 3, 1),
    ],
)
def test_a_unit_has_as_many_rows_as_there_are_units(count, shards, rows):
    assert unit_rows(count, shards) == rows
