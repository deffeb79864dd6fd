"""Which files are read together, which are hashed first, and which are made of other rows."""

import itertools

import pytest
from ledgers import (
    COMMITTED,
    LEFT,
    OTHER_SHA,
    REJECTS,
    SHA,
    A,
    fresh,
    image,
    joined,
    names,
    reject,
    stored,
)

from beam_flowers.records import Reject
from beam_flowers.store.ledger import Ledger, Rules, StoredRow, packed


def one_size(count, size=10):
    return [image(f"{size}-{n}", size=size) for n in range(count)]


ALIKE = one_size(3)


@pytest.mark.parametrize(
    ("found", "parts", "doubtful"),
    [
        pytest.param(ALIKE[:1], [(COMMITTED, [image("old")])], 1, id="a-stored-size"),
        pytest.param(ALIKE[:1], [(LEFT, [image("old")])], 1, id="a-size-a-killed-run-left"),
        pytest.param(ALIKE[:1], [(COMMITTED, [image("old", size=11)])], 0, id="another-size"),
        pytest.param(ALIKE[:1], [(REJECTS, [image("old")])], 0, id="the-size-of-a-reject"),
        pytest.param(
            [image("10-0", size=11)],
            [(COMMITTED, [image("10-0"), image("old", size=11)])],
            1,
            id="the-new-size-of-an-edited-file",
        ),
        pytest.param(ALIKE[:2], [], 0, id="as-many-of-one-size-as-fit"),
        pytest.param(ALIKE, [], 3, id="more-of-one-size-than-fit"),
        pytest.param([image("10-0", size=None)], [], 1, id="no-size"),
        pytest.param(
            [*ALIKE[:1], image("10-1", size=None)],
            [(COMMITTED, [image("old", size=None)])],
            1,
            id="no-size-beside-a-sure-one",
        ),
    ],
)
def test_files_in_doubt_are_hashed_first(found, parts, doubtful):
    ledger = joined([*found, image("sure", size=99)], *parts, unit_rows=2)
    hashed = list(itertools.chain(*ledger.doubtful_units(2)))
    assert len(hashed) == doubtful
    read = [*itertools.chain(*ledger.fresh_units(2)), *hashed]
    assert sorted(i.relative_path for i in read) == sorted(
        ["sure", *(i.relative_path for i in found)]
    )


def test_files_in_doubt_come_by_uri_so_many_at_a_time():
    found = [image(n, size=size) for n, size in zip("edcba", [1, 2, None, 1, 2], strict=True)]
    ledger = joined(found, (COMMITTED, [image("x", size=1), image("y", size=2)]))
    assert names(ledger.doubtful_units(2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert not list(ledger.fresh_units(2))


def test_a_copy_may_be_of_any_stored_row_of_a_size_in_doubt():
    def row(name, sha256, size=10):
        return StoredRow(image(name, size=size), sha256)

    ledger = joined(
        [image("new"), image("sure", size=99)],
        ("part-2", [row("f", "f" * 64), row("e", "e" * 64)]),
        ("part-1", [row("e2", "e" * 64), row("other", "a" * 64, size=11)]),
        ("part-3", [row("e3", "e" * 64)]),
        (REJECTS, [row("bad", "b" * 64)]),
    )
    assert list(ledger.sources()) == [("e" * 64, "0/part-1"), ("f" * 64, "0/part-2")]


def test_the_table_s_own_rows_are_the_first_choice_for_a_copy():
    def row(name, sha256):
        return StoredRow(image(name), sha256)

    ledger = stored(("part-9", [row("f", "f" * 64)]))
    ledger.list_found([image("new")])
    ledger.join(Rules())
    ledger.add_part("part-2", [row("f2", "f" * 64), row("e2", "e" * 64)], False, True, place=2)
    ledger.add_part("part-3", [row("e3", "e" * 64)], False, True, place=1)
    ledger.doubt(64)
    assert list(ledger.sources()) == [("e" * 64, "1/part-3"), ("f" * 64, "0/part-9")]
    # Rows of other tables are only asked for vectors.
    assert ledger.part_names() == (["part-9"], [])


HELD = image("a", size=10, modified=1)


@pytest.mark.parametrize(
    ("listed", "held", "stays"),
    [
        pytest.param(HELD, HELD, False, id="as-it-is-listed"),
        pytest.param(HELD, HELD._replace(root="/", label="b"), False, id="whatever-label-and-root"),
        pytest.param(HELD, image("b"), True, id="another-file"),
        pytest.param(HELD, image("a", size=11), True, id="another-size"),
        pytest.param(HELD, image("a", modified=2), True, id="another-time"),
        pytest.param(HELD, image("a", size=None), True, id="a-size-that-was-not-known"),
        pytest.param(image("a", size=None), HELD, True, id="a-size-that-is-not-known"),
        pytest.param(*[image("a", size=None)] * 2, False, id="a-size-that-is-never-known"),
        pytest.param(HELD._replace(etag="t1"), HELD._replace(etag="t2"), True, id="another-tag"),
        pytest.param(HELD._replace(etag="t1"), HELD, False, id="a-tag-that-was-not-known"),
        pytest.param(*[image("a", modified=None)] * 2, False, id="a-time-that-is-never-known"),
    ],
)
def test_what_another_table_has_is_left_to_it(listed, held, stays):
    ledger = Ledger()
    ledger.list_found([listed, image("other")])
    ledger.leave_out([StoredRow(held, SHA), StoredRow(image("not-listed"), SHA)])
    ledger.join(Rules())
    ledger.doubt(64)
    assert fresh(ledger) == (["a", "other"] if stays else ["other"])


@pytest.mark.parametrize(
    ("first", "second", "source"),
    [
        pytest.param(HELD, HELD, "0/p", id="the-first-table-that-has-it"),
        pytest.param(image("a", size=9), HELD, "1/p", id="not-one-of-another-size"),
        pytest.param(image("a", modified=9), HELD, "1/p", id="not-one-of-another-time"),
        pytest.param(HELD._replace(etag="t2"), HELD, "1/p", id="not-one-of-another-tag"),
        pytest.param(HELD._replace(etag="t1"), HELD, "0/p", id="the-first-of-the-same-tag"),
        pytest.param(HELD, image("a", size=9), "0/p", id="the-second-may-be-outdated"),
        pytest.param(image("b"), HELD, "1/p", id="the-second-where-the-first-lacks-it"),
        pytest.param(image("a", size=None), image("a", modified=None), None, id="outdated-in-both"),
    ],
)
def test_of_two_tables_the_first_with_the_file_as_it_is_gives_the_row(first, second, source):
    # Other listed files have the sizes and times of the outdated rows.
    other, another = image("x", size=9), image("y", modified=9)
    ledger = Ledger()
    ledger.list_found([HELD._replace(etag="t1"), other, another])
    for place, row in enumerate([first, second]):
        ledger.add_source(0, [(f"{place}/p", [StoredRow(row, SHA)])])
    ledger.add_source(0, [("2/p", [StoredRow(other, SHA), StoredRow(another, SHA)])])
    ledger.keep_current_sources()
    ledger.reject_without_source()
    ledger.join(Rules())
    expected = [] if source is None else [(source, [StoredRow(HELD._replace(etag="t1"), SHA)])]
    others = ("2/p", [StoredRow(other, SHA), StoredRow(another, SHA)])
    assert list(ledger.source_units()) == [*expected, others]
    assert len(list(ledger.found_rejects())) == (source is None)


def test_sizes_are_scattered_in_an_order_that_does_not_change():
    scattered = [4181, 1597, 2147483649, 10, 2, 3000000000, 2147483648, 2000000000, 1, 3]
    found = [image(f"{size:010d}", size=size) for size in sorted(scattered)]
    (unit,) = joined([image("2", size=1), *found, image("1", size=1)]).fresh_units(100)
    assert [i.bytes for i in unit if i.relative_path not in "12"] == scattered
    assert names([[i for i in unit if i.bytes == 1]]) == [["0000000001", "1", "2"]]


def test_a_unit_takes_whole_groups_as_long_as_they_fit():
    groups = [[1], [2, 2], [3], [4, 4, 4, 4, 4], [5], [6, 6, 6]]
    assert list(packed(groups, 4)) == [[1, 2, 2, 3], [4] * 5, [5, 6, 6, 6]]
    assert list(packed(groups[3:], 4)) == [[4] * 5, [5, 6, 6, 6]]
    assert list(packed(groups[1:3], 2)) == [[2, 2], [3]]
    assert list(packed([], 4)) == []


def test_files_of_one_size_stay_in_one_unit_unless_they_are_too_many():
    found = [image(f"{n}", size=n // 3) for n in range(30)]
    units = list(joined(found).fresh_units(4))
    assert sorted(i.relative_path for unit in units for i in unit) == sorted(map(str, range(30)))
    assert all(
        len({i.bytes for i in a} & {i.bytes for i in b}) == 0 for a, b in itertools.pairwise(units)
    )
    ledger = joined(found, unit_rows=2)
    assert not list(ledger.fresh_units(2))
    assert sum(map(len, ledger.doubtful_units(2))) == 30


WHY = "it ends early"


@pytest.mark.parametrize(
    ("sections", "listed", "expected"),
    [
        pytest.param([{"a": SHA}, {"a": SHA}], A, None, id="a-row-in-each-section-is-a-source"),
        pytest.param([{"a": SHA}], A, None, id="of-one-section-one-row-is-enough"),
        pytest.param(
            [{"a": SHA}, {}], A, ("embed", "NoVector", "all of the", None), id="a-section-lacks-it"
        ),
        pytest.param(
            [{"a": SHA}, {"a": OTHER_SHA}],
            A,
            ("embed", "NoVector", "of one content", None),
            id="the-sections-have-different-contents",
        ),
        pytest.param(
            [{"b": SHA}, {"b": SHA}],
            A,
            ("find", "NotInStore", "run it again", None),
            id="no-section-has-it",
        ),
        pytest.param(
            [{}, {"rejected": SHA}],
            image("rejected"),
            ("decode", "Truncated", WHY, OTHER_SHA),
            id="the-first-reason-of-a-section-that-lacks-it",
        ),
        pytest.param(
            [{}, {}],
            image("rejected"),
            ("decode", "Truncated", WHY, OTHER_SHA),
            id="the-first-reason-of-sections-that-lack-it",
        ),
        pytest.param(
            [{"rejected": SHA}, {"rejected": SHA}],
            image("rejected"),
            None,
            id="a-reason-beside-all-rows-is-outdated",
        ),
        pytest.param(
            [{}, {}],
            reject(image("rejected")),
            ("find", "DanglingLink", "leads to nothing", None),
            id="the-listing-s-own-reason-counts-first",
        ),
        pytest.param(
            [{}, {}],
            reject(A),
            ("find", "DanglingLink", "leads to nothing", None),
            id="a-reject-that-no-section-has-keeps-its-reason",
        ),
        pytest.param(
            [{"a": SHA}, {}],
            reject(A),
            ("find", "DanglingLink", "leads to nothing", None),
            id="a-reject-that-a-section-has-keeps-its-reason",
        ),
    ],
)
def test_a_file_without_all_its_sources_is_rejected(sections, listed, expected):
    ledger = Ledger()
    whole, other = image("whole"), reject(image("zz-other"), "Unreadable")
    ledger.list_found([listed, whole, other])
    bad = image("rejected")
    for number, rows in enumerate(sections):
        files = [StoredRow(image(name), sha256) for name, sha256 in rows.items()]
        reasons = [
            Reject(image("not-listed"), "read", "Unreadable", "no"),
            Reject(bad, "decode", "Truncated", WHY, OTHER_SHA),
            Reject(bad, "decode", "NotAnImage", "a text", SHA),
        ]
        parts = [(f"s{number}-1", files), (f"s{number}-2", [StoredRow(whole, SHA)])]
        ledger.add_source(number, parts)
        ledger.add_reasons(reasons)
    ledger.reject_without_source()
    ledger.join(Rules())
    found = list(ledger.found_rejects())
    assert found[-1] == other
    if expected is None:
        assert found == [other]
        assert ledger.fresh() == 2
    else:
        (rejected, _) = found
        assert rejected.image == getattr(listed, "image", listed)
        assert (rejected.stage, rejected.error_class, rejected.sha256) == (
            *expected[:2],
            expected[3],
        )
        assert expected[2] in rejected.message
        assert ledger.fresh() == 1


def test_rows_are_made_of_the_parts_that_have_them():
    ledger = Ledger()
    ledger.list_found([image(n, split="testing") for n in "dcba"])
    rows = {n: StoredRow(image(n, "other"), n * 64) for n in "abcd"}
    one = [("p2", [rows["a"], rows["d"]]), ("p1", [rows["c"], rows["b"]])]
    ledger.add_source(1, [("q", list(rows.values()))])
    ledger.add_source(0, one)
    assert ledger.sections == 2
    ledger.reject_without_source()
    ledger.join(Rules())

    def unit(names):
        return [StoredRow(image(n, split="testing"), n * 64) for n in names]

    assert list(ledger.source_units()) == [("p1+q", unit("bc")), ("p2+q", unit("ad"))]


def test_what_has_sources_and_is_known_is_not_made_again():
    ledger = stored((COMMITTED, [A]))
    ledger.list_found([A, image("b")])
    ledger.add_source(0, [("p", [StoredRow(A, SHA), StoredRow(image("b"), OTHER_SHA)])])
    ledger.reject_without_source()
    ledger.join(Rules())
    assert list(ledger.source_units()) == [("p", [StoredRow(image("b"), OTHER_SHA)])]


def test_what_older_rules_accepted_is_no_source_of_a_copy():
    old = StoredRow(image("old", root="/q"), SHA, outdated=True)
    sound = StoredRow(image("sound", root="/q", size=20), OTHER_SHA)
    old_twin = StoredRow(image("twin", root="/q", size=20), SHA, outdated=True)
    ledger = joined([image("a"), image("b", size=20)], (COMMITTED, [old, old_twin, sound]))
    assert names(ledger.fresh_units(9)) == [["a"]]
    assert names(ledger.doubtful_units(9)) == [["b"]]
    assert list(ledger.sources()) == [(OTHER_SHA, f"0/{COMMITTED}")]


def test_another_content_is_made_again_although_size_and_time_are_the_same():
    rows = [StoredRow(image(name), name * 64) for name in "abc"]
    ledger = stored((COMMITTED, rows))
    ledger.list_found([row.image for row in rows])
    edited = StoredRow(image("b"), OTHER_SHA)
    for number, part in enumerate(("p", "q")):
        ledger.add_source(number, [(part, [rows[0], edited, rows[2]])])
    ledger.reject_without_source()
    ledger.join(Rules())
    assert list(ledger.source_units()) == [("p+q", [edited])]
    assert ledger.known() == 2


@pytest.mark.parametrize(("before", "made_again"), [(SHA, 0), (OTHER_SHA, 1)])
def test_a_reject_of_another_content_is_made_again_for_the_same_reason(before, made_again):
    ledger = stored((REJECTS, [StoredRow(A, before, "NotAnImage")]))
    ledger.list_found([A])
    ledger.add_reasons([Reject(A, "decode", "NotAnImage", "a text", SHA)])
    ledger.reject_without_source()
    ledger.join(Rules(retry=True))
    assert [found.sha256 for found in ledger.found_rejects()] == [SHA] * made_again
