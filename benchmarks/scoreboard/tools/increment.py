"""One image in a hundred more: `IMAGES FOLDER`. Prints as JSON the vectors that were computed, by
the engine's own count, and whether the store is the one that a full run makes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from beam_flowers.backbones import compute
from beam_flowers.backbones.resolve import resolve
from beam_flowers.workflows.embed import embed_images

BACKBONE = resolve("efficientnet-lite0")


def embed(images: Path, store: Path) -> tuple[int, str]:
    """The images that went through the pool, and the hash of the store."""
    before = compute.pool().tally.files
    summary = embed_images([str(images)], str(store), BACKBONE)
    return compute.pool().tally.files - before, summary.dataset_hash


def main() -> None:
    """First all but one in 101, then all; then all into a new store."""
    images, folder = Path(sys.argv[1]), Path(sys.argv[2])
    pictures = sorted(images.rglob("*.jpg"))
    grown = folder / "grown"
    late = pictures[::101]
    for image in pictures:
        place = grown / image.relative_to(images)
        place.parent.mkdir(parents=True, exist_ok=True)
        if image not in late:
            os.link(image, place)
    first, _ = embed(grown, folder / "store")
    for image in late:
        os.link(image, grown / image.relative_to(images))
    second, in_two = embed(grown, folder / "store")
    _, at_once = embed(grown, folder / "full")
    calls = {"before": first, "added": len(late), "calls": second, "same": in_two == at_once}
    print(json.dumps(calls))


if __name__ == "__main__":
    main()
