"""Plans an incremental run of N names against a store of N rows: `python benchmarks/planning.py`.

No image is read and no network runs: the store is made up, with vectors of one number, and the
listing comes from memory. Every fiftieth folder of a thousand has changed: a quarter of its
images was edited, a quarter moved, a quarter is gone, and 500 new ones came. Each step's
seconds, the memory of the process and the size of SQLite's temporary file are printed; the commit
is made, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from beam_flowers.records import Embedding, Image, Listed, RootListed
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.commits import Section, latest
from beam_flowers.store.ledger import Ledger, Rules
from beam_flowers.store.outcomes import Outcome
from beam_flowers.store.parts import Part, Place, write_part
from beam_flowers.store.plan import fill_ledger, finish, make_plan
from beam_flowers.store.schema import StoreRows

PART = 8192
STEPS: dict[str, tuple[float, float, float]] = {}
"""Seconds, CPU seconds and the peak of memory so far in MB, by step."""
ROOT = "/archive/images"
FINGERPRINT = hashlib.sha256(b"made up").hexdigest()
VECTOR = np.zeros(1, np.float32)


def image(number: int, edited: bool = False, folder: str = "scans") -> Image:
    """Name, size and date of a made-up file of an archive."""
    name = f"{folder}/{number // 1000:06}/IMG_{number:09}.jpg"
    size = 400_000 + number * 7919 % 600_000
    return Image(f"{ROOT}/{name}", ROOT, name, folder, None, size, 1_700_000_000 + edited)


def listing(rows: int) -> Iterator[Listed]:
    """What stands in the archive now."""
    for number in range(rows):
        changed = number // 1000 % 50 == 0
        if changed and number % 2:
            yield image(rows + number)
        if changed and number % 4 < 2:
            yield image(number, edited=number % 4 == 0, folder=("scans", "moved")[number % 4])
        elif not changed or number % 4 == 3:
            yield image(number)
    yield RootListed(ROOT, True)


def make_part(place: Place, kind: StoreRows, first: int, count: int) -> Part:
    """Writes the rows `first` to `first + count`."""
    rows = (
        Embedding(image(n), hashlib.sha256(b"%d" % n).hexdigest(), 640, 480, "JPEG", VECTOR)
        for n in range(first, first + count)
    )
    return write_part(place, kind, kind.table(list(rows)))


def make_store(store: str, rows: int) -> None:
    """Writes the store in one commit."""
    place, kind = store_place(store, "made-up", FINGERPRINT)
    starts = range(0, rows, PART)
    with ProcessPoolExecutor() as pool:
        made = [pool.submit(make_part, place, kind, s, min(PART, rows - s)) for s in starts]
        append_parts(place, kind, {}, [part.result() for part in made])


@contextmanager
def step(name: str) -> Iterator[None]:
    """Prints what a step took."""
    began, used = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - began, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    STEPS[name] = (wall, cpu, peak)
    print(f"| {name} | {wall:,.1f} | {cpu:,.1f} | {peak:,.0f} |", flush=True)


def spilled() -> float:
    """MB of this process' deleted files, as SQLite's temporary database is one."""
    sizes = [
        os.stat(f"/proc/self/fd/{descriptor}").st_size
        for descriptor in os.listdir("/proc/self/fd")
        if "etilqs" in _target(descriptor)
    ]
    return sum(sizes) / 2**20


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return ""


def plan(store: str, rows: int) -> None:
    """One incremental run up to the pipeline's start, and the commit that would end it."""
    place, kind = store_place(store, "made-up", FINGERPRINT)
    manifest = latest(store)
    section = Section(FINGERPRINT, manifest.sections[place.section].about)
    with closing(Ledger()) as ledger:
        with step("take the listing in"):
            ledger.list_found(listing(rows))
        with step("take the store's rows in"):
            fill_ledger(ledger, place, manifest)
        with step("join, and write the units of work"):
            planned = make_plan(ledger, place, manifest, kind, section, Rules())
        print(f"temporary file {spilled():,.0f} MB; {planned.counts}")
    units = (planned.compute, planned.doubtful, planned.rewrite)
    print("units to compute, to hash first, to rewrite:", *map(len, units))
    written = sum(f.stat().st_size for f in Path(place.run_file()).rglob("*")) / 2**20
    print(f"files of units: {written:,.0f} MB")
    with step("commit"):
        finish(planned, [Outcome(())])
    newest = max(Path(store, "__commits").iterdir())
    print(
        f"manifest: {newest.stat().st_size / 2**20:,.2f} MB for {len(planned.section.parts)} parts"
    )


def main() -> None:
    """Makes the store, plans, prints a table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", help="where the store is made (default: a temporary one)")
    parser.add_argument("--json", action="store_true", help="the steps once more, as JSON")
    arguments = parser.parse_args()
    folder = arguments.folder or tempfile.mkdtemp(prefix="beam-flowers-")
    store = f"{folder}/store"
    print(f"{arguments.rows:,} names, {arguments.rows:,} rows\n")
    print("| step | s | CPU s | peak MB |\n|---|---|---|---|")
    with step("(make the store)"):
        make_store(store, arguments.rows)
    plan(store, arguments.rows)
    if arguments.json:
        print(json.dumps(STEPS))
    if not arguments.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
