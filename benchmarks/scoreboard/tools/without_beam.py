"""What `embed` does, by the same functions, without Beam: `IMAGES STORE FLAGS...`.

Lists, computes in the pool of threads, writes a unit while the next is computed, commits.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Iterator

from beam_flowers.backbones.compute import Pending, collect, start
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import resolve
from beam_flowers.images.find import find_images
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Embedding, Image
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.parts import Part, Place, write_part
from beam_flowers.store.plan import unit_rows
from beam_flowers.store.schema import StoreRows


def parts(images: list[Image], place: Place, kind: StoreRows, backbone: object) -> Iterator[Part]:
    """One part a unit."""
    engine, limits, rows = load(backbone), Limits(), unit_rows(len(images), None)
    waiting: list[Pending] = []
    for first in range(0, len(images), rows):
        waiting.append(start(images[first : first + rows], engine, limits))
        if len(waiting) > 1:
            yield write(place, kind, waiting.pop(0))
    for pending in waiting:
        yield write(place, kind, pending)


def write(place: Place, kind: StoreRows, pending: Pending) -> Part:
    """Waits for a unit and writes it."""
    results = [result for result in collect(pending) if isinstance(result, Embedding)]
    return write_part(place, kind, kind.table(results))


def main() -> None:
    """Makes a store."""
    parser = argparse.ArgumentParser()
    parser.add_argument("images")
    parser.add_argument("store")
    parser.add_argument("--backbone")
    parser.add_argument("--pixel-range")
    parser.add_argument("--engine", default="auto")
    given = parser.parse_args()
    gc.set_threshold(50_000)  # As `beam-flowers` does.
    pixel_range = tuple(map(float, given.pixel_range.split(","))) if given.pixel_range else None
    backbone = resolve(given.backbone, pixel_range=pixel_range, engine=given.engine)
    images = [found for found in find_images([given.images]) if isinstance(found, Image)]
    place, kind = store_place(given.store, backbone.row.name, backbone.fingerprint)
    made = list(parts(images, place, kind, backbone))
    print(append_parts(place, kind, {"engine": backbone.engine}, made), "rows")


if __name__ == "__main__":
    sys.exit(main())
