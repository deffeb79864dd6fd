"""Spark 3.5: `predict_batch_udf` over files read as bytes, on `local[cores]`.

After Spark's documentation. Tried and kept: decoding inside the function, as pixels in a column of
their own cost more; batches of 8, one thread a network. IMAGES NETWORK SIZE OUTPUT.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import THREADS, arguments, load_frozen, read

BATCH = 8


def make_predict(network: str, size: int) -> Callable[[], Any]:
    """What Spark calls once a Python worker."""

    def make() -> Any:
        run = load_frozen(network)

        def predict(names: np.ndarray, contents: np.ndarray) -> list[dict[str, Any]]:
            found = [
                read(name, size, bytes(content))
                for name, content in zip(names, contents, strict=True)
            ]
            vectors = run(np.stack([pixels for _, pixels in found]))
            return [
                {**row, "vector": vector} for (row, _), vector in zip(found, vectors, strict=True)
            ]

        return predict

    return make


def main() -> None:
    """Runs the pipeline."""
    os.environ[THREADS] = "1"
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql import SparkSession
    from pyspark.sql.types import ArrayType, FloatType, LongType, StringType, StructType

    names, network, size, output = arguments()
    cores = os.cpu_count() or 1
    columns = StructType()
    for name in ("uri", "label", "sha256", "format"):
        columns.add(name, StringType())
    for name in ("bytes", "width", "height"):
        columns.add(name, LongType())
    columns.add("vector", ArrayType(FloatType()))
    session = (
        SparkSession.builder.master(f"local[{cores}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "4g")
        # Partitions small enough that both cores end at about the same time.
        .config("spark.sql.files.maxPartitionBytes", str(4 << 20))
        .config("spark.sql.files.openCostInBytes", str(64 << 10))
        .getOrCreate()
    )
    session.sparkContext.addPyFile(str(Path(__file__).with_name("common.py")))
    embed = predict_batch_udf(make_predict(network, size), return_type=columns, batch_size=BATCH)
    folder = str(Path(os.path.commonpath(names)))
    files = session.read.format("binaryFile").option("recursiveFileLookup", "true").load(folder)
    files.select(embed("path", "content").alias("row")).select("row.*").write.parquet(output)


if __name__ == "__main__":
    main()
