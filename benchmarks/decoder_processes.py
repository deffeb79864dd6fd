"""What decoding in processes of their own costs: here and apart, in turns.

python benchmarks/decoder_processes.py IMAGES [--rounds 5] [--backbone efficientnet-lite0]

For each round two fresh processes decode all images with as many threads as a run has, and then
embed them into a new store, from disk to Parquet; one decodes in its own process, the other in
decoder processes. CPU seconds are those of a process and of its decoders. Prints the medians and
the difference of each pair of neighbours, and checks that both stores are equal. Run it on a quiet
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beam_flowers.backbones import compute, decoders
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import resolve
from beam_flowers.images.decode import decode
from beam_flowers.images.find import find_images
from beam_flowers.images.formats import sniff
from beam_flowers.records import Image
from beam_flowers.store.commits import latest
from beam_flowers.workflows.embed import embed_images

WHERE = {"here": decode, "apart": decoders.decode_apart}
MEASURED = ("decode ms", "decode CPU ms", "embed ms", "embed CPU ms")


def measure(where: str, images: str, backbone_name: str) -> dict[str, Any]:
    """Measures in this process; milliseconds an image."""
    compute.decode_apart = WHERE[where]
    backbone = resolve(backbone_name)
    recipe = load(backbone).recipe
    found = [image for image in find_images([images]) if isinstance(image, Image)]
    contents = list(filter(sniff, (Path(image.uri).read_bytes() for image in found)))
    list(compute.pool().map(lambda data: WHERE[where](data, recipe), contents[:100]))
    decoding = timed(
        lambda: list(compute.pool().map(lambda data: WHERE[where](data, recipe), contents))
    )
    with tempfile.TemporaryDirectory() as store:
        embedding = timed(lambda: embed_images([images], store, backbone))
        digest = latest(store).sections.popitem()[1].dataset_hash
    costs = [1000 * seconds / len(contents) for seconds in (*decoding, *embedding)]
    return {"digest": digest, **dict(zip(MEASURED, costs, strict=True))}


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of CPU, those of living child processes included."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - wall, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """CPU time of this process and of its children."""
    import psutil

    own = psutil.Process()
    several = [process.cpu_times() for process in (own, *own.children())]
    return sum(times.user + times.system for times in several)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", help="a folder of sound images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--where", choices=WHERE, help="measure one of the two, in this process")
    options = parser.parse_args()
    if options.where:
        print(json.dumps(measure(options.where, options.images, options.backbone)))
        return 0
    found: dict[str, list[dict[str, Any]]] = {where: [] for where in WHERE}
    for number in range(options.rounds):
        # Each comes first as often as the other: what runs second may find a warmer machine.
        for where in list(WHERE)[:: 1 if number % 2 else -1]:
            command = [sys.executable, __file__, options.images, "--where", where]
            said = subprocess.check_output([*command, "--backbone", options.backbone], text=True)
            found[where].append(json.loads(said.splitlines()[-1]))
    if len({one["digest"] for several in found.values() for one in several}) > 1:
        raise SystemExit("the stores differ")
    print(f"{os.cpu_count()} cores, {options.rounds} rounds\n")
    print("| an image | here | apart | difference, each pair |\n|---|---|---|---|")
    for name in MEASURED:
        here, apart = ([one[name] for one in found[where]] for where in WHERE)
        pairs = [100 * (b / a - 1) for a, b in zip(here, apart, strict=True)]
        cells = [f"{statistics.median(values):.3f}" for values in (here, apart)]
        print(f"| {name} | {' | '.join(cells)} | {' '.join(f'{p:+.1f} %' for p in pairs)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
