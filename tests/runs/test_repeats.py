"""What runners may do twice: a bundle, the last step. The table is as if it were done once."""

import json
import shutil
import threading
import time
from collections import defaultdict
from dataclasses import replace

import pytest
from apache_beam.pvalue import TaggedOutput
from stores import PHOTOS, embed, photos, rejects, rows, visible
from vectors import add, embeddings

from beam_flowers import files
from beam_flowers.backbones.resolve import resolve
from beam_flowers.cli.main import _telling
from beam_flowers.errors import PartDamagedError
from beam_flowers.images.recipe import Limits
from beam_flowers.store.commits import latest, versions
from beam_flowers.store.ledger import Rules
from beam_flowers.store.outcomes import Outcome
from beam_flowers.store.parts import write_part
from beam_flowers.store.plan import finish
from beam_flowers.store.schema import StoreRows, images_of
from beam_flowers.store.work_units import read_unit
from beam_flowers.transforms import dofns
from beam_flowers.transforms.preflight import expected_setup
from beam_flowers.workflows import embed as embed_run
from beam_flowers.workflows.embed import embed_images


def outcomes(plan, kind, backbones):
    """What the workers make of a plan's units."""
    setup = expected_setup(plan.place, {}, backbones)
    step = dofns.EmbedUnits(setup, kind, Limits())
    step.start_bundle()
    made = []
    for unit in plan.compute:
        made += step.process(unit)
    return made + [element.value for element in step.finish_bundle()]


def test_a_bundle_computed_twice_is_one_part(tmp_path, monkeypatch):
    folder, store = photos(tmp_path / "images"), tmp_path / "store"

    def run_twice(plan, row_kind, backbones, **_):
        first, second = (outcomes(plan, row_kind, backbones) for _ in range(2))
        assert [o.parts for o in first] == [o.parts for o in second]
        finish(plan, [*first, *second])
        finish(plan, second)

    monkeypatch.setattr(embed_run, "run_plan", run_twice)
    summary = embed(folder, store, shards=3)
    assert (summary.embedded, summary.rows) == (10, 10)
    assert {row["uri"] for row in rows(store)} == visible(folder)
    assert len(list(store.glob("backbone=*/*.parquet"))) == 3
    assert versions(str(store)) == [1]


@pytest.mark.slow
@pytest.mark.parametrize("fails", [1, 2])
@pytest.mark.parametrize("copies", [False, True])
def test_of_two_attempts_with_other_rejects_one_counts(tmp_path, monkeypatch, fails, copies):
    folder, store = photos(tmp_path / "images", 1), tmp_path / "store"
    if copies:  # Files whose size another has, too, are hashed first.
        embed(folder, store)
        shutil.copytree(folder / "roses", folder / "copies" / "roses")
        shutil.copytree(folder / "tulips", folder / "copies" / "tulips")
    unreadable, attempts, results = str(min((folder / "roses").iterdir())), [], []
    if copies:
        unreadable = str(min((folder / "copies" / "roses").iterdir()))
    read = files.read_bytes

    def read_bytes(uri, limit=None):
        if uri == unreadable and len(attempts) == fails:
            raise OSError(5, "Input/output error", uri)
        return read(uri, limit)

    def run_twice(plan, row_kind, backbones, **_):
        made = []
        for _ in range(2):
            attempts.append(plan)
            made.append(attempt(plan, row_kind, backbones))
        results.append(finish(plan, made[0] + made[1]))
        assert finish(plan, made[1]) == results[0]

    monkeypatch.setattr(files, "read_bytes", read_bytes)
    monkeypatch.setattr(embed_run, "run_plan", run_twice)
    summary = embed_images([str(folder)], str(store), resolve("efficientnet-lite0"), warn=print)
    assert len(attempts) == 2
    is_rejected = fails == 1
    assert (summary.rejected, summary.reasons) == ((1, {"OSError": 1}) if is_rejected else (0, {}))
    found = [row["uri"] for row in rows(store)]
    assert set(found) == visible(folder) - ({unreadable} if is_rejected else set())
    assert rejects(store) == ({unreadable: "OSError"} if is_rejected else {})


def attempt(plan, kind, backbones):
    """All that the workers make of a plan that hashes some of its files first, once."""
    made, setup = outcomes(plan, kind, backbones), expected_setup(plan.place, {}, backbones)
    blocks, moved, packed = defaultdict(list), defaultdict(list), []
    named = {"place": plan.place, "row_kind": kind}
    for unit in plan.doubtful:
        for result in dofns.hash_unit(unit, partitions=plan.sources, limits=Limits(), **named):
            if isinstance(result, TaggedOutput):
                made.append(result.value)
            else:
                blocks[result[0]].append(result[1])
    for keyed in blocks.items():
        twice = (keyed[0], keyed[1] * 2)
        for result in dofns.settle_partition(twice, plan.place, plan.unit_rows):
            if isinstance(result, TaggedOutput):
                moved[result.value[0]].append(result.value[1])
            else:
                packed.append(result)
    for source, some in moved.items():
        made += dofns.copy_rows((source, some * 2), others=plan.others, **named)
    step = dofns.EmbedUnits(setup, kind, Limits())
    step.start_bundle()
    made += [outcome for unit in packed for outcome in step.process(unit)]
    return made + [element.value for element in step.finish_bundle()]


def test_damage_that_the_end_of_a_bundle_finds_reaches_the_driver_as_data(tmp_path, monkeypatch):
    """An exception loses its type on the way from most runners, and ends the run."""
    folder, store, found = photos(tmp_path / "images", 1), tmp_path / "store", []

    def damaged(place, *_):
        raise PartDamagedError("its rows are others", place.root, "part-1")

    def run_once_damaged(plan, row_kind, backbones, **_):
        with monkeypatch.context() as patched:
            if not found:
                patched.setattr(dofns, "write_results", damaged)
            found.append(outcomes(plan, row_kind, backbones))
        finish(plan, found[-1])

    monkeypatch.setattr(embed_run, "run_plan", run_once_damaged)
    assert embed(folder, store).rows == 5
    assert found[0] == [Outcome((), damaged=((str(store), "part-1"),))]


def test_a_unit_that_is_done_is_not_computed_again(tmp_path, monkeypatch):
    folder, store = photos(tmp_path / "images", 1), tmp_path / "store"

    def run_twice(plan, row_kind, backbones, **_):
        first = outcomes(plan, row_kind, backbones)
        with monkeypatch.context() as patched:
            patched.setattr(dofns, "start_each", None)
            assert outcomes(plan, row_kind, backbones) == first
        finish(plan, first)

    monkeypatch.setattr(embed_run, "run_plan", run_twice)
    assert embed(folder, store).embedded == 5


@pytest.mark.slow
def test_a_last_step_that_is_repeated_after_another_writers_commit(tmp_path, monkeypatch):
    folder, store = photos(tmp_path / "images", 1), tmp_path / "store"
    results = []

    def meet_another(plan, row_kind, backbones, **_):
        monkeypatch.undo()
        made = outcomes(plan, row_kind, backbones)
        results.append(finish(plan, made))
        embed(PHOTOS / "roses", store)
        results.append(finish(plan, made))

    monkeypatch.setattr(embed_run, "run_plan", meet_another)
    embed(folder, store)
    assert [result["committed"] for result in results] == [True, True]
    assert versions(str(store)) == [1, 2]
    assert {row["uri"] for row in rows(store)} == visible(folder) | visible(PHOTOS / "roses")
    for uri in map(str, store.rglob("*.json")):
        assert json.loads(files.read_bytes(uri))["counts"]
    assert latest(str(store)).version == 2


@pytest.mark.slow
def test_a_run_ends_at_its_first_try_beside_commits_of_other_images(tmp_path, monkeypatch):
    folder, store = photos(tmp_path / "images", 1), tmp_path / "store"
    others = sorted(map(str, (PHOTOS / "tulips").iterdir()))[1:4]
    embed(others[0], store)
    plans, run_plan = [], embed_run.run_plan

    def meet_another(plan, **named):
        plans.append(plan)
        monkeypatch.undo()
        embed(others[len(plans)], store)
        monkeypatch.setattr(embed_run, "run_plan", meet_another)
        run_plan(plan, **named)

    monkeypatch.setattr(embed_run, "run_plan", meet_another)
    summary = embed(folder, store)
    assert len(plans) == 1
    assert (summary.embedded, summary.rows) == (5, 5)
    assert {row["uri"] for row in rows(store)} == visible(folder) | set(others[:2])
    network = resolve("efficientnet-lite0")
    monkeypatch.undo()
    fresh = embed_images([str(folder), *others[:2]], str(tmp_path / "fresh"), network, warn=print)
    assert summary.dataset_hash == fresh.dataset_hash


class Commits(threading.Thread):
    """Commits an image of another root, one at a time, until it is stopped."""

    def __init__(self, store, every):
        super().__init__()
        self.store, self.every, self.number = store, every, 0
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.wait(self.every):
            self.number += 1
            add(self.store, "small", embeddings([1_000_000 + self.number], 6))


@pytest.mark.slow
def test_fifteen_thousand_rows_beside_commits_of_one_image(tmp_path):
    store, planned = str(tmp_path / "store"), []
    add(store, "small", embeddings([999_999], 6))
    (key,) = latest(store).sections
    section = replace(latest(store).sections[key], parts=())
    kind = StoreRows(section.fingerprint, "small")
    table = embed_run.TableRun(store, key, section, kind, Rules())
    wanted = {b.image.uri: b for b in embeddings(range(15_000), 6)}

    def carry_out(plan):
        planned.append(plan)
        parts = []
        for unit in plan.compute + plan.doubtful:
            found = (wanted[image.uri] for image in images_of(read_unit(unit)))
            parts.append(write_part(plan.place, kind, kind.table(list(found))))
        others = commits.number
        while commits.number < others + 2:
            time.sleep(0.01)
        finish(plan, [Outcome((part,)) for part in parts])

    commits = Commits(store, 0.2)
    commits.start()
    try:
        table.bring_up_to_date(
            lambda ledger: ledger.list_found(b.image for b in wanted.values()), carry_out
        )
    finally:
        commits.stopped.set()
        commits.join()
    assert len(planned) == 1
    assert len(rows(store)) == 15_000 + 1 + commits.number


@pytest.mark.parametrize(
    ("message", "telling"),
    [
        ("KeyError: 'x'", "KeyError: 'x'"),
        ("it is so\nand so", "it is so"),
        ("", ""),
        (
            "java.lang.RuntimeException: failed\n\tat org.apache\nCaused by: java.net.Connect\n]",
            "Caused by: java.net.Connect",
        ),
        (
            "java.lang.IllegalStateException: a stopped SparkContext.\nThe stack:\n\n(None.)",
            "java.lang.IllegalStateException: a stopped SparkContext.",
        ),
        (
            "Caused by: java.lang.RuntimeException: from SDK harness: Traceback (most recent call "
            "last):\n  File x\nOSError: [Errno 28] No space left\n\n\tat org.apache.beam",
            "OSError: [Errno 28] No space left",
        ),
    ],
)
def test_the_line_of_a_runners_message_that_tells(message, telling):
    assert _telling([line for line in message.splitlines() if line.strip()]) == telling
