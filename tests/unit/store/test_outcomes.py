"""The one outcome of a unit, whichever of its attempts ends first."""

from dataclasses import replace
from pathlib import Path

import pytest

from beam_flowers import files
from beam_flowers.errors import StoreError
from beam_flowers.records import Image, Seconds
from beam_flowers.store.names import is_reserved_file
from beam_flowers.store.outcomes import Outcome, find_settled, one_each, settle, unit_key
from beam_flowers.store.parts import Part, Place
from beam_flowers.store.work_units import Unit, pack

ROWS = Part(f"part-{1:024x}.parquet", 3, f"{1:064x}", 0, 10, "a" * 64)
REJECTS = Part(f"rejects-{2:024x}.parquet", 2, f"{2:064x}", 1)
KEY = "0f" * 16
HASHES = [(1, "ab" * 32), None]
FULL = Outcome((ROWS, REJECTS), 2, 1, {"Truncated": 1}, Seconds(1.5, 2.5, 0.25), unit=KEY)


@pytest.fixture
def place(tmp_path):
    return Place(str(tmp_path), "", "cd" * 32, "0123456789abcdef")


def test_the_first_outcome_counts_whatever_the_second_is(place):
    assert find_settled(place, KEY) is None
    assert settle(place, FULL, HASHES) == (FULL, HASHES)
    second = Outcome((ROWS,), 3, unit=KEY)
    assert settle(place, second) == (FULL, HASHES)
    assert find_settled(place, KEY) == (FULL, HASHES)
    other = replace(second, unit="f0" * 16)
    assert settle(place, other) == (other, None)


def test_an_outcome_that_says_nothing_counts_nothing(place):
    assert Outcome(()) == Outcome((), 0, 0, {}, Seconds(0, 0, 0), "", "", ())


def test_an_attempt_that_is_later_than_its_run_repeats_itself(place, monkeypatch):
    # The driver has deleted the run's folder between the two looks.
    monkeypatch.setattr(files, "put_if_absent", lambda *_: False)
    assert settle(place, FULL, HASHES) == (FULL, HASHES)


def test_its_file_is_known_as_ours(place, tmp_path):
    settle(place, FULL)
    (path,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert is_reserved_file(str(path.relative_to(tmp_path)))
    folder = path.parent.relative_to(tmp_path)
    assert is_reserved_file(f"{folder}/.{KEY}.{'a' * 12}")
    assert is_reserved_file(f"{folder}/.lock")
    for name in (KEY[1:], f"{KEY}0", KEY.upper(), f"{KEY}.json", "lock", f"{KEY}/{KEY}"):
        assert not is_reserved_file(f"{folder}/{name}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
        (b'"text"', "is damaged"),
        (b'{"more": 1, "parts": [], "seconds": 1}', "is damaged"),
        (b'{"parts": [], "seconds": {}}', "is damaged"),
        (b'{"parts": [], "seconds": {}, "more": 1, "odd": 1}', "is damaged"),
        (
            b'{"parts": [{"name": "../part.parquet", "rows": 1, "digest": ""},'
            b' {"name": "part-000000000000000000000001.parquet", "rows": 1, "digest": ""}],'
            b' "seconds": {}, "more": null}',
            r"parts\[0\]\.name is '\.\./part\.parquet', which this program never writes",
        ),
        (
            b'{"parts": [{"name": 7, "rows": 1, "digest": ""}], "seconds": {}, "more": null}',
            r"is damaged \(parts\[0\]\.name: ",
        ),
        (
            b'{"parts": [], "seconds": {}, "more": [[1, "../x"]]}',
            r"more\[0\]\[1\] is '\.\./x', which",
        ),
        (b'{"parts": [], "seconds": {}, "more": null, "reasons": {"a": "1"}}', "reasons"),
    ],
)
def test_a_file_of_another_program_ends_the_run(place, content, message):
    path = Path(place.run_file(f"outcomes/{KEY}"))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(StoreError, match=message) as caught:
        settle(place, FULL)
    assert str(path) in str(caught.value)


def test_keys_of_units():
    first = Unit("/a/units.parquet", 0, rows=3)
    assert unit_key(first) == unit_key(Unit("/mount/units.parquet", 0, rows=3))
    images = [Image(f"/r/{n}", "/r", f"{n}") for n in range(2)]
    keys = [
        unit_key(first),
        unit_key(replace(first, index=1)),
        unit_key(replace(first, file="/a/others.parquet")),
        unit_key(replace(first, source="0/x")),
        unit_key("0/x"),
        unit_key(pack(images)),
        unit_key(pack(images[:1])),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)
    # Of equal names that are one object and that are two pickle makes different bytes.
    same = [Image("".join(["/r/", f"{n}"]), "".join(["/", "r"]), f"{n}") for n in range(2)]
    assert pack(same) != pack(images)
    assert unit_key(pack(same)) == unit_key(pack(images))


def test_one_outcome_of_each_unit_whatever_comes_first():
    one, two = Outcome((ROWS,), unit="a"), Outcome((REJECTS,), unit="a")
    other, nothing = Outcome((ROWS, REJECTS), unit="b"), Outcome(())
    damaged = Outcome((), damaged=(("/s", "p"),))
    every = [two, nothing, one, other, damaged, two, nothing]
    kept = one_each(every)
    assert sorted(map(str, kept)) == sorted(map(str, [nothing, damaged, one, other]))
    assert one_each(every[::-1]) == kept
