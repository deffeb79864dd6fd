"""The start-up of each command: `python benchmarks/startup.py [IMAGES]`.

Runs `--help` and the smallest real run of each, whole processes, on a few of the photographs that
ship with the package; with IMAGES (a tree of labelled folders) also an `embed` that has nothing to
do. Prints a Markdown table. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import beam_flowers
from beam_flowers.cli.parser import COMMANDS

FLOWERS = Path(beam_flowers.__file__).parent / "data" / "flowers"
A_LABEL = 12
HEAVY = ("apache_beam", "numpy", "openvino", "pyarrow", "scipy", "tensorflow")

# The console's entry point, which at the end names the heavy modules that it has loaded.
COMMAND = f"""
import atexit, os, sys
from pathlib import Path
from beam_flowers.cli.main import entry
loaded = Path(sys.argv.pop(1))
atexit.register(lambda: loaded.write_text(" ".join(n for n in {HEAVY} if n in sys.modules)))
sys.exit(entry())
"""

# In the order in which each has what it needs.
RUNS = {
    "doctor": ["photos"],
    "embed": ["photos", "--store", "store"],
    "embed, nothing new": ["photos", "--store", "store"],
    "train": ["store", "--model", "model"],
    "evaluate": ["store", "--model", "model"],
    "score": ["photos/roses", "--model", "model", "--output", "labels.csv"],
    "score, from the store": ["store", "--model", "model", "--output", "all.parquet"],
    "classify": ["one.jpg", "--model", "model"],
    "report": ["model", "--store", "store"],
    "review": ["all.parquet"],
    "export": ["model", "--to", "labels", "--output", "labels.txt"],
    "check": ["photos", "--store", "store"],
    "backbones": [],
    "vacuum": ["store"],
    "forget": ["store", "photos", "--dry-run"],
    "fsck": ["store"],
    "history": ["store"],
    "restore": ["store", "1"],
    "import-bottlenecks": ["texts", "--images", "photos", "--store", "old"],
    "init": [],
    "completion": ["bash"],
    "demo": [],
}


class Cost(NamedTuple):
    """What a process took, and the heavy modules that it loaded."""

    wall: float
    cpu: float
    loaded: str


def run(arguments: Sequence[str], folder: Path, serves: bool = False) -> Cost:
    """Runs `beam-flowers` with `arguments` in `folder`; one that `serves` until its first line."""
    loaded, log = folder / "loaded.txt", folder / "said.txt"
    command = [sys.executable, "-c", COMMAND, str(loaded), *arguments]
    start = time.monotonic()
    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=said)
    with process.stdout as lines:
        if serves:
            lines.readline()
            process.send_signal(signal.SIGINT)
        lines.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall, code = time.monotonic() - start, os.waitstatus_to_exitcode(status)
    if code and not serves:
        raise SystemExit(f"{arguments}: exit code {code}: {log.read_text()}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, loaded.read_text())


def prepare(folder: Path) -> None:
    """Photographs, and vectors as retrain.py kept them."""
    for label in sorted((FLOWERS / "labelled").iterdir()):
        (folder / "photos" / label.name).mkdir(parents=True)
        (folder / "texts" / label.name).mkdir(parents=True)
        for photo in sorted(label.iterdir())[:A_LABEL]:
            shutil.copy2(photo, folder / "photos" / label.name)
            text = folder / "texts" / label.name / f"{photo.name}_inception_v3.txt"
            text.write_text(",".join(["0.5"] * 2048))
    shutil.copy2(photo, folder / "one.jpg")


def row(name: str, cost: Cost) -> None:
    """Prints a line of the table."""
    print(f"| {name} | {cost.wall:.2f} | {cost.cpu:.2f} | {cost.loaded} |", flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="?", help="a tree of labelled folders")
    images = parser.parse_args().images
    missing = set(COMMANDS) - {name.partition(",")[0] for name in RUNS}
    if missing:
        raise SystemExit(f"no smallest run of {missing}: add it to RUNS")
    print("| command | wall s | CPU s | loads |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        prepare(folder)
        row("`--help`", run(["--help"], folder))
        for name in COMMANDS:
            row(f"`{name} --help`", run([name, "--help"], folder))
        for name, arguments in RUNS.items():
            command = name.partition(",")[0]
            row(f"`{name}`", run([command, *arguments], folder, serves=command == "review"))
        if images:
            large = ["embed", os.path.abspath(images), "--store", "large"]
            run(large, folder)
            row("`embed` of IMAGES, nothing new", run(large, folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
