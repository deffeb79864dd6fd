"""Daft: a class with the frozen network, one instance a core, over files as bytes.

After Daft's guide to batch inference. Tried and kept: decoding inside the class (its hash and size
columns need the bytes there anyway), batches of 8, one thread a network.
IMAGES NETWORK SIZE OUTPUT [PRECISION]: on TensorFlow, or with f32, bf16 or int8 on OpenVINO.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from common import THREADS, arguments, load_frozen, load_openvino, read

os.environ[THREADS] = "1"
os.environ["PYTHONPATH"] = os.path.dirname(__file__)  # Its processes import `common`, too.
BATCH = 8


def main() -> None:
    """Runs the pipeline."""
    import daft
    from daft import DataType, col

    names, network, size, output = arguments()
    precision = "".join(sys.argv[5:])
    fields = {name: DataType.string() for name in ("uri", "label", "sha256", "format")}
    fields |= {name: DataType.int64() for name in ("bytes", "width", "height")}
    fields["vector"] = DataType.list(DataType.float32())

    @daft.cls(max_concurrency=os.cpu_count(), use_process=True)
    class Embed:
        def __init__(self, network: str, size: int, precision: str) -> None:
            load = load_openvino(network, precision) if precision else load_frozen(network)
            self._run, self._size = load, size

        @daft.method.batch(return_dtype=DataType.struct(fields), unnest=True, batch_size=BATCH)
        def __call__(self, uris: Any, contents: Any) -> list[dict[str, Any]]:
            found = [
                read(name, self._size, content)
                for name, content in zip(uris.to_pylist(), contents.to_pylist(), strict=True)
            ]
            vectors = self._run(np.stack([pixels for _, pixels in found]))
            return [
                {**row, "vector": vector} for (row, _), vector in zip(found, vectors, strict=True)
            ]

    rows = daft.from_pydict({"uri": names}).with_column("content", col("uri").download())
    rows.select(Embed(network, size, precision)(col("uri"), col("content"))).write_parquet(output)


if __name__ == "__main__":
    main()
