"""What runners may do twice: a bundle, the last step. The table is as if it were done once."""

import json
import threading
import time
from dataclasses import replace

import pytest
from stores import PHOTOS, embed, photos, rows, visible
from vectors import add, bottlenecks

from beam_flowers import files
from beam_flowers.backbones.resolve import resolve
from beam_flowers.cli.main import _telling
from beam_flowers.images.recipe import Limits
from beam_flowers.store.commits import latest, versions
from beam_flowers.store.ledger import Rules
from beam_flowers.store.parts import write_part
from beam_flowers.store.plan import Outcome, finish
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
    folder, store = photos(tmp_path / "pictures"), tmp_path / "store"

    def run_twice(plan, kind, backbones, *_):
        first, second = (outcomes(plan, kind, backbones) for _ in range(2))
        assert [o.parts for o in first] == [o.parts for o in second]
        finish(plan, [*first, *second])
        finish(plan, second)

    monkeypatch.setattr(embed_run, "run_plan", run_twice)
    summary = embed(folder, store, shards=3)
    assert (summary.embedded, summary.rows) == (10, 10)
    assert {row["uri"] for row in rows(store)} == visible(folder)
    assert len(list(store.glob("backbone=*/*.parquet"))) == 3
    assert versions(str(store)) == [1]


def test_a_last_step_that_is_repeated_after_another_writers_commit(tmp_path, monkeypatch):
    folder, store = photos(tmp_path / "pictures", 1), tmp_path / "store"
    results = []

    def meet_another(plan, kind, backbones, *_):
        monkeypatch.undo()
        made = outcomes(plan, kind, backbones)
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


def test_a_run_ends_at_its_first_try_beside_commits_of_other_images(tmp_path, monkeypatch):
    folder, store = photos(tmp_path / "pictures", 1), tmp_path / "store"
    others = sorted(map(str, (PHOTOS / "tulips").iterdir()))[1:4]
    embed(others[0], store)
    plans, run_plan = [], embed_run.run_plan

    def meet_another(plan, *arguments):
        plans.append(plan)
        monkeypatch.undo()
        embed(others[len(plans)], store)
        monkeypatch.setattr(embed_run, "run_plan", meet_another)
        run_plan(plan, *arguments)

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
            add(self.store, "small", bottlenecks([1_000_000 + self.number], 6))


def test_fifteen_thousand_rows_beside_commits_of_one_image(tmp_path):
    store, planned = str(tmp_path / "store"), []
    add(store, "small", bottlenecks([999_999], 6))
    (key,) = latest(store).sections
    section = replace(latest(store).sections[key], parts=())
    kind = StoreRows(section.fingerprint, "small")
    table = embed_run.TableRun(store, key, section, kind, Rules())
    wanted = {b.image.uri: b for b in bottlenecks(range(15_000), 6)}

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
