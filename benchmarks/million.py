"""Train, evaluate and score a store of a million rows: `python benchmarks/million.py FOLDER`.

Makes FOLDER/store on the spot, if it is not there: float16 vectors of 1280 numbers that scatter
around one centre a class, with one label in a hundred wrong. Each command runs in a process of its
own; its memory is that of the whole process (VmHWM of Linux, mapped files included) above what it
was when the command was imported. Needs 5 GB of disk in FOLDER and 3 GB in TMPDIR.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from beam_flowers.records import Embedding, Image
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.parts import Part, Place, write_part
from beam_flowers.store.schema import StoreRows

LENGTH, CLASSES, PART = 1280, 10, 8192

# Runs in a fresh interpreter, with the command's words as arguments.
CHILD = """
import re, resource, sys, time
from pathlib import Path
from beam_flowers.cli.main import main
import beam_flowers.workflows.evaluate, beam_flowers.workflows.score, beam_flowers.workflows.train
import beam_flowers.transforms.plan, beam_flowers.transforms.runner

def memory(name):
    status = Path("/proc/self/status").read_text()
    return int(re.search(name + r":\\s+(\\d+) kB", status)[1]) / 1024

start, began = memory("VmRSS"), time.perf_counter()
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
print(f"| {sys.argv[1]} | {time.perf_counter() - began:,.0f} | {used.ru_utime + used.ru_stime:,.0f}"
      f" | {start:,.0f} | {memory('VmHWM') - start:,.0f} |", file=sys.stderr)
sys.exit(code)
"""


def make_part(place: Place, kind: StoreRows, first: int, count: int) -> Part:
    """Writes the rows `first` to `first + count`."""
    random = np.random.default_rng(first)
    centres = np.random.default_rng(2**40).standard_normal((CLASSES, LENGTH), np.float32)
    ids = random.integers(CLASSES, size=count)
    vectors = random.standard_normal((count, LENGTH), np.float32)
    vectors += np.float32(0.12) * centres[ids]
    wrong = random.random(count) < 0.01
    labels = np.where(wrong, (ids + 1) % CLASSES, ids)
    rows = []
    for row, vector, label in zip(range(first, first + count), vectors, labels, strict=True):
        name = f"class {label}/{row:07}.jpg"
        image = Image(f"/images/{name}", "/images", name, f"class {label}", None, 50_000, 0)
        digest = hashlib.sha256(str(row).encode()).hexdigest()
        rows.append(Embedding(image, digest, 500, 375, "JPEG", vector))
    return write_part(place, kind, kind.table(rows))


def make_store(store: str, rows: int) -> None:
    """Writes a whole store, several parts in one commit."""
    fingerprint = hashlib.sha256(b"made up").hexdigest()
    place, kind = store_place(store, "made-up", fingerprint, "float16")
    starts = range(0, rows, PART)
    parts = [make_part(place, kind, first, min(PART, rows - first)) for first in starts]
    append_parts(place, kind, {"pixels": {}, "vectors": "float16"}, parts)


def main() -> int:
    """Prints a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    arguments = parser.parse_args()
    store = str(arguments.folder / "store")
    if not Path(store).exists():
        began = time.perf_counter()
        make_store(store, arguments.rows)
        print(f"made the store in {time.perf_counter() - began:.0f} s", flush=True)
    models = [str(arguments.folder / name) for name in ("model", "again")]
    commands = [
        *(["train", store, "--model", model] for model in models),
        ["evaluate", store, "--model", models[0], "--output", str(arguments.folder / "report")],
        ["score", store, "--model", models[0], "--output", str(arguments.folder / "scores")],
    ]
    print("| command | s | CPU s | MB at the start | MB above |\n|---|---|---|---|---|", flush=True)
    for command in commands:
        done = subprocess.run([sys.executable, "-c", CHILD, *command], stdout=subprocess.DEVNULL)
        if done.returncode:
            return done.returncode
    same = [Path(model, "model.json").read_bytes() for model in models]
    print(f"two trainings gave {'the same' if same[0] == same[1] else 'DIFFERENT'} bytes")
    return 0 if same[0] == same[1] else 1


if __name__ == "__main__":
    sys.exit(main())
