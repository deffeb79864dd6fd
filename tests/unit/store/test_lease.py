"""The lease of a run: who puts it first decides, and everybody else obeys."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from writers import Table, image

from beam_flowers.errors import StoreError
from beam_flowers.records import RootListed
from beam_flowers.store import lease
from beam_flowers.store.commits import latest, publish
from beam_flowers.store.forget import forget
from beam_flowers.store.lease import (
    Heart,
    Withdrawn,
    adopt_work,
    is_withdrawn_by_another,
    read_lease,
    withdraw,
)
from beam_flowers.store.names import BEAT, adopted_name, is_part, is_reserved_file, writer_of
from beam_flowers.store.parts import work_parts
from beam_flowers.store.vacuum import vacuum

A, B, C = (image(name) for name in "abc")
URI_A, URI_B = A.uri, B.uri


class Killed(Exception):
    """Raised where a process would have ended."""


def killed(*arguments, **named):
    raise Killed


@pytest.fixture
def table(tmp_path):
    table = Table(tmp_path)
    table.append(A)
    return table


def planned(table):
    """A run that has written a row, and all but committed it."""
    own = table.writer()
    beat(own)
    plan = own.plan(A, B)
    return own, plan, own.rows(B)


def beat(own, **other):
    """Leaves the sign of life of a process that is no more."""
    found = {"host": os.uname().nodename, "pid": 2**22 + 1, "process": "0" * 16, **other}
    path = Path(own.place.run_file(BEAT))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def killed_while_committing(table):
    """A run that has put its lease, and no manifest."""
    own, plan, part = planned(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease, "commit_on_newest", killed)
        with pytest.raises(Killed):
            own.finish(plan, part)
    return own, plan, part


class TestCommitFirst:
    """Whoever comes later finishes the commit."""

    def check(self, table, own):
        assert latest(table.root).run == own.place.run
        assert table.uris() == [URI_A, URI_B]

    def test_then_withdrawing_finishes_it(self, table):
        own, *_ = killed_while_committing(table)
        assert table.uris() == [URI_A]
        assert withdraw(table.root, own.place.run, by="vacuum").version == 2
        self.check(table, own)
        assert Path(own.place.published(table.section.parts[0].name)).exists()

    def test_then_vacuum_finishes_it(self, table):
        own, *_ = killed_while_committing(table)
        assert vacuum(table.root, older_than=0).foreign == ()
        self.check(table, own)

    def test_then_the_next_run_finishes_it_and_plans_again(self, table):
        own, *_ = killed_while_committing(table)
        other = table.writer()
        assert not adopt_work(other.place, latest(table.root))
        assert adopt_work(other.place, latest(table.root))
        assert work_parts(other.place) == []
        self.check(table, own)

    def test_then_its_own_repeated_step_commits_what_it_wrote_down(self, table):
        own, plan, part = killed_while_committing(table)
        late = own.rows(C)  # Another attempt of a unit gave something else.
        done = own.finish(plan, part, late)
        assert (done["committed"], done["embedded"]) == (True, 1)
        self.check(table, own)
        assert own.finish(plan, late) == done
        assert latest(table.root).version == 2

    def test_though_only_rows_leave_then_the_next_run_finishes_it(self, table):
        """Later it would take out a row whose file is back by then."""
        table.append(B)
        own = table.writer()
        beat(own)
        plan = own.plan(A, RootListed("/r", True))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lease, "commit_on_newest", killed)
            with pytest.raises(Killed):
                own.finish(plan)
        assert not work_parts(own.place)
        other = table.writer()
        assert not adopt_work(other.place, latest(table.root))
        assert table.uris() == [URI_A]

    def test_then_forget_finishes_it_and_no_later_run_brings_it_back(self, table):
        own = table.writer()
        beat(own)
        other = image("b", root="/q")
        plan = own.plan(other)
        part = own.rows(other)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lease, "commit_on_newest", killed)
            with pytest.raises(Killed):
                own.finish(plan, part)
        assert forget(table.root, "/q").rows == 1
        assert adopt_work(table.writer().place, latest(table.root))
        assert table.uris() == [URI_A]

    def test_and_cannot_be_finished_then_its_work_is_free(self, table):
        own, plan, part = killed_while_committing(table)
        other = table.writer()
        changed = other.finish(other.plan(A, B), other.rows(B))  # Of the same image.
        assert changed["committed"]
        assert withdraw(table.root, own.place.run, by="vacuum") is None
        third = table.writer()
        assert adopt_work(third.place, latest(table.root))
        assert work_parts(third.place) == [adopted_name(part.name, third.place.run)]
        assert own.finish(plan, part)["committed"] is False


class TestWithdrawnFirst:
    @pytest.mark.parametrize("by", ["vacuum", "user", "run"])
    def test_then_the_commit_step_commits_nothing_however_often(self, table, by):
        own, plan, part = planned(table)
        if by == "vacuum":
            vacuum(table.root, older_than=0)
            assert not Path(own.place.run_file()).exists()
        elif by == "run":
            assert adopt_work(table.writer().place, latest(table.root))
        else:
            assert withdraw(table.root, own.place.run, by=own.place.run) is None
        assert is_withdrawn_by_another(own.place) == (by != "user")
        for _ in range(2):
            assert own.finish(plan, part)["committed"] is False
        assert (latest(table.root).version, table.uris()) == (1, [URI_A])

    def test_then_the_next_plan_has_its_rows(self, table):
        own, plan, part = planned(table)
        other = table.writer()
        assert adopt_work(other.place, latest(table.root))
        assert own.finish(plan, part)["committed"] is False
        made = other.plan(A, B)
        assert made.units == 0
        assert other.finish(made)["committed"]
        publish(table.root)
        assert table.uris() == [URI_A, URI_B]

    def test_one_run_takes_its_work_and_no_other(self, table):
        _, _, part = planned(table)
        first, second = table.writer(), table.writer()
        base = latest(table.root)
        for other in (first, second):
            beat(other, pid=os.getpid(), process=lease._PROCESS)
            assert adopt_work(other.place, base)
        assert work_parts(first.place) == [adopted_name(part.name, first.place.run)]
        assert work_parts(second.place) == []
        # Unless the first is killed, too.
        beat(first)
        assert adopt_work(second.place, base)
        assert work_parts(second.place) == [adopted_name(part.name, second.place.run)]
        assert read_lease(table.root, first.place.run) == Withdrawn(second.place.run)


class TestWhoseWorkIsFree:
    def adopted(self, table, own):
        other = table.writer()
        assert adopt_work(other.place, latest(table.root))
        return bool(work_parts(other.place))

    def test_none_of_a_process_that_is_there(self, table):
        own, plan, part = planned(table)
        beat(own, pid=os.getpid(), process=lease._PROCESS)
        assert not self.adopted(table, own)
        beat(own, pid=1)
        assert not self.adopted(table, own)
        assert own.finish(plan, part)["committed"]

    def test_that_of_an_earlier_process_of_the_same_number(self, table):
        own, *_ = planned(table)
        beat(own, pid=os.getpid())
        assert self.adopted(table, own)

    @pytest.mark.parametrize(("age", "is_free"), [(0, False), (500, False), (700, True)])
    def test_that_of_another_machine_goes_by_the_time_of_its_last_sign(self, table, age, is_free):
        own, *_ = planned(table)
        beat(own, host="elsewhere")
        for path in Path(own.place.run_file()).rglob("*"):
            os.utime(path, (time.time() - age, time.time() - age))
        assert self.adopted(table, own) == is_free

    def test_a_worker_that_beats_is_a_sign_as_well(self, table):
        own, *_ = planned(table)
        beat(own, host="elsewhere")
        for path in Path(own.place.run_file()).rglob("*"):
            os.utime(path, (time.time() - 7000, time.time() - 7000))
        answer = Path(own.place.run_file("answers/host-0123456789abcdef-1"))
        answer.parent.mkdir()
        answer.write_bytes(b"")
        assert not self.adopted(table, own)

    def test_none_of_a_pipeline_without_a_driver_of_ours(self, table):
        own, *_ = planned(table)
        Path(own.place.run_file(BEAT)).unlink()
        assert not self.adopted(table, own)

    def test_that_of_programs_before_leases(self, table):
        own, _, part = planned(table)
        shutil.rmtree(Path(own.place.run_file()).parent / f"run-{own.place.run}" / "answers", True)
        old = Path(replace(own.place, run="").work_folder, f"part-{'a1' * 12}.parquet")
        old.parent.mkdir(parents=True)
        shutil.move(own.place.work(part.name), old)
        other = table.writer()
        assert adopt_work(other.place, latest(table.root))
        assert work_parts(other.place) == [f"part-{other.place.run}-{'a1' * 8}.parquet"]
        assert other.finish(other.plan(A, B))["committed"]
        assert table.uris() == [URI_A, URI_B]


class TestHeart:
    def test_a_run_that_ends_frees_what_it_left(self, table):
        own = table.writer()
        with Heart(own.place) as heart:
            heart.start()
            heart.start()
            assert json.loads(Path(own.place.run_file(BEAT)).read_text())["pid"] == os.getpid()
            own.plan(A, B)
            part = own.rows(B)
        left = [p.name for p in Path(own.place.run_file()).rglob("*") if p.is_file()]
        assert left == [part.name]
        assert read_lease(table.root, own.place.run) == Withdrawn(own.place.run)
        assert not is_withdrawn_by_another(own.place)

    def test_a_run_that_leaves_nothing_leaves_no_lease(self, table):
        own = table.writer()
        with Heart(own.place) as heart:
            heart.start()
        assert not Path(own.place.run_file()).exists()
        assert read_lease(table.root, own.place.run) is None

    def test_after_an_error_a_job_elsewhere_commits_nothing_and_keeps_its_files(self, table):
        own = table.writer()
        plan = own.plan(A, B)

        def fail():
            with Heart(own.place) as heart:
                heart.start()
                raise Killed

        with pytest.raises(Killed):
            fail()
        assert Path(own.place.run_file("units.parquet")).exists()
        assert own.finish(plan, own.rows(B))["committed"] is False

    def test_it_beats_again_and_again(self, table, monkeypatch):
        monkeypatch.setattr(lease, "PULSE", 0.01)
        own = table.writer()
        with Heart(own.place) as heart:
            heart.start()
            path = Path(own.place.run_file(BEAT))
            before, deadline = path.stat().st_mtime_ns, time.monotonic() + 10
            while path.stat().st_mtime_ns == before:
                assert time.monotonic() < deadline
                time.sleep(0.005)


class TestFiles:
    @pytest.mark.parametrize("name", ["part-", "rejects-", "label=a-b/part-"])
    def test_the_name_of_a_part_says_who_wrote_it(self, name):
        run, other = "0123456789abcdef", "fedcba9876543210"
        old, new = f"{name}{'5' * 24}.parquet", f"{name}{run}-{'5' * 16}.parquet"
        assert (writer_of(old), writer_of(new)) == ("", run)
        assert adopted_name(old, run) == new
        assert adopted_name(new, other) == f"{name}{other}-{'5' * 16}.parquet"
        assert is_part(old)
        assert is_part(new)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"state": "withdrawn"}',
            b'{"state": "else"}',
            b'{"state": "committing", "base": "1", "exact": false, "manifest": {}}',
            b'{"state": "committing", "base": 1, "exact": false, "manifest": {}}',
        ],
    )
    def test_a_damaged_lease_is_named(self, table, content):
        own, plan, part = planned(table)
        path = Path(table.root, "__work", "leases", f"run-{own.place.run}")
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(StoreError, match=f"{path.name} is damaged"):
            own.finish(plan, part)

    def test_the_lease_of_another_run_is_refused(self, table):
        own, *_ = killed_while_committing(table)
        folder = Path(table.root, "__work", "leases")
        shutil.copy(folder / f"run-{own.place.run}", folder / f"run-{'f' * 16}")
        with pytest.raises(StoreError, match="is the lease of another run"):
            withdraw(table.root, "f" * 16, by="vacuum")

    def test_a_lease_goes_with_its_manifest(self, table):
        folder = Path(table.root, "__work", "leases")
        runs = []
        for name in "bcde":
            own = table.writer()
            assert own.finish(own.plan(image(name)), own.rows(image(name)))["committed"]
            runs.append(f"run-{own.place.run}")
        assert sorted(path.name for path in folder.iterdir()) == runs
        assert all(is_reserved_file(f"__work/leases/{name}") for name in runs)
        vacuum(table.root, retention=0)
        assert sorted(path.name for path in folder.iterdir()) == runs[-2:]

    def test_the_lease_of_a_withdrawn_run_goes_when_the_retention_is_over(self, table):
        own, *_ = planned(table)
        vacuum(table.root, older_than=0)
        path = Path(table.root, "__work", "leases", f"run-{own.place.run}")
        vacuum(table.root, older_than=0)
        assert path.exists()
        os.utime(path, (time.time() - 8 * 24 * 3600,) * 2)
        vacuum(table.root)
        assert not path.exists()
