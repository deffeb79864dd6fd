"""Commits on top of others' commits, and the changes that are not disjoint."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from writers import OTHER, Table, fresh_hash, image

from beam_flowers.errors import StoreError
from beam_flowers.records import RootListed
from beam_flowers.store import rebase
from beam_flowers.store.append import append_parts
from beam_flowers.store.commits import (
    Manifest,
    commit,
    commit_uri,
    committed,
    encode_manifest,
    latest,
    publish,
    read_manifest,
    versions,
)
from beam_flowers.store.forget import forget
from beam_flowers.store.history import restore
from beam_flowers.store.lease import withdraw
from beam_flowers.store.ledger import Rules
from beam_flowers.store.parts import work_parts
from beam_flowers.store.rebase import commit_on_newest
from beam_flowers.store.table import TRIES


@pytest.fixture
def table(tmp_path):
    table = Table(tmp_path)
    table.append(image("a"))
    return table


A, B, C, D = (image(name) for name in "abcd")
ELSEWHERE = image("x", "/elsewhere")


class TestDisjoint:
    def test_rows_of_other_images_are_committed_on_top(self, table, tmp_path):
        own = table.writer()
        more = [image(name) for name in "efghij"]
        plan = own.plan(A, B, *more, *(RootListed(f"/{name}", True) for name in "rmlkjihgfe"))
        table.append(ELSEWHERE)
        table.append(image("y", "/elsewhere"))
        result = own.finish(plan, *(own.rows(found) for found in (B, *more)))
        assert result["committed"]
        newest = latest(table.root)
        assert (newest.version, newest.run) == (4, own.place.run)
        assert newest.counts == {n: v for n, v in result.items() if n != "committed"}
        # Those of the version that it follows are not its own.
        counts = [newest.counts[n] for n in ("embedded", "added", "removed", "changed")]
        assert counts == [7, 7, 0, 0]
        assert table.section.roots == ("/e", "/elsewhere", *(f"/{name}" for name in "fghijklmr"))
        names = [part.name for part in table.section.parts]
        assert names == sorted(names)
        every = [A, B, *more, ELSEWHERE, image("y", "/elsewhere")]
        assert table.uris() == sorted(found.uri for found in every)
        assert table.section.dataset_hash == fresh_hash(tmp_path, *every)
        assert not work_parts(own.place)

    def test_each_side_rewrites_a_part_of_its_own(self, table, tmp_path):
        table.append(B, C)
        table.append(D, ELSEWHERE)
        own, other = table.writer(), table.writer()
        edited, moved = D._replace(bytes=11), B._replace(modified=2)
        plan = own.plan(A, moved, C)
        theirs = other.plan(edited)
        assert [unit.rows for unit in (*plan.rewrite, *theirs.rewrite)] == [1, 1]
        assert other.finish(theirs, other.rows(ELSEWHERE), other.rows(edited))["committed"]
        assert own.finish(plan, own.rows(C), own.rows(moved))["committed"]
        assert latest(table.root).version == 5
        every = [A, moved, C, edited, ELSEWHERE]
        assert table.uris() == sorted(i.uri for i in every)
        assert table.section.dataset_hash == fresh_hash(tmp_path, *every)

    def test_another_section_is_never_in_the_way(self, table):
        own = table.writer()
        plan = own.plan(image("a")._replace(bytes=11))
        other = table.writer("other", OTHER)
        other.append(A, B)
        result = own.finish(plan, own.rows(B))
        assert result["committed"]
        assert [result[n] for n in ("added", "removed", "changed")] == [1, 1, 0]
        sections = latest(table.root).sections
        assert set(sections) == {own.place.section, other.place.section}
        assert sections[other.place.section].rows[0].rows == 2
        assert table.uris() == ["/r/b"]

    def test_an_exact_section_that_nobody_touched(self, table):
        own = table.writer()
        plan = own.plan(A, B, rules=Rules(exact=True))
        table.writer("other", OTHER).append(A)
        assert own.finish(plan, own.rows(B))["committed"]

    def test_a_section_that_both_begin(self, tmp_path):
        table = Table(tmp_path)
        own = table.writer()
        plan = own.plan(A)
        table.append(B)
        assert own.finish(plan, own.rows(A))["committed"]
        assert table.uris() == ["/r/a", "/r/b"]

    def test_a_section_of_another_kind_in_whose_place_both_write(self, table):
        newest = latest(table.root)
        (key,) = newest.sections
        other = {key: replace(newest.sections[key], fingerprint=OTHER)}
        commit(table.root, replace(newest, version=2, run="other", sections=other))
        own, another = table.writer(), table.writer()
        plan = own.plan(A)
        assert another.finish(another.plan(B), another.rows(B))["committed"]
        assert own.finish(plan, own.rows(A))["committed"]
        assert table.uris() == ["/r/a", "/r/b"]

    def test_engines_may_differ(self, table):
        own = table.writer()
        plan = own.plan(A, B)
        about = {**plan.section.about, "engine": "openvino", "size": (1, 2)}
        plan = replace(plan, section=replace(plan.section, about=about))
        theirs = table.writer()
        append_parts(theirs.place, theirs.kind, {"engine": "tf", "size": (1, 2)}, [theirs.rows(C)])
        assert own.finish(plan, own.rows(B))["committed"]
        assert table.section.about["engine"] == "openvino"

    def test_a_writer_between_the_look_and_the_commit(self, table, monkeypatch):
        own = table.writer()
        plan = own.plan(A, B)
        table.append(C)
        late = iter([D, ELSEWHERE])

        def second(root, manifest):
            if found := next(late, None):
                monkeypatch.setattr(rebase, "commit", commit)
                table.append(found)
                monkeypatch.setattr(rebase, "commit", second)
            return commit(root, manifest)

        monkeypatch.setattr(rebase, "commit", second)
        assert own.finish(plan, own.rows(B))["committed"]
        assert latest(table.root).version == 5
        assert table.uris() == ["/elsewhere/x", "/r/a", "/r/b", "/r/c", "/r/d"]

    def test_who_is_late_each_time_gives_up(self, table, monkeypatch):
        own = table.writer()
        plan = own.plan(A, B)
        tries: list[int] = []

        def taken(root, manifest):
            tries.append(manifest.version)
            other = replace(latest(root), version=manifest.version, run="another")
            Path(commit_uri(root, other.version)).write_bytes(encode_manifest(other))
            return False

        monkeypatch.setattr(rebase, "commit", taken)
        assert not own.finish(plan, own.rows(B))["committed"]
        assert tries == list(range(2, 2 + TRIES))
        # The commit has begun, so that who wants to withdraw the run has to finish it.
        with pytest.raises(StoreError, match=f"other writers were first {TRIES} times"):
            withdraw(table.root, own.place.run, by="vacuum")

    def test_what_listings_held_is_merged_by_listing(self, table):
        def set_held(held):
            about = {**table.section.about, "held": held}
            base, place = latest(table.root), table.writer().place
            sections = {**base.sections, place.section: replace(table.section, about=about)}
            manifest = Manifest(base.version + 1, place.run, sections)
            assert commit(table.root, manifest)

        set_held({"one": 5, "two": 6})
        own = table.writer()
        plan = own.plan(A, B)
        about = {**plan.section.about, "held": {"one": 7}}
        table.append(C)
        set_held({"two": 6, "three": 8, "one": 5})
        plan = replace(plan, section=replace(plan.section, about=about))
        assert own.finish(plan, own.rows(B))["committed"]
        assert table.section.about["held"] == {"one": 7, "three": 8}
        assert table.uris() == ["/r/a", "/r/b", "/r/c"]


def names_at(table, version):
    place = table.writer().place
    return {p.name for p in committed(read_manifest(table.root, version), place).parts}


class TestNotDisjoint:
    def refused(self, table, own, plan, *parts):
        before = versions(table.root)
        assert not own.finish(plan, *parts)["committed"]
        assert versions(table.root) == before

    @pytest.mark.parametrize("others", [["b"], ["c", "b"]])
    def test_a_row_of_one_uri(self, table, others):
        own = table.writer()
        plan = own.plan(A, B)
        for name in others:
            table.append(image(name))
        self.refused(table, own, plan, own.rows(B))

    def test_a_row_and_a_reject_of_one_uri(self, table):
        own, other = table.writer(), table.writer()
        plan = own.plan(A, B)
        append_parts(other.place, other.kind, {}, [other.rejects(B)])
        self.refused(table, own, plan, own.rows(B))
        own = table.writer()
        plan = own.plan(A, C)
        table.append(C)
        self.refused(table, own, plan, own.rejects(C))

    def test_a_part_that_both_removed(self, table):
        table.append(B, C)
        own = table.writer()
        plan = own.plan(B._replace(bytes=11))
        other = table.writer()
        theirs = other.plan(C._replace(bytes=11))
        gone = own.plan(A, RootListed("/r", True))
        other.finish(theirs, other.rows(B), other.rows(C._replace(bytes=11)))
        self.refused(table, own, plan, own.rows(C), own.rows(B._replace(bytes=11)))
        self.refused(table, own, gone)

    def test_a_section_that_holds_what_one_run_listed(self, table):
        own = table.writer()
        plan = own.plan(A, B, rules=Rules(exact=True))
        assert plan.exact
        assert not own.plan(A, B).exact
        table.append(C)
        self.refused(table, own, plan, own.rows(B))

    def test_rows_of_an_older_version_that_came_back(self, table):
        table.append(B)
        own = table.writer()
        plan = own.plan(A, C)
        restore(table.root, 2)
        self.refused(table, own, plan, own.rows(C))

    def test_another_encoding_or_description(self, table):
        own = table.writer()
        plan = own.plan(B, encoding="plain")
        table.append(C)
        self.refused(table, own, plan, own.rows(A), own.rows(B))

    def test_a_section_of_another_fingerprint(self, table):
        own = table.writer()
        plan = own.plan(A, B)
        newest = latest(table.root)
        other = {own.place.section: replace(table.section, fingerprint=OTHER)}
        commit(table.root, replace(newest, version=2, run="other", sections=other))
        self.refused(table, own, plan, own.rows(B))

    @pytest.mark.parametrize("root", ["/r", "/r/c", "/elsewhere"])
    def test_rows_that_were_forgotten(self, table, root):
        table.append(C, ELSEWHERE)
        own = table.writer()
        plan = own.plan(A, B, C)
        table.append(*(image(f"{n}", "/k") for n in range(4)))
        forget(table.root, root)
        table.append(image("later", "/l"), image("and more", "/l"), image("another", "/l"))
        self.refused(table, own, plan, own.rows(B))

    def test_a_section_that_was_forgotten(self, table):
        own = table.writer()
        plan = own.plan(A, B)
        forget(table.root, "/r")
        assert not latest(table.root).sections
        self.refused(table, own, plan, own.rows(B))
        table.append(C, D)
        self.refused(table, own, plan, own.rows(B))

    def test_a_part_that_was_lost(self, table):
        table.append(C)
        own, other = table.writer(), table.writer()
        plan = own.plan(A, B, C)
        Path(own.place.published(sorted(names_at(table, 2) - names_at(table, 1))[0])).unlink()
        made_again = other.finish(other.plan(C, D), other.rows(C), other.rows(D))
        assert made_again["committed"]
        assert table.section.lost
        self.refused(table, own, plan, own.rows(B))

    def test_work_that_is_gone(self, table):
        own = table.writer()
        plan = own.plan(A, B)
        part = own.rows(B)
        table.append(C)
        Path(own.place.work(part.name)).unlink()
        self.refused(table, own, plan, part)

    def test_a_part_of_another_run_that_is_lost(self, table):
        own = table.writer()
        plan = own.plan(A, B)
        table.append(C)
        (name,) = names_at(table, 2) - names_at(table, 1)
        Path(own.place.published(name)).unlink()
        self.refused(table, own, plan, own.rows(B))

    @pytest.mark.parametrize("others", [0, 1])
    def test_work_that_went_while_the_run_slept(self, table, others):
        own = table.writer()
        plan = own.plan(A, B, C)
        part, gone = own.rows(B), own.rows(C)
        for number in range(others):
            table.writer("other", OTHER).append(image(f"{number}"))
        Path(own.place.work(gone.name)).unlink()
        self.refused(table, own, plan, part, gone)

    def test_a_root_that_was_forgotten_and_has_others_in_its_place(self, table):
        own = table.writer()
        plan = own.plan(A, B)
        newest = latest(table.root)
        (key,) = newest.sections
        section = replace(newest.sections[key], roots=())
        commit(table.root, replace(newest, version=2, run="o", sections={key: section}))
        self.refused(table, own, plan, own.rows(B))

    @pytest.mark.parametrize("version", [1, 2])
    def test_versions_that_nobody_can_read_any_more(self, table, version):
        own = table.writer()
        plan = own.plan(A, B)
        table.append(C)
        table.append(D)
        Path(commit_uri(table.root, version)).unlink()
        self.refused(table, own, plan, own.rows(B))

    @pytest.mark.parametrize("section", ["tiny", "new"])
    def test_a_table_that_is_removed_meanwhile(self, table, monkeypatch, section):
        own = table.writer(section)
        plan = own.plan(A, B)
        table.append(C)

        def removed(root, manifest):
            for version in (1, 2):
                Path(commit_uri(root, version)).unlink()
            monkeypatch.setattr(rebase, "commit", commit)
            return False

        monkeypatch.setattr(rebase, "commit", removed)
        assert not own.finish(plan, own.rows(B))["committed"]
        assert versions(table.root) == []

    def test_a_table_that_fell_back(self, table):
        table.append(C)
        own = table.writer()
        plan = own.plan(A, B, C)
        Path(commit_uri(table.root, 2)).unlink()
        self.refused(table, own, plan, own.rows(B))


class TestLost:
    @pytest.fixture
    def plan(self, table):
        """Of a run that finds a part lost, and makes its row again."""
        table.append(C)
        (name,) = names_at(table, 2) - names_at(table, 1)
        own = table.writer()
        path = Path(own.place.published(name))
        data = path.read_bytes()
        path.unlink()
        plan = own.plan(A, C)
        assert [part.name for part in plan.section.lost] == [name]
        path.write_bytes(data)  # It may be there again for others.
        return own, plan

    def test_what_one_side_lost_is_noted(self, table, plan):
        own, plan = plan
        table.append(D)
        assert own.finish(plan, own.rows(C))["committed"]
        assert table.section.lost == plan.section.lost
        assert table.uris() == ["/r/a", "/r/c", "/r/d"]

    def test_what_was_lost_before_is_noted_once(self, table, plan):
        own, plan = plan
        own.finish(plan, own.rows(C))
        own = table.writer()
        plan = own.plan(A, B, C)
        table.append(D)
        assert own.finish(plan, own.rows(B))["committed"]
        assert len(table.section.lost) == 1


class TestRepeated:
    def test_a_repeated_step_finds_its_run_in_any_version(self, table):
        own = table.writer()
        plan = own.plan(A, B)
        table.append(C)
        part = own.rows(B)
        first = own.finish(plan, part)
        assert own.finish(plan, part) == first
        assert latest(table.root).version == 3
        edited = table.writer()
        edited.finish(edited.plan(B._replace(bytes=11)), edited.rows(B._replace(bytes=11)))
        table.append(D)
        # As a worker that repeats everything leaves it.
        own.rows(B)
        assert own.finish(plan, part) == first
        assert versions(table.root) == [1, 2, 3, 4, 5]
        assert part.name not in names_at(table, 5)
        assert not Path(own.place.published(part.name)).exists()

    def test_counts_of_a_repeated_step_are_those_of_the_commit(self, table):
        own = table.writer()
        plan = own.plan(A, B, C)
        first = own.finish(plan, own.rows(B, C))
        table.append(D)
        again = own.finish(plan, own.rows(B), own.rejects(C))
        assert again == first
        assert json.loads(Path(own.place.run_file("result.json")).read_text()) == first

    def test_a_repeated_append_after_others_replaced_its_parts(self, table):
        own = table.writer()
        part = own.rows(B)
        append_parts(own.place, own.kind, {}, [part])
        table.append(C)
        other = table.writer()
        other.finish(other.plan(B._replace(bytes=11)), other.rows(B._replace(bytes=11)))
        before = versions(table.root)
        append_parts(own.place, own.kind, {}, [part])
        assert versions(table.root) == before
        assert part.name not in {p.name for p in table.section.parts}

    def test_an_append_beside_others_is_committed_at_its_first_try(self, table, monkeypatch):
        own = table.writer()
        part = own.rows(B)
        tries = []

        def late(place, intent):
            monkeypatch.undo()
            table.append(image("late", "/l"))
            tries.append(commit_on_newest(place, intent))
            return tries[-1]

        monkeypatch.setattr("beam_flowers.store.append.commit_on_newest", late)
        append_parts(own.place, own.kind, {}, [part])
        assert [manifest.version for manifest in tries] == [3]
        assert table.uris() == ["/l/late", "/r/a", "/r/b"]


def test_publishing_after_a_rebase_deletes_what_both_replaced(table):
    table.append(B, C)
    own = table.writer()
    plan = own.plan(B._replace(bytes=11), C)
    table.append(*(image(f"{n}", "/l") for n in range(3)))
    assert own.finish(plan, own.rows(C), own.rows(B._replace(bytes=11)))["committed"]
    publish(table.root)
    folder = Path(own.place.published("x")).parent
    named = {part.name for part in table.section.parts}
    assert {path.name for path in folder.glob("*.parquet")} == named
