"""Vectors made on the spot, as samples, as examples and as stores."""

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_flowers.contrib.augment.training import with_copies
from beam_flowers.head.examples import Examples
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.softmax import Sample
from beam_flowers.head.split import SplitOptions
from beam_flowers.records import Embedding, Image
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.parts import write_part
from beam_flowers.workflows.train import TrainOptions, train_model

LABELS = ("ant", "bee", "cat")
FINGERPRINT = "cd" * 32
SPLIT = SplitOptions(validation_percentage=20, testing_percentage=20)


def blobs(count=300, features=12, classes=3, spread=0.8, seed=0):
    """Vectors that scatter around one centre a class."""
    random = np.random.default_rng(seed)
    class_ids = np.arange(count) % classes
    centres = np.random.default_rng(99).standard_normal((classes, features))
    vectors = centres[class_ids] + spread * random.standard_normal((count, features))
    return Sample(vectors.astype(np.float32), class_ids.astype(np.intp))


def examples(count=300, labels=("bee", "ant", "cat"), **kwargs):
    sample = blobs(count, classes=len(labels), **kwargs)
    return Examples(
        uris=[f"/images/{i}.jpg" for i in range(count)],
        sha256=[hashlib.sha256(str(i).encode()).hexdigest() for i in range(count)],
        labels=[labels[c] for c in sample.class_ids],
        splits=[None] * count,
        vectors=sample.vectors,
    )


def digest(i):
    return hashlib.sha256(str(i).encode()).hexdigest()


def embeddings(rows, length, scale=1.0, spread=1.0):
    centres = np.random.default_rng(length).standard_normal((3, length))
    for i in rows:
        noise = np.random.default_rng([length, i]).standard_normal(length)
        vector = scale * (centres[i % 3] + spread * noise)
        image = Image(
            f"/r/{i}.jpg", "/r", f"{i}.jpg", LABELS[i % 3], None, 10, 1_700_000_000_000_000
        )
        yield Embedding(image, digest(i), 40, 30, "JPEG", vector.astype(np.float32))


def embedding(name, label="rose", seed=0):
    """A row of its own: the file `/r/<name>` and a vector of six."""
    image = Image(f"/r/{name}", "/r", name, label, None, 10, 1_700_000_000_000_000)
    vector = np.random.default_rng(seed).normal(size=6).astype(np.float32)
    return Embedding(image, f"{seed:064x}", 40, 30, "JPEG", vector)


def add(root, name, rows):
    fingerprint = hashlib.sha256(name.encode()).hexdigest()
    place, kind = store_place(str(root), name, fingerprint)
    part = write_part(place, kind, kind.table(list(rows)))
    append_parts(place, kind, {"pixels": {"width": len(name)}}, [part])


def make_store(folder):
    """A store of 120 images, with the vectors of a small and, for 118, of a large network."""
    add(folder / "store", "small", embeddings(range(120), 6, spread=1.6))
    add(folder / "store", "large", embeddings(range(2, 120), 9, scale=1000, spread=1.6))
    return str(folder / "store")


def train_run(store, backbone="small", recipe=None, augmented=False, **options):
    """Trains into the folder `model` beside the store."""
    model = str(Path(store).parent / "model")
    chosen = TrainOptions(**options)
    prepare = partial(with_copies, store) if augmented else None
    recipe = recipe or LbfgsOptions()
    return train_model(store, model, recipe, SPLIT, backbone, options=chosen, prepare=prepare)


def write_manifest(folder, kind, rows):
    path, table = folder / f"fix.{kind}", pa.table({k: [r[k] for r in rows] for k in rows[0]})
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        sign = "," if kind == "csv" else "\t"
        lines = [rows[0], *(row.values() for row in rows)]
        path.write_text("".join(sign.join(line) + "\n" for line in lines))
    return str(path)
