"""Runs that die at any step, or meet another: nothing is lost, torn or double."""

import shutil

import make_images
import pytest
from stores import dies_after, embed, rows, visible, with_changes

from beam_flowers.store.features import read_features


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """(images, store of what they were, their names then): one of each kind of change since."""
    base = tmp_path_factory.mktemp("crash")
    folder = with_changes(base)
    before = {row["uri"] for row in rows(base / "store")}
    return folder, base / "store", before


@pytest.fixture(scope="module")
def expected(changed, tmp_path_factory):
    return embed(changed[0], tmp_path_factory.mktemp("scratch") / "store")


@pytest.mark.slow
@pytest.mark.parametrize("after", [*range(16), 18, 20, 22, 24, 28, 32, 36, 40])
def test_a_run_killed_at_any_step_leaves_a_version_to_read(
    changed, expected, tmp_path, monkeypatch, after
):
    folder, original, before = changed
    store = tmp_path / "store"
    shutil.copytree(original, store)
    now = visible(folder) - {str(folder / "bad.jpg")}
    with monkeypatch.context() as patch:
        refused = dies_after(patch, after)
        try:
            assert embed(folder, store).dataset_hash == expected.dataset_hash
        except Exception:
            assert refused
    assert set(read_features(str(store))[1].uris) in (before, now)
    summary = embed(folder, store)
    assert summary.dataset_hash == expected.dataset_hash
    assert {row["uri"] for row in rows(store)} == now
    assert summary.total == 7


def test_the_last_of_these_steps_is_after_the_end(changed, tmp_path, monkeypatch):
    shutil.copytree(changed[1], tmp_path / "store")
    refused = dies_after(monkeypatch, 40)
    embed(changed[0], tmp_path / "store")
    assert not refused


def test_a_retried_last_step_commits_once(changed, expected, tmp_path, monkeypatch):
    from beam_flowers.store.commits import latest
    from beam_flowers.transforms import plan

    def finish_twice(plan, outcomes, finish=plan.finish):
        outcomes = list(outcomes)
        finish(plan, outcomes)
        return finish(plan, outcomes)

    monkeypatch.setattr(plan, "finish", finish_twice)
    shutil.copytree(changed[1], tmp_path / "store")
    summary = embed(changed[0], tmp_path / "store")
    assert summary == expected.__class__(**{**vars(summary), "dataset_hash": expected.dataset_hash})
    assert (summary.embedded, summary.reused, summary.rejected) == (2, 4, 1)
    assert latest(str(tmp_path / "store")).version == 2


@pytest.mark.slow
def test_a_part_replaced_under_the_hands_of_a_run_is_no_end(work, monkeypatch):
    from beam_flowers.workflows import embed as embed_run

    run_plan, met = embed_run.run_plan, []

    def meet_another(plan, **named):
        if not met:
            met.append(True)
            (work / "images" / "roses").rename(work / "images" / "Rosa")
            embed(work / "images", work / "store")
        return run_plan(plan, **named)

    (work / "images" / "daisy" / "new.jpg").write_bytes(make_images.jpeg())
    (work / "images" / "tulips").rename(work / "images" / "Tulipa")
    monkeypatch.setattr(embed_run, "run_plan", meet_another)
    summary = embed(work / "images", work / "store")
    assert summary.rows == summary.total == 11
    assert {row["uri"] for row in rows(work / "store")} == visible(work / "images")
