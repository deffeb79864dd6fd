"""What a run will do, and the commit that it ends in."""

import json
import secrets
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from beam_flowers.errors import InputError
from beam_flowers.images.rules import RULES
from beam_flowers.records import Embedding, HiddenFile, Image, Reject, RootListed, Seconds
from beam_flowers.store import plan as planning
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.commits import Manifest, Section, commit, committed, latest, versions
from beam_flowers.store.ledger import Ledger, Rules, StoredRow
from beam_flowers.store.outcomes import Outcome
from beam_flowers.store.parts import RejectRows, read_part, work_parts, write_part
from beam_flowers.store.plan import (
    Plan,
    absent_roots,
    add_counts,
    derive_parts,
    fill_ledger,
    finish,
    is_done,
    make_plan,
    stored_rows,
    stored_table,
    unit_rows,
)
from beam_flowers.store.schema import encoding_of, rejects_table
from beam_flowers.store.work_units import Source, Unit, read_sources, read_unit

FINGERPRINT, OTHER = "cd" * 32, "ef" * 32
NO_PART = f"part-{0:024x}.parquet"


def image(name, label="rose", size=10, modified=1, root="/r"):
    return Image(f"{root}/{name}", root, name, label, None, size, modified)


def digest(name):
    return name.encode().hex().rjust(64, "0")


def embedding(found):
    vector = np.array([*found.relative_path.encode()[:1], 0.5], np.float32)
    return Embedding(found, digest(found.relative_path), 40, 30, "JPEG", vector)


def reject(found, error_class="Truncated"):
    return Reject(found, "decode", error_class, "it ends early")


class Store:
    """A store in a folder, and the run that writes to it."""

    def __init__(self, folder):
        self.place, self.kind = store_place(str(folder), "tiny", FINGERPRINT)

    @property
    def manifest(self):
        return latest(self.place.root)

    @property
    def section(self):
        return Section(FINGERPRINT, {"name": "tiny", "encoding": "split"})

    def new_run(self):
        self.place = replace(self.place, run=secrets.token_hex(8))

    def write(self, *images):
        return write_part(self.place, self.kind, self.kind.table([embedding(i) for i in images]))

    def write_rejects(self, *rejects):
        return write_part(self.place, RejectRows(), rejects_table(rejects))

    def commit(self, *parts):
        append_parts(self.place, self.kind, {}, parts)
        self.new_run()

    def plan(
        self, found, section=None, rules=None, shards=None, prepare=None, others=(), fraction=1.0
    ):
        with closing(Ledger()) as ledger:
            ledger.list_found(found)
            fill_ledger(ledger, self.place, self.manifest)
            if prepare:
                prepare(ledger)
            return make_plan(
                ledger,
                self.place,
                self.manifest,
                self.kind,
                section or self.section,
                rules or Rules(),
                shards,
                others,
                fraction,
            )


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


A, B, C, D = (image(name) for name in "abcd")
DONE = RootListed("/r", True, True)


def names(units):
    return [read_unit(unit)["relative_path"].to_pylist() for unit in units]


class TestFilling:
    def filled(self, store, *found):
        ledger = Ledger()
        ledger.list_found(found)
        lost = fill_ledger(ledger, store.place, store.manifest)
        ledger.join(Rules())
        return ledger, lost

    def test_what_is_committed_stays_and_what_a_killed_run_left_is_taken_up_if_listed(self, store):
        rows, bad = store.write(A), store.write_rejects(reject(B))
        store.commit(rows, bad)
        found = [image(name) for name in "efghijkl"]
        wanted, unwanted = [store.write(i).name for i in found], store.write(D)
        ledger, lost = self.filled(store, *found)
        assert ledger.part_names() == ([*sorted([rows.name, bad.name]), *sorted(wanted)], [])
        assert (ledger.known(), lost) == (8, [])
        assert unwanted.name in work_parts(store.place)

    def test_a_part_that_was_not_published_yet_is_taken_in_once(self, store):
        part = store.write(A)
        commit(store.place.root, Manifest(1, "r", {store.place.section: self.section(part)}))
        ledger, _ = self.filled(store)
        assert work_parts(store.place) == [part.name]
        assert ledger.part_names() == ([part.name], [])

    def section(self, *parts):
        return Section(FINGERPRINT, {}, parts)

    def test_parts_that_are_lost_are_named(self, store):
        parts = [store.write(A), store.write(B), store.write(C)]
        store.commit(*parts)
        for part in parts[:2]:
            Path(store.place.published(part.name)).unlink()
        ledger, lost = self.filled(store)
        assert sorted(lost, key=lambda part: part.name) == sorted(
            parts[:2], key=lambda part: part.name
        )
        assert ledger.part_names() == ([parts[2].name], [])

    def test_work_that_another_run_replaced_meanwhile_is_passed_over(self, store, monkeypatch):
        part = store.write(A)
        monkeypatch.setattr(planning, "work_parts", lambda place: [NO_PART, part.name])
        ledger, lost = self.filled(store, A)
        assert lost == []
        assert ledger.part_names() == ([part.name], [])

    def test_a_section_of_another_fingerprint_is_none(self, store):
        store.commit(store.write(A))
        assert len(committed(store.manifest, store.place).parts) == 1
        other = replace(store.place, fingerprint=OTHER)
        assert committed(store.manifest, other) == Section(OTHER, {})
        elsewhere = replace(store.place, section="backbone=tiny-efefefef")
        assert committed(store.manifest, elsewhere) == Section(FINGERPRINT, {})

    def test_of_several_rows_of_a_file_one_is_stored(self, store):
        part = store.write(A, A, B)
        rows = [StoredRow(A, digest("a")), StoredRow(B, digest("b"))]
        assert list(stored_rows(store.place, part.name)) == rows
        unread = Reject(C, "read", "OSError", "no route")
        bad = store.write_rejects(reject(A), reject(B, "Huge"), unread)
        rows = [StoredRow(A, None, "Truncated"), StoredRow(B, None, "Huge")]
        rows.append(StoredRow(C, None, "OSError", True))
        assert list(stored_rows(store.place, bad.name)) == rows


class TestRules:
    """Rows and rejects say whether the rules have changed that they were made by."""

    def outdated(self, store, part):
        return [row.outdated for row in stored_rows(store.place, part.name)]

    @pytest.mark.parametrize(
        ("rule", "expected"),
        [("JPEG", [True, False]), ("PNG", [False, True]), ("GIF", [False] * 2)],
    )
    def test_rows_by_their_format(self, store, monkeypatch, rule, expected):
        rows = [embedding(A), embedding(B)._replace(format="PNG")]
        part = write_part(store.place, store.kind, store.kind.table(rows))
        assert self.outdated(store, part) == [False, False]
        monkeypatch.setitem(RULES, rule, RULES[rule] + 1)
        assert self.outdated(store, part) == expected
        part = write_part(store.place, store.kind, store.kind.table(rows[::-1]))
        assert self.outdated(store, part) == [False, False]

    def test_rejects_by_class_and_message(self, store, monkeypatch):
        png = Reject(C, "decode", "Undecodable", "PNG cannot be decoded")
        find = Reject(D, "find", "Truncated", "PNG")
        part = store.write_rejects(reject(A), reject(B, "NotAnImage"), png, find)
        assert self.outdated(store, part) == [False] * 4
        monkeypatch.setitem(RULES, "PNG", RULES["PNG"] + 1)
        assert self.outdated(store, part) == [True, False, True, False]

    @pytest.mark.parametrize("recorded", [b"[]", b"{", b"1", b"null", b"[" * 9999])
    def test_a_record_that_is_none_of_ours_makes_all_outdated(self, store, recorded):
        table = store.kind.table([embedding(A)])
        metadata = {**table.schema.metadata, b"decode_rules": recorded}
        part = write_part(store.place, store.kind, table.replace_schema_metadata(metadata))
        assert self.outdated(store, part) == [True]

    def test_parts_without_a_record_are_by_the_first_rules(self, store, monkeypatch):
        monkeypatch.setitem(RULES, "JPEG", 1)
        table = store.kind.table([embedding(A)])
        part = write_part(store.place, store.kind, table.replace_schema_metadata(None))
        assert self.outdated(store, part) == [False]
        monkeypatch.setitem(RULES, "JPEG", RULES["JPEG"] + 1)
        assert self.outdated(store, part) == [True]

    def test_rows_without_a_format_may_be_of_any(self, store, monkeypatch):
        table = store.kind.table([embedding(A)]).drop_columns(["format"])
        part = write_part(store.place, store.kind, table)
        monkeypatch.setitem(RULES, "Timeout", RULES["Timeout"] + 1)
        assert self.outdated(store, part) == [False]
        monkeypatch.setitem(RULES, "BMP", RULES["BMP"] + 1)
        assert self.outdated(store, part) == [True]


class TestPlanning:
    def test_what_has_not_changed_needs_no_run(self, store):
        store.commit(store.write(A), store.write_rejects(reject(B)))
        listed = [A, B, RootListed("/q", True)]
        first = store.plan(listed)
        assert (first.units, first.files, first.section.roots) == (0, 0, ("/q", "/r"))
        assert sorted(first.section.parts, key=lambda part: part.name) == list(
            committed(store.manifest, store.place).parts
        )
        assert not is_done(first, store.manifest)  # The root is new.
        finish(first, [])
        store.new_run()
        assert is_done(store.plan(listed), store.manifest)

    def test_what_is_not_done(self, store):
        store.commit(store.write(A))
        assert is_done(store.plan([A]), store.manifest)
        assert not is_done(store.plan([A, B]), store.manifest)
        assert not is_done(store.plan([A, RootListed("/q", True)]), store.manifest)
        assert not is_done(store.plan([DONE]), store.manifest)
        assert not is_done(store.plan([], rules=Rules(exact=True)), store.manifest)
        assert not is_done(store.plan([]), Manifest())
        # An empty section is made, too.
        empty = Store(Path(store.place.root).parent / "empty")
        assert not is_done(empty.plan([]), empty.manifest)

    def test_each_kind_of_work_has_units_of_its_own(self, store):
        whole, partly = store.write(image("w", size=1)), store.write(A, B, image("z", root="/z"))
        bad = store.write_rejects(reject(C), reject(D, "NotAnImage"))
        store.commit(whole, partly, bad)
        left = store.write(image("left", size=2))
        fresh = [image("new", size=70), image("copy", size=1)]
        lost = Reject(image("link"), "find", "DanglingLink", "leads to nothing")
        found = [image("w", size=1), image("a", "tulip"), D, image("left", size=2), *fresh, lost]
        plan = store.plan(
            [*found, HiddenFile("/r/.h"), HiddenFile("/r/.i"), DONE, RootListed("/b", True)]
        )
        assert (plan.place, plan.base) == (store.place, 1)
        assert names(plan.compute) == [["new"]]
        assert names(plan.doubtful) == [["copy"]]
        assert names(plan.rewrite) == [["a", "z"]]
        assert read_unit(plan.rewrite[0])["sha256"].to_pylist() == [digest("a"), digest("z")]
        assert read_unit(plan.rewrite[0])["label"].to_pylist() == ["tulip", "rose"]
        assert [unit.source for unit in plan.rewrite] == [partly.name]
        assert plan.derive == ()
        assert (plan.sources, plan.unit_rows) == (1, 128)
        assert read_sources(plan.place, 0) == {digest("w"): Source(f"0/{whole.name}", whole)}
        assert (plan.units, plan.files) == (3, 4)
        assert plan.section.roots == ("/b", "/r", "/z")
        # Rejects are few: they are written at once.
        assert plan.section.parts[:2] == (whole, left)
        known, new = (read_part(plan.place, p.name) for p in plan.section.parts[2:])
        assert known["uri"].to_pylist() == ["/r/d"]
        assert new["uri"].to_pylist() == ["/r/link"]
        assert [p.failures for p in plan.section.parts[2:]] == [0, 1]
        assert plan.counts == {
            "listed": 9,
            "hidden": 2,
            "fresh": 2,
            "reused": 3,
            "rejected": 2,
            "failures": 1,
            "reasons": {"NotAnImage": 1, "DanglingLink": 1},
        }

    @pytest.mark.parametrize(
        ("stored", "gone", "fraction", "held"),
        [
            pytest.param(100, 100, 0.25, False, id="a-hundred-may-leave"),
            pytest.param(101, 101, 0.25, True, id="one-more-may-not"),
            pytest.param(404, 101, 0.25, False, id="a-quarter-may-leave"),
            pytest.param(403, 101, 0.25, True, id="more-may-not"),
            pytest.param(403, 101, 0.26, False, id="unless-it-is-allowed"),
            pytest.param(101, 101, 1, False, id="all-may-leave-if-allowed"),
            pytest.param(101, 101, 0, True, id="without-an-allowance"),
        ],
    )
    def test_how_many_rows_leave_unasked(self, store, stored, gone, fraction, held):
        images = [image(f"{n}") for n in range(stored)]
        part = store.write(*images)
        store.commit(part)
        plan = store.plan([*images[gone:], image("new", size=11), DONE], fraction=fraction)
        assert (part in plan.section.parts) == held
        assert plan.counts.get("held") == (gone if held else None)
        assert plan.counts.get("covered") == (stored if held else None)
        assert ("held" in plan.section.about) == held
        assert not plan.undecided
        assert names(plan.compute) == [["new"]]

    def test_what_may_have_moved_is_decided_later(self, store):
        images = [image(f"{n}") for n in range(101)]
        store.commit(store.write(*images))
        assert store.plan([image("new"), DONE], fraction=0.25).undecided
        assert not store.plan([image("new", size=11), DONE], fraction=0.25).undecided
        assert not store.plan([image("new"), DONE], fraction=1).undecided

    def test_one_file_that_may_have_moved_is_enough(self, store):
        images = [image(f"{n}", size=n) for n in range(101)]
        rows = [embedding(i)._replace(sha256=digest(i.relative_path)) for i in images]
        store.commit(write_part(store.place, store.kind, store.kind.table(rows)))
        assert store.plan([image("new", size=7), DONE], fraction=0.25).undecided

    def test_what_is_undecided_of_ghosts_stays_so_where_too_much_would_leave(self, store):
        images = [image(f"{n}") for n in range(101)]
        ghost = image("ghost", size=70, root="/not/there")
        store.commit(store.write(*images), store.write(ghost))
        found = [image("new", size=70), DONE]
        assert store.plan(found, fraction=0.25).undecided
        assert store.plan(found, fraction=1).undecided

    def test_what_was_added_since_does_not_make_the_share_smaller(self, store):
        images = [image(f"{n}") for n in range(403)]
        new = [image(f"n{n}", size=11) for n in range(100)]
        store.commit(store.write(*images))
        first = store.plan([*images[101:], *new, DONE], fraction=0.25)
        assert (first.section.about["name"], first.counts["covered"]) == ("tiny", 403)
        assert finish(first, [Outcome((store.write(*new),), computed=100)])["committed"]
        store.new_run()
        again = store.plan([*images[101:], *new, DONE], fraction=0.25)
        assert (again.counts["held"], again.counts["covered"]) == (101, 403)
        assert again.section.about == first.section.about
        # Another listing has its own share, and leaves this one's as it is.
        other = store.plan([*images[101:], *new, DONE, RootListed("/b", True)], fraction=0.25)
        assert "held" not in other.counts
        assert other.section.about == first.section.about
        assert "held" not in store.plan([*images, *new, DONE], fraction=0.25).section.about

    @pytest.mark.parametrize("held", ["x", 1, None, ["x"], {"x": "y"}, {"x": 1.5}])
    def test_what_a_foreign_manifest_says_of_it_is_passed_over(self, store, held):
        store.commit(store.write(A))
        section = store.manifest.sections[store.place.section]
        foreign = replace(section, about={**section.about, "held": held})
        commit(store.place.root, Manifest(2, "r", {store.place.section: foreign}))
        assert "held" not in store.plan([A, DONE]).section.about

    def test_a_plan_without_a_join_leaves_nothing_undecided(self, store):
        assert not Plan(store.place, 0, store.section).undecided

    def test_roots_that_are_not_there(self, tmp_path, monkeypatch):
        roots = [str(tmp_path / "gone"), str(tmp_path), "s3://b/p", "s3://b/q", "x://y", "/closed"]
        asked = []

        def is_gone(uri):
            asked.append(uri)
            if uri == "x://y":
                raise InputError("no such file system")
            if uri == "/closed":
                raise PermissionError(13, "Permission denied")
            return uri != str(tmp_path)

        monkeypatch.setattr(planning.files, "is_gone", is_gone)
        matters = dict.fromkeys(roots, True) | {"s3://b/q": False, roots[0]: False}
        assert absent_roots(matters) == [roots[0], "s3://b/p"]
        assert sorted(asked) == sorted({*roots} - {"s3://b/q"})

    def test_parts_of_work_are_described_as_whoever_wrote_them_did(self, store):
        parts = [store.write(A, B), store.write_rejects(reject(C), reject(D, "NotAnImage"))]
        plan = store.plan([A, B, C, D])
        assert plan.section.parts == tuple(sorted(parts, key=lambda part: part.name))
        assert plan.units == 0

    def test_roots_are_in_order(self, store):
        plan = store.plan([RootListed(f"/{name}", True) for name in "hgfedcba"])
        assert plan.section.roots == tuple(f"/{name}" for name in "abcdefgh")

    def test_the_number_of_units_can_be_chosen(self, store):
        found = [image(f"{n}", size=n) for n in range(12)]
        assert [len(unit) for unit in names(store.plan(found, shards=4).compute)] == [3, 3, 3, 3]
        assert [unit.rows for unit in store.plan(found).compute] == [12]
        assert store.plan(found, shards=4).unit_rows == 3

    @pytest.mark.parametrize(
        ("count", "shards", "compute", "doubtful"),
        [(1024, None, [1024], []), (1025, None, [], [128] * 8 + [1]), (1025, 1, [1025], [])],
    )
    def test_files_of_one_size_are_hashed_first_if_too_many(
        self, store, count, shards, compute, doubtful
    ):
        plan = store.plan([image(f"{n}") for n in range(count)], shards=shards)
        assert [unit.rows for unit in plan.compute] == compute
        assert [unit.rows for unit in plan.doubtful] == doubtful
        assert plan.sources == len(doubtful)

    def test_rows_are_made_of_another_table(self, store):
        def prepare(ledger):
            for number in range(2):
                rows = [StoredRow(image(n), digest(n)) for n in "ab"]
                ledger.add_source(number, [(f"s{number}", rows)])
            ledger.reject_without_source()

        store.commit(store.write(image("old")))
        plan = store.plan([A, B, C], prepare=prepare)
        assert names(plan.derive) == [["a", "b"]]
        assert [unit.source for unit in plan.derive] == ["s0+s1"]
        assert (plan.compute, plan.doubtful, plan.sources, plan.files) == ((), (), 0, 2)
        assert plan.counts["reasons"] == {"NotInStore": 1}

    def test_files_may_have_the_content_of_rows_of_other_tables(self, store, tmp_path):
        store.commit(store.write(A))
        other = Store(tmp_path / "other")
        other.commit(other.write(image("b2")), other.write(image("lost")), other.write(image("c2")))
        section = other.manifest.sections[other.place.section]
        Path(other.place.published(section.rows[1].name)).unlink()
        others = [(other.place, section)]
        plan = store.plan([A, B, C], others=others)
        assert plan.others == (other.place,)
        assert (names(plan.compute), names(plan.doubtful)) == ([], [["b", "c"]])
        found = {source.name for source in read_sources(plan.place, 0).values()}
        left = {f"1/{part.name}" for part in (section.rows[0], section.rows[2])}
        assert left < found
        assert f"1/{section.rows[1].name}" not in found
        # Where nothing is new, the other table is not even read: it has no place here.
        assert store.plan([A], others=[(None, section)]).units == 0

    def test_another_encoding_is_written_again(self, store):
        parts = [store.write(image(name)) for name in "abefghij"]
        store.commit(*parts, store.write_rejects(reject(C)))
        plain = replace(store.section, about={"encoding": "plain"})
        plan = store.plan([], plain)
        assert [unit.source for unit in plan.rewrite] == sorted(part.name for part in parts)
        assert [part.is_rejects for part in plan.section.parts] == [True]
        # Work of a killed run may be encoded otherwise than the table that it is for.
        store.kind = replace(store.kind, encoding="plain")
        left = store.write(D)
        plan = store.plan([D])
        assert [unit.source for unit in plan.rewrite] == [left.name]
        assert len(plan.section.parts) == 9
        assert store.plan([D], plain).rewrite[-1].source != left.name

    def test_parts_are_derived_by_content(self, store):
        source = store.write(A, B)
        moved = stored_table([StoredRow(image("moved"), digest("b"))])
        store.kind = replace(store.kind, encoding="plain")
        (part,) = derive_parts(store.place, store.kind, source.name, moved, "sha256")
        rows = read_part(store.place, part.name)
        assert rows["uri"].to_pylist() == ["/r/moved"]
        assert encoding_of(rows.schema) == "plain"

    def test_parts_are_derived_of_another_table(self, store, tmp_path):
        other = Store(tmp_path / "other")
        source = other.write(A, B)
        wanted = stored_table([StoredRow(image("copy"), digest("b"))])
        (part,) = derive_parts(
            store.place, store.kind, source.name, wanted, "sha256", source_place=other.place
        )
        assert read_part(store.place, part.name)["uri"].to_pylist() == ["/r/copy"]
        assert work_parts(other.place) == [source.name]

    def test_a_plan_does_nothing_by_default(self, store):
        plan = Plan(store.place, 0, store.section)
        assert (plan.units, plan.files, plan.sources, plan.unit_rows) == (0, 0, 0, 128)
        every = {name: (Unit("f", 0, rows=2),) for name in ("compute", "doubtful", "rewrite")}
        plan = replace(plan, **every, derive=(Unit("f", 1, rows=3),))
        assert (plan.units, plan.files) == (4, 9)

    @pytest.mark.parametrize(
        ("count", "rows"),
        [(128**2 - 1, 128), (129**2, 129), (8191**2, 8191), (8192**2, 8192), (8193**2, 8192)],
    )
    def test_units_grow_as_the_root_of_the_work(self, count, rows):
        assert unit_rows(count, None) == rows


def result_of(plan):
    return json.loads(Path(plan.place.run_file("result.json")).read_text())


COUNTS = {"reused": 2, "rejected": 1, "failures": 1, "reasons": {"Truncated": 1}, "fresh": 3}


class TestFinishing:
    @pytest.fixture
    def plan(self, store):
        """Of a store with A: what stays of it, and B and C are to be computed."""
        store.commit(store.write(A))
        return replace(store.plan([A, B, C, DONE]), counts=COUNTS)

    def outcomes(self, store):
        bad = store.write_rejects(reject(C), reject(D, "NotAnImage"))
        seconds = Seconds(1.2344, 2.0, 3.00012)
        reasons = {"Truncated": 1, "NotAnImage": 1}
        one = Outcome((store.write(B),), computed=1, seconds=seconds)
        return [one, Outcome((bad,), reused=3, reasons=reasons, seconds=Seconds(1, 1, 1))]

    def test_what_the_units_gave_is_committed_and_published(self, store, plan):
        outcomes = self.outcomes(store)
        # A runner that repeats a bundle may deliver what it gave before as well.
        result = finish(plan, [*outcomes, outcomes[0]])
        counts = {
            "reused": 5,
            "rejected": 3,
            "failures": 2,
            "reasons": {"NotAnImage": 1, "Truncated": 2},
            "fresh": 3,
            "embedded": 1,
            "seconds": {"read": 2.234, "network": 3.0, "write": 4.0},
            "added": 1,
            "removed": 0,
            "changed": 0,
        }
        assert result == result_of(plan) == {**counts, "committed": True}
        assert list(result["reasons"]) == ["NotAnImage", "Truncated"]
        manifest = store.manifest
        assert (manifest.version, manifest.run, manifest.counts) == (2, plan.place.run, counts)
        section = manifest.sections[plan.place.section]
        parts = [*plan.section.parts, *(part for outcome in outcomes for part in outcome.parts)]
        assert section.parts == tuple(sorted(parts, key=lambda part: part.name))
        assert section.roots == ("/r",)
        assert all(Path(plan.place.published(part.name)).exists() for part in parts)
        assert not work_parts(plan.place)

    def test_a_part_that_the_plan_and_a_unit_name_is_named_once(self, store, plan):
        (part,) = plan.section.parts
        finish(plan, [Outcome((part,), computed=1)])
        assert store.manifest.sections[plan.place.section].parts == (part,)

    def test_parts_are_named_in_order(self, store, plan):
        parts = [store.write(image(name)) for name in "bcdefghi"]
        finish(plan, [Outcome((part,)) for part in sorted(parts, key=lambda p: p.digest)])
        names = [part.name for part in store.manifest.sections[plan.place.section].parts]
        assert len(names) == 9
        assert names == sorted(names)

    def test_other_sections_stay(self, store, plan):
        place, kind = store_place(store.place.root, "other", OTHER)
        row = write_part(place, kind, kind.table([embedding(A)]))
        append_parts(place, kind, {}, [row])
        assert finish(replace(plan, base=2), [])["committed"]
        assert set(store.manifest.sections) == {place.section, plan.place.section}

    def test_who_finishes_again_finds_it_done(self, store, plan):
        outcomes = self.outcomes(store)
        first = finish(plan, outcomes)
        assert finish(plan, outcomes) == first
        store.new_run()
        store.commit(store.write(image("later")))
        assert finish(plan, outcomes) == first
        assert versions(plan.place.root) == [1, 2, 3]

    def test_who_is_second_commits_nothing_and_leaves_its_work(self, store, plan):
        outcomes = self.outcomes(store)
        winner = Store(store.place.root)
        winner.commit(winner.write(B))
        for _ in range(2):
            assert not finish(plan, outcomes)["committed"]
            assert not result_of(plan)["committed"]
            winner.commit(winner.write(image("second")))
        assert versions(plan.place.root) == [1, 2, 3, 4]
        assert work_parts(plan.place) == sorted(o.parts[0].name for o in outcomes)

    def test_a_table_that_was_removed_is_not_made_again(self, store, plan):
        Path(plan.place.root, "__commits", "00000001.json").unlink()
        assert not finish(plan, [])["committed"]

    def test_a_problem_keeps_the_run_from_a_commit(self, store, plan):
        problems = [Outcome((), problem=word) for word in ("", *"hgfedcba", *"aceg")]
        result = finish(plan, [*self.outcomes(store), *problems])
        assert result == result_of(plan)
        assert result == {"committed": False, "problems": [*"abcdefgh"]}
        assert versions(plan.place.root) == [1]

    def test_damaged_parts_keep_the_run_from_a_commit(self, store, plan):
        parts = [(store.place.root, name) for name in "hgfedcba"]
        damaged = [Outcome((), damaged=(part,)) for part in [*parts, *parts]]
        outcomes = self.outcomes(store)
        result = finish(plan, [*outcomes, *damaged])
        counts = add_counts(COUNTS, outcomes)
        assert result == {**counts, "committed": False, "damaged": sorted(parts)}
        assert result_of(plan) == json.loads(json.dumps(result))
        assert versions(plan.place.root) == [1]

    def test_counts_without_outcomes(self):
        counts = {"reused": 2, "rejected": 1, "failures": 0}
        assert add_counts(counts, []) == {
            **counts,
            "embedded": 0,
            "reasons": {},
            "seconds": {"read": 0.0, "network": 0.0, "write": 0.0},
        }

    def test_files_that_could_not_be_read_are_counted_by_reason(self):
        counts = {"reused": 2, "rejected": 1, "failures": 0}
        outcomes = [Outcome((), unread={"OSError": 2}), Outcome((), unread={"IOError": 1})]
        first = add_counts(counts, outcomes)
        assert list(first["unread"].items()) == [("IOError", 1), ("OSError", 2)]
        assert add_counts(first, outcomes[:1])["unread"] == {"IOError": 1, "OSError": 4}
