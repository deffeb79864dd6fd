"""Keras' `predict` in a loop: 32 images at a time, as its documentation has it, or one, as
retrain.py and label_image did. IMAGES NETWORK SIZE OUTPUT BATCH."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from common import arguments, batches, read, tensorflow, write_table


def rows(names: list[str], network: str, size: int, batch: int) -> Iterator[dict[str, Any]]:
    """Each image's columns with its vector."""
    tensorflow()
    import keras

    model = keras.models.load_model(f"{network}/network.keras")
    for some in batches(names, batch):
        found = [read(name, size) for name in some]
        vectors = model.predict(np.stack([pixels for _, pixels in found]), verbose=0)
        for (row, _), vector in zip(found, vectors, strict=True):
            yield {**row, "vector": vector}


if __name__ == "__main__":
    size_of_batch = int(sys.argv.pop())
    names, network, size, output = arguments()
    write_table(rows(names, network, size, size_of_batch), output)
