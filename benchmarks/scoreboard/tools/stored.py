"""A store of N made-up rows and a model for it: `N STORE MODEL`.

Vectors float32 of 2048 numbers, as Inception v3 gives, in 100 classes, non-negative as behind a
ReLU; parts of 8,192 rows. The model is trained on the first part alone.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from beam_flowers.records import Embedding, Image
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.parts import Part, Place, write_part
from beam_flowers.store.schema import StoreRows

LENGTH, CLASSES, PART = 2048, 100, 8192
FINGERPRINT = hashlib.sha256(b"made up").hexdigest()


def make_part(first: int, rows: int, place: Place, kind: StoreRows) -> Part:
    """Writes the rows from `first` on."""
    centres = np.random.default_rng(0).standard_normal((CLASSES, LENGTH), np.float32)
    numbers = range(first, min(first + PART, rows))
    noise = np.random.default_rng(first + 1).standard_normal((len(numbers), LENGTH), np.float32)
    classes = [n % CLASSES for n in numbers]
    vectors = np.maximum(0.12 * centres[classes] + noise, 0).astype(np.float32) / 2
    made = []
    for n, vector in zip(numbers, vectors, strict=True):
        label = f"class {n % CLASSES:02}"
        name = f"{label}/{n:07}.jpg"
        image = Image(f"/images/{name}", "/images", name, label, None, 50_000 + n, 10**15 + n)
        sha256 = hashlib.sha256(b"%d" % n).hexdigest()
        made.append(Embedding(image, sha256, 500, 375, "JPEG", vector))
    return write_part(place, kind, kind.table(made))


def make_store(store: str, rows: int) -> None:
    """All rows in one commit."""
    place, kind = store_place(store, "made-up", FINGERPRINT)
    with ProcessPoolExecutor() as pool:
        make = partial(make_part, rows=rows, place=place, kind=kind)
        append_parts(place, kind, {}, list(pool.map(make, range(0, rows, PART))))


def main() -> None:
    """Makes both; the model only where none is."""
    rows, store, model = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    make_store(store, rows)
    if not Path(model).exists():
        ours = str(Path(sys.executable).with_name("beam-flowers"))
        command = [ours, "train", store, "--model", model]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
