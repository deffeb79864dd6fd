"""One command as a whole process tree: seconds by the clock and of the cores, and memory."""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import psutil

_EVERY = 0.1


class Run(NamedTuple):
    """What one run took.

    Attributes:
        wall: seconds from the start of the process to its end.
        cpu: seconds of all cores, of the process and the children it has waited for.
        memory: MB, the greatest sum of the resident sets of the process tree, looked at ten
            times a second; what processes share counts in each of them.
        said: its standard output.
    """

    wall: float
    cpu: float
    memory: float
    said: str


def run(command: Sequence[str], timeout: float = 3600) -> Run:
    """Runs a command to its end.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        watch = _Watch(process.pid)
        said, errors = process.communicate(timeout=timeout)
        wall = time.perf_counter() - began
        peak = watch.stop()
    if process.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {process.returncode}:\n{errors[-3000:]}"
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(round(wall, 3), round(cpu, 3), round(peak / 2**20, 1), said)


class _Watch:
    """Looks at a process tree's memory on a thread of its own."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peak = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """The greatest sum seen, bytes."""
        self._stopped.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        while not self._stopped.wait(_EVERY):
            self._peak = max(self._peak, _resident(self._root))


def _resident(root: psutil.Process) -> int:
    try:
        return sum(_size(process) for process in [root, *root.children(recursive=True)])
    except psutil.NoSuchProcess:
        return 0


def _size(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
