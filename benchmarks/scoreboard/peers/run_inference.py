"""Beam's own RunInference with its TensorFlow handler, as its documentation has it, on the
in-process runner that we use too. IMAGES NETWORK SIZE OUTPUT."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.ml.inference.base import KeyedModelHandler, PredictionResult
from apache_beam.ml.inference.tensorflow_inference import TFModelHandlerNumpy
from common import arguments, read, tensorflow

COLUMNS = pa.schema(
    [
        ("uri", pa.string()),
        ("label", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("format", pa.string()),
        ("vector", pa.list_(pa.float32())),
    ]
)


def keyed(name: str, size: int) -> tuple[tuple[tuple[str, Any], ...], np.ndarray]:
    """An image's columns as the key, its pixels as float32, which the model takes."""
    row, pixels = read(name, size)
    return tuple(row.items()), pixels.astype(np.float32)


def as_row(found: tuple[tuple[tuple[str, Any], ...], PredictionResult]) -> dict[str, Any]:
    """The columns with the vector."""
    key, result = found
    return {**dict(key), "vector": np.asarray(result.inference).tolist()}


def main() -> None:
    """Runs the pipeline."""
    names, network, size, output = arguments()
    tensorflow()
    handler = KeyedModelHandler(TFModelHandlerNumpy(f"{network}/network.keras"))
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        _ = (
            pipeline
            | beam.Create(names)
            | beam.Map(keyed, size=size)
            | beam.ml.inference.base.RunInference(handler)
            | beam.Map(as_row)
            | beam.io.WriteToParquet(output, COLUMNS, num_shards=1)
        )


if __name__ == "__main__":
    main()
