"""Daft: a class with the frozen network, one instance a core, over files as bytes.

After Daft's guide to batch inference. Tried and kept: decoding inside the class (its hash and size
columns need the bytes there anyway), batches of 8, one thread a network.
IMAGES NETWORK SIZE OUTPUT.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from common import THREADS, arguments, load_frozen, read

os.environ[THREADS] = "1"
BATCH = 8


def main() -> None:
    """Runs the pipeline."""
    import daft
    from daft import DataType, col

    names, network, size, output = arguments()
    cores = os.cpu_count() or 1
    fields = {name: DataType.string() for name in ("uri", "label", "sha256", "format")}
    fields |= {name: DataType.int64() for name in ("bytes", "width", "height")}
    fields["vector"] = DataType.list(DataType.float32())

    @daft.udf(
        return_dtype=DataType.struct(fields),
        batch_size=BATCH,
        concurrency=cores,
        num_cpus=1,
    )
    class Embed:
        def __init__(self) -> None:
            self._run = load_frozen(network)

        def __call__(self, uris: Any, contents: Any) -> list[dict[str, Any]]:
            found = [
                read(name, size, content)
                for name, content in zip(uris.to_pylist(), contents.to_pylist(), strict=True)
            ]
            vectors = self._run(np.stack([pixels for _, pixels in found]))
            return [
                {**row, "vector": vector} for (row, _), vector in zip(found, vectors, strict=True)
            ]

    rows = daft.from_pydict({"uri": names}).with_column("content", col("uri").url.download())
    embedded = rows.select(Embed(col("uri"), col("content")).alias("row"))
    embedded.select(*(col("row").struct.get(name).alias(name) for name in fields)).write_parquet(
        output
    )


if __name__ == "__main__":
    main()
