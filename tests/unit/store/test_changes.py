"""Counts of changed rows, from the parts that differ alone."""

from dataclasses import replace

import pyarrow as pa
import pytest

from beam_flowers import files
from beam_flowers.store.changes import count_changes
from beam_flowers.store.commits import Section
from beam_flowers.store.parts import Place, RejectRows, write_part
from beam_flowers.store.schema import rejects_table


class Rows:
    def digest(self, rows):
        return 0


@pytest.fixture
def place(tmp_path):
    return Place(str(tmp_path), "", "ab" * 32, "cd" * 8)


def part(place, **columns):
    rows = len(columns["uri"])
    columns["sha256"] = [f"{sha256:0>64}" for sha256 in columns.get("sha256", "0" * rows)]
    columns |= {"score": pa.array([0.5] * rows, pa.float32()), "model_id": ["m"] * rows}
    # Labels may be unknown, of which Arrow would not see that they are texts.
    columns |= {n: pa.array(columns[n], pa.string()) for n in ("label",) if n in columns}
    return write_part(place, Rows(), pa.table(columns))


def stored(place, *rows, run=1):
    uris, contents, labels = zip(*rows, strict=True)
    place = replace(place, run=f"{run:016x}")
    return part(place, uri=uris, sha256=contents, label=labels)


def section(place, *parts):
    return {"": Section(place.fingerprint, {}, parts)}


def counts(added, removed, changed):
    return {"added": added, "removed": removed, "changed": changed}


def test_rows_of_one_image_are_compared_by_content_and_label(place):
    before = stored(place, ("a", "1", "x"), ("b", "2", None), ("c", "3", "y"), ("d", "4", "x"))
    after = stored(place, ("b", "2", "x"), ("c", "9", "y"), ("d", "4", "x"), ("e", "1", "x"))
    found = count_changes(place.root, section(place, before), section(place, after))
    assert found == counts(1, 1, 2)


def test_parts_that_stay_are_not_read(place):
    kept = stored(place, ("k", "1", "x"))
    before, after = stored(place, ("a", "2", "x")), stored(place, ("a", "3", "x"))
    files.delete(place.work(kept.name))
    found = count_changes(place.root, section(place, kept, before), section(place, kept, after))
    assert found == counts(0, 0, 1)


def test_what_was_only_added_or_only_removed_is_not_read(place):
    parts = [stored(place, (uri, "1", "x"), (f"{uri}{uri}", "1", "x")) for uri in "ab"]
    for one in parts:
        files.delete(place.work(one.name))
    assert count_changes(place.root, {}, section(place, *parts)) == counts(4, 0, 0)
    assert count_changes(place.root, section(place, *parts), {}) == counts(0, 4, 0)
    some = section(place, parts[0])
    assert count_changes(place.root, some, section(place, *parts)) == counts(2, 0, 0)
    assert count_changes(place.root, section(place, *parts), some) == counts(0, 2, 0)
    assert count_changes(place.root, some, some) == counts(0, 0, 0)


def test_a_replaced_part_that_is_gone_leaves_no_counts(place):
    before, after = stored(place, ("a", "2", "x")), stored(place, ("b", "3", "x"))
    files.delete(place.work(before.name))
    assert count_changes(place.root, section(place, before), section(place, after)) == {}


def test_rejects_are_not_counted(place):
    before = stored(place, ("a", "2", "x"))
    rejects = write_part(place, RejectRows(), rejects_table([]))
    found = count_changes(place.root, section(place, before), section(place, before, rejects))
    assert found == counts(0, 0, 0)


def test_each_section_has_rows_of_its_own(place):
    one, other = stored(place, ("a", "1", "x")), stored(place, ("a", "2", "y"), run=2)
    first, second = f"backbone=one-{'1' * 8}", f"backbone=two-{'2' * 8}"
    before = {first: Section(place.fingerprint, {}, (one,))}
    after = {**before, second: Section(place.fingerprint, {}, (other,))}
    assert count_changes(place.root, before, after) == counts(1, 0, 0)


def test_an_image_may_have_a_row_for_each_model(place):
    before = part(place, uri=["a", "a", "b", "b"], sha256=["1"] * 4, label=["x", "y", "x", "x"])
    after = part(place, uri=["a", "a", "c"], sha256=["1"] * 3, label=["x", "x", "y"])
    found = count_changes(place.root, section(place, before), section(place, after))
    assert found == counts(1, 2, 1)


def test_tables_by_label_and_of_several_labels_have_other_columns(place):
    before = part(place, uri=["a", "b"], label_text=["x", "x"], labels=[["x", "y"], ["x"]])
    after = part(place, uri=["a", "b"], label_text=["y", "x"], labels=[["x", "y"], ["x", "y"]])
    found = count_changes(place.root, section(place, before), section(place, after))
    assert found == counts(0, 0, 2)
