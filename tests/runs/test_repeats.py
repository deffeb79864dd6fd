"""What runners may do twice: a bundle, the last step. The table is as if it were done once."""

import json

import pytest
from stores import PHOTOS, embed, photos, rows, visible

from beam_flowers import files
from beam_flowers.cli.main import _telling
from beam_flowers.images.recipe import Limits
from beam_flowers.store.commits import latest, versions
from beam_flowers.store.plan import finish
from beam_flowers.transforms import dofns
from beam_flowers.transforms.preflight import expected_setup
from beam_flowers.workflows import embed as embed_run


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
