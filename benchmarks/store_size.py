"""Bytes a row of a store against retrain.py's cache: `python benchmarks/store_size.py STORE`.

STORE holds vectors of float32. Its rows are encoded as `embed` writes them, in each form, with all
their columns; retrain.py's is the text file that it wrote for each image, the numbers alone.
The accuracy is that of 5-fold cross-validation in the same folds.
"""

import argparse
import json
import sys
from typing import Any

import numpy as np
import pyarrow as pa

from beam_flowers import files
from beam_flowers.head.examples import Examples
from beam_flowers.head.sweep import cross_validate
from beam_flowers.store.commits import Section
from beam_flowers.store.features import open_store, read_features
from beam_flowers.store.parts import Place, encode, read_part
from beam_flowers.store.schema import StoreRows, embeddings_of

FORMS = (("float32", "split"), ("float32", "plain"), ("float16", "split"), ("float16", "plain"))


def text_bytes(vectors: np.ndarray) -> float:
    """Mean bytes of a text file of `create_embedding_file` (tensorflow/hub's retrain.py)."""
    return float(np.mean([len(",".join(str(x) for x in vector)) for vector in vectors]))


def parquet_bytes(tables: list[pa.Table], name: str, vectors: str, encoding: str) -> float:
    """Mean bytes of a row, by the parts as they are cut."""
    kind = StoreRows("f" * 64, name, vectors, encoding)
    sizes = [len(encode(kind.table(embeddings_of(table)))) for table in tables]
    return sum(sizes) / sum(len(table) for table in tables)


def accuracy(root: str, key: str, numbers: str) -> float:
    """Mean held-out accuracy with the vectors rounded to `numbers`."""
    _, features = read_features(root, key.partition("=")[2])
    vectors = features.vectors.astype(numbers).astype(np.float32)
    rows = (features.uris, features.sha256, features.labels, features.splits)
    found = cross_validate(Examples(*rows, vectors), splits=("training", "validation", "testing"))
    return found.accuracy


def measure(root: str, key: str, section: Section) -> dict[str, Any]:
    """Bytes a row of each form, in the parts as they are cut and in one, and its accuracy."""
    place, name = Place(root, key, section.fingerprint), str(section.about["name"])
    tables = [read_part(place, part.name) for part in section.rows]
    vectors = np.concatenate([[b.vector for b in embeddings_of(table)] for table in tables])
    cuts = (tables, [pa.concat_tables(tables)])
    forms = {
        f"{numbers}, {encoding}": [
            *(parquet_bytes(cut, name, numbers, encoding) for cut in cuts),
            accuracy(root, key, numbers),
        ]
        for numbers, encoding in FORMS
    }
    about = {"backbone": name, "rows": len(vectors), "length": vectors.shape[1]}
    return {**about, "parts": len(tables), "text": text_bytes(vectors), "forms": forms}


def report(found: dict[str, Any]) -> None:
    """Prints one backbone's table."""
    text = found["text"]
    print(f"\n{found['backbone']}, {found['rows']} rows of {found['length']} numbers\n")
    parts = f"{found['parts']} parts"
    print(f"| form | bytes a row in {parts} | of the text | in one part | of the text | accuracy |")
    print("|---|---|---|---|---|---|")
    print(f"| retrain.py's text | {text:,.0f} | 1 | {text:,.0f} | 1 | |")
    for name, (cut, whole, share) in found["forms"].items():
        sizes = " | ".join(f"{size:,.0f} | 1/{text / size:.2f}" for size in (cut, whole))
        print(f"| {name} | {sizes} | {share:.2%} |", flush=True)


def main() -> int:
    """Prints the tables as Markdown, or what is in them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    root = files.absolute(arguments.store)
    for key, section in open_store(root).sections.items():
        found = measure(root, key, section)
        print(json.dumps(found)) if arguments.json else report(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
