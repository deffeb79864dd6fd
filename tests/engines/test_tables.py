"""The same collection gives the same tables on every engine."""

import numpy as np
import pytest
from life import live, run


@pytest.mark.slow
def test_the_tables_are_those_of_a_run_in_one_process(flags, folder, expected, tmp_path):
    found = live(folder, tmp_path, flags)
    for ours, theirs in zip(found.store, expected.store, strict=True):
        assert_equal_rows(ours, theirs)
    assert found.rejects == expected.rejects
    assert found.dataset_hash == expected.dataset_hash
    for ours, theirs in zip(found.scores, expected.scores, strict=True):
        assert_equal_rows(ours, theirs)
    assert found.score_rejects == expected.score_rejects
    assert [_timeless(c) for c in found.counts] == [_timeless(c) for c in expected.counts]
    assert all(min(c["seconds"].values()) > 0 for c in found.counts)


def assert_equal_rows(ours, theirs):
    """Every column, vectors to the last bit."""
    assert [row["uri"] for row in ours] == [row["uri"] for row in theirs]
    assert _without_vectors(ours) == _without_vectors(theirs)
    for one, other in zip(ours, theirs, strict=True):
        difference = np.abs(np.subtract(one.get("vector", ()), other.get("vector", ())))
        assert difference.max(initial=0) < 1e-3, f"{one['uri']}: other pixels, or another network"
        assert not difference.any(), f"{one['uri']}: rounded otherwise, as by another kind of CPU"


def _without_vectors(rows):
    return [{k: v for k, v in row.items() if k != "vector"} for row in rows]


def _timeless(counts):
    return {k: v for k, v in counts.items() if k != "seconds"}


def test_one_process_gives_what_the_collection_holds(expected, folder):
    before, after = expected.store
    assert (len(before), len(after)) == (25 + 5, 25 + 6)
    name = str(folder / "{}").format
    assert expected.rejects[0] == {
        name("daisy/text.jpg"): "NotAnImage",
        name("daisy/truncated.jpg"): "Truncated",
        name("roses/empty.jpg"): "EmptyFile",
    }
    counts = expected.counts[0]
    assert counts["reasons"] == {"EmptyFile": 1, "NotAnImage": 1, "Truncated": 1}
    assert (counts["embedded"], counts["reused"], counts["rejected"]) == (29, 1, 3)


@pytest.mark.engines
def test_units_reach_all_worker_processes(folder, tmp_path, expected, capsys):
    two = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    run("check", folder, "--store", tmp_path / "store", *two)
    said = capsys.readouterr().out
    assert "2 processes," in said
    assert "writes STORE, reads IMAGES" in said
