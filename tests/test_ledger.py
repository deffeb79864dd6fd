"""What becomes of each file and each stored row."""

import itertools

import pytest

from beam_flowers.errors import InputError
from beam_flowers.records import Hidden, Image, Reject, RootListed
from beam_flowers.store.ledger import Ledger, Rules, StoredRow

SHA = "ab" * 32


def image(name, label="rose", size=10, modified=1, root="/r"):
    return Image(f"{root}/{name}", root, name, label, None, size, modified)


def joined(found, stored, rules=None, rejects=(), unit_rows=64):
    ledger = Ledger()
    ledger.list_found(found)
    ledger.add_part("part-1.parquet", [StoredRow(i, SHA) for i in stored], False, True)
    ledger.add_part("rejects-1.parquet", rejects, True, True)
    ledger.join(rules or Rules())
    ledger.doubt(unit_rows)
    return ledger


def fresh(ledger):
    units = [*ledger.fresh_units(64), *ledger.doubtful_units(64)]
    return sorted(i.relative_path for unit in units for i in unit)


def stays(ledger):
    whole, partly = ledger.part_names()
    rows = ledger.remaining("part-1.parquet") if {*whole, *partly} else []
    return sorted(row.image.relative_path for row in rows)


def test_an_unchanged_file_is_known():
    ledger = joined([image("a"), RootListed("/r", True)], [image("a")])
    assert fresh(ledger) == []
    assert ledger.part_names() == (["part-1.parquet"], [])
    assert ledger.known() == 1


@pytest.mark.parametrize("change", [{"size": 11}, {"modified": 2}, {"size": None}])
def test_an_edited_file_is_read_again(change):
    ledger = joined([image("a", **change)], [image("a"), image("b")])
    assert fresh(ledger) == ["a"]
    assert stays(ledger) == ["b"]


def test_a_file_is_gone_only_when_its_root_was_listed_completely():
    stored = [image("a"), image("b"), image("c", root="/other")]
    assert stays(joined([image("a"), RootListed("/r", True)], stored)) == ["a", "c"]
    assert stays(joined([image("a"), RootListed("/r", False)], stored)) == ["a", "b", "c"]
    assert stays(joined([image("a")], stored, Rules(exact=True))) == ["a"]


def test_a_changed_label_updates_the_row_without_reading_the_file():
    ledger = joined([image("a", label="tulip")], [image("a", label="rose")])
    assert fresh(ledger) == []
    assert ledger.part_names() == ([], ["part-1.parquet"])
    assert ledger.remaining("part-1.parquet")[0].image.label == "tulip"


def test_naming_one_folder_of_a_tree_does_not_wipe_its_label():
    inside = Image("/r/a", "/r/sub", "a", None, None, 10, 1)
    ledger = joined([inside], [image("a")])
    assert ledger.part_names() == (["part-1.parquet"], [])


def test_a_label_that_the_same_root_no_longer_gives_goes():
    ledger = joined([image("a", label=None)], [image("a")])
    assert ledger.remaining("part-1.parquet")[0].image.label is None


def test_without_relabel_labels_stay():
    ledger = joined([image("a", label="tulip")], [image("a")], Rules(relabel=False))
    assert ledger.part_names() == (["part-1.parquet"], [])


def test_verify_reads_everything_again():
    assert fresh(joined([image("a")], [image("a")], Rules(verify=True))) == ["a"]


def test_rejects_are_known_until_retried():
    rejects = [StoredRow(image("a"), None, "Truncated")]
    assert fresh(joined([image("a")], [], rejects=rejects)) == []
    assert fresh(joined([image("a")], [], Rules(retry=True), rejects)) == ["a"]


def test_what_the_listing_rejects_is_known_the_second_time():
    found = [Reject(image("a"), "find", "DanglingLink", "leads to nothing")]
    assert len(list(joined(found, []).found_rejects())) == 1
    known = [StoredRow(image("a"), None, "DanglingLink")]
    assert list(joined(found, [], rejects=known).found_rejects()) == []


def test_files_that_a_stored_one_may_equal_are_hashed_first():
    ledger = joined([image("new"), image("other", size=99)], [image("old")])
    assert [[i.relative_path for i in unit] for unit in ledger.doubtful_units(64)] == [["new"]]
    assert list(ledger.sources()) == [(SHA, "0/part-1.parquet")]
    assert [[i.relative_path for i in unit] for unit in ledger.fresh_units(64)] == [["other"]]


def test_files_of_one_size_stay_in_one_unit_unless_they_are_too_many():
    found = [image(f"{n}", size=n // 3) for n in range(30)]
    units = list(joined(found, []).fresh_units(4))
    assert sorted(i.relative_path for unit in units for i in unit) == sorted(map(str, range(30)))
    assert all(
        len({i.bytes for i in a} & {i.bytes for i in b}) == 0 for a, b in itertools.pairwise(units)
    )
    ledger = joined(found, [], unit_rows=2)
    assert not list(ledger.fresh_units(2))
    assert sum(map(len, ledger.doubtful_units(2))) == 30


def test_a_file_found_twice_counts_once_and_keeps_its_label():
    twice = Image("/r/a", "/r/sub", "a", None, None, 10, 1)
    ledger = joined([twice, image("a"), Hidden("/r/.h")], [])
    assert (ledger.listed(), ledger.hidden) == (1, 1)
    assert next(ledger.fresh_units(9))[0].label == "rose"


def test_two_labels_in_one_manifest_are_an_error():
    with pytest.raises(InputError, match="two labels, 'rose' and 'tulip'"):
        joined([image("a"), image("a", label="tulip")], [])


def test_of_two_rows_of_one_file_the_current_one_stays():
    ledger = Ledger()
    ledger.list_found([image("a", modified=2)])
    ledger.add_part("old", [StoredRow(image("a"), SHA)], False, True)
    ledger.add_part("new", [StoredRow(image("a", modified=2), SHA)], False, False)
    ledger.join(Rules())
    assert ledger.part_names() == (["new"], [])


def test_the_same_bytes_under_two_labels_are_named():
    ledger = Ledger()
    rows = [StoredRow(image("a"), SHA), StoredRow(image("b", label="tulip"), SHA)]
    ledger.add_part("p", rows, False, True)
    assert ledger.shared_contents() == [("/r/a", "rose", "/r/b", "tulip")]
