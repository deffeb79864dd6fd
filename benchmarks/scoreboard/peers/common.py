"""What every peer's pipeline needs: one image's row, the frozen network, the table.

Runs in the peers' own environments: nothing of beam_flowers is imported here.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

THREADS = "SCOREBOARD_THREADS"
"""Environment variable: TensorFlow's threads in one process; all cores where it is not set."""


def arguments() -> tuple[list[str], str, int, str]:
    """IMAGES NETWORK SIZE OUTPUT of the command line: the images' names, the network, the side
    of its pixels, and where the table goes."""
    images, network, size, output = sys.argv[1:5]
    names = sorted(str(path) for path in Path(images).rglob("*.jpg"))
    return names, network, int(size), output


def read(name: str, size: int, content: bytes | None = None) -> tuple[dict[str, Any], np.ndarray]:
    """An image's columns and its pixels, uint8 [size, size, 3], by Pillow in full."""
    from PIL import Image

    content = Path(name).read_bytes() if content is None else content
    image = Image.open(io.BytesIO(content))
    row = {
        "uri": name,
        "label": Path(name).parent.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "width": image.width,
        "height": image.height,
        "format": image.format,
    }
    pixels = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return row, np.asarray(pixels)


def tensorflow() -> Any:
    """TensorFlow, with so many threads as `THREADS` says."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    if threads := int(os.environ.get(THREADS, "0")):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def load_frozen(network: str) -> Callable[[np.ndarray], np.ndarray]:
    """The frozen graph: uint8 [N, size, size, 3] → float32 [N, D]."""
    tf = tensorflow()
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(Path(network, "frozen.pb").read_bytes())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph, name=""), [])
    inputs, outputs = Path(network, "frozen.names").read_text().split()
    pruned = wrapped.prune(
        wrapped.graph.get_tensor_by_name(inputs), [wrapped.graph.get_tensor_by_name(outputs)]
    )
    return lambda pixels: pruned(tf.constant(pixels))[0].numpy()


def load_openvino(network: str, precision: str) -> Callable[[np.ndarray], np.ndarray]:
    """The same graph on OpenVINO: uint8 [N, size, size, 3] → float32 [N, D].

    `precision` is f32, bf16 or int8, which takes `int8/network.xml` beside the graph. One thread,
    for one process a core.
    """
    import openvino

    core = openvino.Core()
    own = Path(network, "int8/network.xml" if precision == "int8" else "frozen.pb")
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": "1",
    }
    compiled = core.compile_model(core.read_model(own), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda pixels: np.array(request.infer([pixels])[0])


def batches(names: list[str], count: int) -> Iterator[list[str]]:
    """The names, so many at a time."""
    for start in range(0, len(names), count):
        yield names[start : start + count]


def write_table(rows: Iterable[dict[str, Any]], output: str) -> None:
    """One Parquet file of all rows; says how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(rows))
    pq.write_table(table, output)
    print(f"{len(table)} rows", time.strftime("%H:%M:%S"))
