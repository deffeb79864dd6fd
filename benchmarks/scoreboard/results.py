"""Runs as they were taken, kept as JSON, and the page made of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import median

from benchmarks.scoreboard.processes import Run
from benchmarks.scoreboard.rows import CORE_HOUR, ROWS, Line, Runs, prices


class Record:
    """The runs of one machine and one state of the code; survives an interruption.

    Attributes:
        runs: by the key of their case, in the order of the rounds.
    """

    def __init__(self, path: Path, about: dict[str, str]) -> None:
        self._path = path
        self.about, self.runs = about, {}
        if path.exists():
            held = json.loads(path.read_text())
            if held["about"]["processor"] == about["processor"]:
                self.about = held["about"]
                self.runs = {key: [Run(*run) for run in own] for key, own in held["runs"].items()}

    about: dict[str, str]
    runs: dict[str, list[Run]]

    def add(self, key: str, run: Run) -> None:
        """Takes one run in and writes all to disk."""
        self.runs.setdefault(key, []).append(run)
        self._path.write_text(json.dumps({"about": self.about, "runs": self.runs}, indent=1))


def page(record: Record, gflop: float, command: str) -> str:
    """The results as Markdown."""
    runs = Runs(record.runs)
    lines = ["# Scoreboard", "", f"The output of `{command}`; how to read it: README.md.", ""]
    lines += [f"- {name}: {value}" for name, value in record.about.items()]
    lines += ["", "| row | | value | each round | must | aim | |", "|---|---|---|---|---|---|---|"]
    limited = []
    for key, (text, row) in ROWS.items():
        try:
            found = list(row(runs, gflop) if key == "P8" else row(runs))
        except KeyError:
            limited.append(f"- {key}, {text}: not run here")
            continue
        lines += [_line(key, line) for line in found]
    lines += ["", *limited, *_priced(runs), "## Runs", "", *_raw(record.runs)]
    return "\n".join(lines) + "\n"


def _priced(runs: Runs) -> list[str]:
    cores = os.cpu_count() or 1
    text = (
        f"Steady rates of this machine's {cores} cores, and a million images at {CORE_HOUR} $ an "
        "hour and core, reading and storing not counted."
    )
    head = ["| network | side | images/s | $ a million |", "|---|---|---|---|"]
    rows = sorted(prices(runs, cores), key=lambda row: (row[0], row[-1]))
    body = [f"| {n} | {s} | {r:.1f} | {p:.2f} |" for n, s, r, p in rows]
    return ["", "## Price", "", text, "", *head, *body, ""]


def _line(key: str, line: Line) -> str:
    rounds = ", ".join(map(_number, line.measured.rounds))
    cells = [key, line.text, f"{_number(line.value)}{line.unit} {line.verdict}".strip(), rounds]
    cells += [_asked(line, line.must), _asked(line, line.aim), line.note]
    return f"| {' | '.join(cells)} |"


def _asked(line: Line, value: float | None) -> str:
    return "" if value is None else f"{'≤' if line.falling else '≥'} {_number(value)}{line.unit}"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def _raw(runs: dict[str, list[Run]]) -> list[str]:
    head = ["| case | wall s | median | CPU s | peak MB |", "|---|---|---|---|---|"]
    return head + [
        f"| {key} | {', '.join(f'{run.wall:.2f}' for run in own)} "
        f"| {median(run.wall for run in own):.2f} | {median(run.cpu for run in own):.1f} "
        f"| {median(run.memory for run in own):,.0f} |"
        for key, own in runs.items()
    ]
