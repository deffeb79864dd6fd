"""The arithmetic of the scoreboard; its runs are its own."""

import json
import sys

import pytest
from PIL import Image
from places import ROOT

sys.path.append(str(ROOT))

from benchmarks.scoreboard import make_images, rows
from benchmarks.scoreboard.cases import DAFT, INT8, OPENVINO, OURS, STEADY
from benchmarks.scoreboard.processes import Run, run
from benchmarks.scoreboard.results import Record, page

FEW, MANY = STEADY["inception"]


def steady(rate, start_up=5.0, memory=1000.0, rounds=3):
    """Runs of one side at both sizes, by their keys' ends."""
    return {
        count: [Run(start_up + count / rate, 0, memory, "") for _ in range(rounds)]
        for count in (FEW, MANY)
    }


def taken(**rates):
    """Runs of Inception v3 by side."""
    found = {}
    for name, (rate, memory) in rates.items():
        for count, own in steady(rate, memory=memory).items():
            found[f"steady/inception/{name}/{count}"] = own
    return found


def test_the_steady_rate_leaves_start_up_out():
    runs = rows.Runs(taken(side=(12.5, 1)))
    found = runs.rate("steady/inception", "side", STEADY["inception"])
    assert [found.value, *found.rounds] == pytest.approx([12.5] * 4)


def test_int8_is_held_against_our_precisions_and_daft_in_each():
    rates = {OPENVINO: 10, f"{OPENVINO}, bf16": 12, INT8: 27}
    rates |= dict(zip(DAFT, (9, 11, 28), strict=True))
    found = {}
    for network in STEADY:
        for name, rate in rates.items():
            for count in STEADY[network]:
                found[f"steady/{network}/{name}/{count}"] = [Run(5 + count / rate, 0, 1, "")]
    lines = [line for line in rows.p7c(rows.Runs(found)) if line.text.startswith("inception")]
    assert [round(line.value, 2) for line in lines] == [2.7, 2.25, 1.11, 1.09, 0.96]
    assert [line.verdict for line in lines] == [*["reached"] * 4, "**short**"]
    assert lines[-1].text == "inception: ours, OpenVINO, int8, steady, vs daft, OpenVINO, int8"


def test_one_disturbed_start_does_not_move_a_steady_rate():
    found = taken(side=(12.0, 1))
    found[f"steady/inception/side/{FEW}"][1] = Run(90.0, 0, 1, "")
    rate = rows.Runs(found).rate("steady/inception", "side", STEADY["inception"])
    assert rate.value == pytest.approx(12.0)
    assert rate.rounds[1] < 0


def test_a_row_is_a_ratio_of_medians_and_has_a_verdict():
    sides = dict.fromkeys(OURS, (20.0, 900))
    runs = rows.Runs(taken(**sides, **{"predict, one at a time": (8.0, 900)}))
    first, _ = rows.p1(runs)
    assert (first.value, first.verdict) == (pytest.approx(2.5), "reached")
    assert first.text.startswith("inception: ours, TensorFlow")
    slow = rows.Line("", rows.Measured.of([1, 2, 9]), must=2.5)
    assert (slow.value, slow.verdict) == (2, "**short**")
    assert rows.Line("", rows.Measured.of([1.2]), must=1.1, falling=True).verdict == "**short**"


def test_a_million_images_cost_the_hours_of_all_cores():
    (found,) = rows.prices(rows.Runs(taken(side=(10.0, 1))), cores=2)
    hours = 1e6 / 10 / 3600
    expected = pytest.approx(hours * 2 * rows.CORE_HOUR)
    assert found == ("inception", "side", pytest.approx(10), expected)


def test_memory_is_compared_at_the_larger_size():
    sides = dict.fromkeys(OURS, (20.0, 500))
    *_, memory = rows.p3(rows.Runs(taken(**sides, **{"stock RunInference": (8.0, 5000)})))
    assert (memory.value, memory.verdict) == (0.1, "reached")


def test_a_round_that_was_broken_off_is_left_out():
    found = taken(**dict.fromkeys(OURS, (20.0, 1)), **{"predict(32)": (10.0, 1)})
    found[f"steady/inception/predict(32)/{MANY}"].pop()
    assert len(next(rows.p2(rows.Runs(found))).measured.rounds) == 2


def test_the_page_says_what_was_not_run(tmp_path):
    about = {"processor": "a processor"}
    record = Record(tmp_path / "runs.json", about)
    for key, own in taken(**dict.fromkeys((*OURS, "predict(32)"), (20.0, 1))).items():
        for one in own:
            record.add(key, one)
    text = page(record, 11.4, "command")
    assert "| P2 | inception: ours, TensorFlow, steady, vs predict(32) | 1.00× **short** |" in text
    assert "- P9, what Beam costs: not run here" in text
    again = Record(tmp_path / "runs.json", about)
    assert again.runs == record.runs
    assert Record(tmp_path / "runs.json", {"processor": "another"}).runs == {}


def test_a_run_is_the_whole_process_tree():
    child = "import time; x = bytearray(80 << 20); time.sleep(1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print(1)"
    found = run([sys.executable, "-c", parent])
    assert found.wall > 1
    assert found.memory > 80
    assert found.said == "1\n"
    with pytest.raises(RuntimeError, match="no such thing"):
        run([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_made_images_differ_in_their_bytes(tmp_path):
    small = make_images.make_set(tmp_path / "small", 300, make_images.SMALL)
    made = [path.read_bytes() for path in small.rglob("*.jpg")]
    assert len(set(made)) == len(made) == 300
    with Image.open(next(small.rglob("*.jpg"))) as image:
        assert image.size == make_images.SMALL
    first = make_images.first(small, tmp_path / "first", 20)
    assert len(list(first.rglob("*.jpg"))) == 20


def test_what_measures_itself_prints_json_last():
    own = [Run(1, 1, 1, "text\n" + json.dumps([["ours", 2.0, 0.5], ["theirs", 300.0, 0.6]]))]
    (line,) = rows.p10(rows.Runs({"head/both/1": own}))
    assert line.value == 150
