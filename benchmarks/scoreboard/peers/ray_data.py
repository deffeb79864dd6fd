"""Ray Data: `map_batches` with a pool of actors that hold the frozen network, one a core.

After Ray's guide to batch inference. Tried and kept: reading, decoding and the network in one actor
(pixels between two operators cost more than they gained on two cores), batches of 8, one thread a
network. IMAGES NETWORK SIZE OUTPUT.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from common import THREADS, arguments, load_frozen, read

os.environ[THREADS] = "1"
BATCH = 8


class Embed:
    """An actor: file names → columns and vectors."""

    def __init__(self, network: str, size: int) -> None:
        self._run, self._size = load_frozen(network), size

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        found = [
            read(name, self._size, content)
            for name, content in zip(batch["path"], batch["bytes"], strict=True)
        ]
        columns: dict[str, Any] = {
            name: np.array([row[name] for row, _ in found]) for name in found[0][0]
        }
        columns["vector"] = self._run(np.stack([pixels for _, pixels in found]))
        return columns


def main() -> None:
    """Runs the pipeline."""
    import ray

    names, network, size, output = arguments()
    cores = os.cpu_count() or 1
    ray.init(
        num_cpus=2 * cores,  # Or the actors would leave no core to the tasks that read.
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {THREADS: "1", "PYTHONPATH": os.path.dirname(__file__)}},
    )
    (
        ray.data.read_binary_files(names, include_paths=True)
        .map_batches(
            Embed,
            fn_constructor_args=(network, size),
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=cores),
            num_cpus=1,
        )
        .write_parquet(output)
    )


if __name__ == "__main__":
    main()
