"""The default recipe against retrain.py's: `python benchmarks/head.py`, CPU seconds of one run.

10,000 vectors of 2048 numbers in 100 classes, made on the spot, non-negative as behind a ReLU. Ours
reads them from a store (Parquet) and trains with L-BFGS. The other one is retrain.py's recipe with
its defaults, 4000 steps of 100 images and 100 for validation at every tenth, in our NumPy code,
and what it spent on reading: a text file an image, parsed each time it was drawn; that is measured
on the first 2,000 files and multiplied.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from beam_flowers.head.lbfgs import train_lbfgs
from beam_flowers.head.metrics import evaluate
from beam_flowers.head.retrain import RetrainOptions, train_retrain
from beam_flowers.head.softmax import Sample
from beam_flowers.records import Embedding, Image
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.features import read_features
from beam_flowers.store.parts import write_part

ROWS, LENGTH, CLASSES, HELD_OUT, FILES = 10_000, 2048, 100, 2_000, 2_000


def made_up(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Vectors float32 [ROWS + HELD_OUT, LENGTH] and their classes."""
    centres = random.standard_normal((CLASSES, LENGTH), np.float32)
    classes = np.arange(ROWS + HELD_OUT) % CLASSES
    noise = random.standard_normal((len(classes), LENGTH), np.float32)
    return np.maximum(0.12 * centres[classes] + noise, 0) * np.float32(0.5), classes


def write_store(root: str, vectors: np.ndarray) -> None:
    """Writes all rows in parts of 1,000."""
    place, kind = store_place(root, "made-up", "f" * 64)
    parts = []
    for start in range(0, len(vectors), 1000):
        rows = [
            Embedding(Image(f"/{row:06}", "/", f"{row:06}"), f"{row:064x}", 9, 9, "JPEG", vector)
            for row, vector in enumerate(vectors[start : start + 1000], start)
        ]
        parts.append(write_part(place, kind, kind.table(rows)))
    append_parts(place, kind, {}, parts)


def seconds_a_file(folder: Path, vectors: np.ndarray) -> float:
    """CPU seconds that reading one image's text file takes, as `get_or_create_embedding` did."""
    for row, vector in enumerate(vectors[:FILES]):
        (folder / f"{row}.txt").write_text(",".join(str(x) for x in vector))
    began = time.process_time()
    for row in range(FILES):
        with open(folder / f"{row}.txt") as file:
            values = [float(x) for x in file.read().split(",")]
    assert len(values) == LENGTH
    return (time.process_time() - began) / FILES


def main() -> int:
    """Prints the comparison as Markdown."""
    vectors, classes = made_up(np.random.default_rng(0))
    held_out = Sample(vectors[ROWS:], classes[ROWS:])
    with tempfile.TemporaryDirectory() as folder:
        root = str(Path(folder, "store"))
        write_store(root, vectors[:ROWS])
        began = time.process_time()
        _, features = read_features(root)
        ours = train_lbfgs(Sample(features.vectors, classes[:ROWS]), CLASSES)
        our_seconds = time.process_time() - began
        each = seconds_a_file(Path(folder), vectors)
    options = RetrainOptions()
    reports = options.how_many_training_steps // options.eval_step_interval + 1
    drawn = options.how_many_training_steps * options.train_batch_size
    drawn += reports * options.validation_batch_size
    began = time.process_time()
    theirs = train_retrain(Sample(vectors[:ROWS], classes[:ROWS]), CLASSES, options)
    steps = time.process_time() - began
    reads = drawn * each
    rows = {
        "lbfgs, from the store": (our_seconds, ours),
        f"retrain, {steps:.0f} s of steps and {drawn:,} reads": (steps + reads, theirs),
    }
    found = {name: (seconds, evaluate(head, held_out)) for name, (seconds, head) in rows.items()}
    if "--json" in sys.argv:
        print(json.dumps([[name, s, e.cross_entropy] for name, (s, e) in found.items()]))
        return 0
    print("| recipe | CPU s | held-out cross entropy | held-out accuracy |\n|---|---|---|---|")
    for name, (seconds, at) in found.items():
        print(f"| {name} | {seconds:.1f} | {at.cross_entropy:.4f} | {at.accuracy:.2%} |")
    print(f"\n{(steps + reads) / our_seconds:.0f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
