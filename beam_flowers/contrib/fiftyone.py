"""A dataset for FiftyOne: its `FiftyOneImageClassificationDataset`, with pictures where they lie.

The format: https://docs.voxel51.com/user_guide/import_datasets.html. `labels.json` and
`data.json` are a dataset; `predictions.json` is a second `labels_path` for the same pictures.
FiftyOne reads pictures in the order of their keys, which is that of `vectors.npy`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from beam_flowers.store.vectors import Vectors

_ROWS = 4096

Predictions = Sequence[tuple[str, float] | None]


def write_fiftyone(
    folder: str,
    uris: Sequence[str],
    labels: Sequence[str | None],
    vectors: Vectors,
    predictions: Predictions | None = None,
) -> None:
    """Writes `data.json`, `labels.json`, `vectors.npy` and, where there are, `predictions.json`.

    Args:
        folder: is there.
        uris: [N], each once.
        labels: [N], None for a picture without.
        vectors: float32 [N, D].
        predictions: [N], label and score between 0 and 1.
    """
    keys = [hashlib.sha256(uri.encode()).hexdigest()[:24] for uri in uris]
    classes = sorted({label for label in labels if label is not None})
    numbers = {name: number for number, name in enumerate(classes)}
    targets = [None if label is None else numbers[label] for label in labels]
    _write(folder, "data", dict(zip(keys, uris, strict=True)))
    _write(folder, "labels", {"classes": classes, "labels": _by_key(keys, targets)})
    if predictions is not None:
        found = [p and {"label": p[0], "confidence": p[1]} for p in predictions]
        _write(folder, "predictions", {"labels": _by_key(keys, found)})
    order = sorted(range(len(keys)), key=keys.__getitem__)
    path, shape = os.path.join(folder, "vectors.npy"), (len(keys), vectors.shape[1])
    target = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for start in range(0, len(order), _ROWS):  # They may be more than fit into memory.
        target[start : start + _ROWS] = vectors[order[start : start + _ROWS]]
    target.flush()


def _by_key(keys: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(sorted(zip(keys, values, strict=True)))


def _write(folder: str, name: str, content: dict[str, Any]) -> None:
    with open(os.path.join(folder, f"{name}.json"), "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
