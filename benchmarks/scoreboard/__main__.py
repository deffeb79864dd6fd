"""Runs the scoreboard: `python -m benchmarks.scoreboard [--rows P1,P2] [--rounds 3]`.

Makes images, networks and the peers' environments in WORK, runs every side once to warm up and
then all cases ROUNDS times in turn, and writes benchmarks/RESULTS.md. What was run is kept in
WORK/runs.json: a call that was broken off goes on where it was. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.scoreboard import machine, make_images, networks
from benchmarks.scoreboard.cases import Case, Lab
from benchmarks.scoreboard.processes import Run, run
from benchmarks.scoreboard.results import Record, page
from benchmarks.scoreboard.rows import ROWS

WARMED = ("steady", "large", "stored")
"""Groups whose sides read images, networks or stores that the system then keeps in memory."""

RESULTS = Path(__file__).parent.parent / "RESULTS.md"


def measure(case: Case, work: Path) -> Run:
    """One run, and what it wrote away again."""
    folder = Path(tempfile.mkdtemp(dir=work))
    out = str(folder / "out")
    try:
        if case.prepare:
            machine.call([word.replace("{out}", out) for word in case.prepare])
        command = [word.replace("{out}", out) for word in case.command]
        return run(command)
    finally:
        shutil.rmtree(folder)


def measure_all(cases: list[Case], record: Record, rounds: int, work: Path) -> None:
    """A warm-up of each side in each group, then the rounds, all cases in turn in each."""
    warm = {key.rpartition("/")[0] for key in record.runs}
    for number in range(rounds):
        for case in cases:
            side = case.key.rpartition("/")[0]
            if len(record.runs.get(case.key, ())) > (0 if case.once else number):
                continue
            if side not in warm and side.partition("/")[0] in WARMED:
                measure(case, work)
            warm.add(side)
            taken = measure(case, work)
            record.add(case.key, taken)
            print(
                f"round {number + 1}, {case.key}: {taken.wall:.1f} s, {taken.cpu:.1f} CPU s, "
                f"{taken.memory:,.0f} MB",
                flush=True,
            )


def main() -> int:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS), help="comma-separated; default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "scoreboard"))
    parser.add_argument(
        "--images",
        type=Path,
        default=make_images.BUNDLED,
        help="labelled photographs for accuracy and bytes a row; default: those of the package",
    )
    given = parser.parse_args()
    wanted = frozenset(given.rows.split(","))
    if unknown := wanted - set(ROWS):
        parser.error(f"no such rows: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    given.work.mkdir(parents=True, exist_ok=True)
    lab = Lab(given.work.resolve(), wanted, given.images)
    record = Record(lab.work / "runs.json", {**machine.describe(), "commit": machine.commit()})
    measure_all(lab.cases(), record, given.rounds, lab.work)
    gflop = networks.about(lab.network("inception"))["gflop"]
    command = shlex.join(["python", "-m", "benchmarks.scoreboard", *sys.argv[1:]])
    RESULTS.write_text(page(record, gflop, command))
    print(RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
