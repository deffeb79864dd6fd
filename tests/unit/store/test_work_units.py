"""Units of work: how many rows, and rows that travel by themselves."""

import pytest

from beam_flowers.errors import WorkerError
from beam_flowers.records import Image
from beam_flowers.store.plan import unit_rows
from beam_flowers.store.work_units import Filed, pack, partitions_for, unpack


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
