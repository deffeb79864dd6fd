"""Units of work: how many rows, and rows that travel by themselves."""

import pytest

from beam_flowers.records import Image
from beam_flowers.store.plan import unit_rows
from beam_flowers.store.schema import images_of, images_table
from beam_flowers.store.units import pack, rows_of


def images(count):
    return [
        Image(f"/p/é/{i}.jpg", "/p", f"é/{i}.jpg", "é", None, i, i * 1000) for i in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 500])
def test_packed_rows_come_back(count):
    table = images_table(images(count), [f"{i:064x}" for i in range(count)])
    again = rows_of(pack(table))
    assert again.equals(table)
    assert images_of(again) == images(count)


def test_packed_rows_are_small():
    assert len(pack(images_table(images(2000)))) < 2000 * 20


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
