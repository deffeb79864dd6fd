"""Bounds the memory of images that are decoded at the same time."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from beam_flowers.errors import ImageError

_WHOLE = 1 << 40
"""Bytes above any machine's memory, and below the value of cgroup v1 for no limit."""

_SPARE = 2**26
"""Bytes for stacks of threads, mostly untouched, and for memory that does not grow with pixels."""


class Gate:
    """Lets threads decode images side by side within a common budget of memory.

    Attributes:
        limit: bytes that the process may use at most.
        budget: bytes for all images that are decoded at a time, a quarter of the limit. An image
            that needs more waits until it is the only one.
        most: bytes for that one, half of the limit.
        free: bytes that a decoder process may take for an image without asking.

    Args:
        limit: bytes that the process may use at most.
        processes: number of decoder processes that ask this one. They get half of the budget in
            equal shares, so that small images, nearly all, need no request.
    """

    def __init__(self, limit: int, processes: int = 0) -> None:
        self.limit, self.most = limit, limit // 2
        self.free = limit // 8 // processes if processes else 0
        self.budget = limit // 4 - self.free * processes
        self._used = 0
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, needed: int, what: str) -> Iterator[None]:
        """Takes `needed` bytes of the budget, and waits for them if need be.

        A thread that holds bytes must not ask for more: two such threads could block each other.

        Raises:
            ImageError: `TooMuchMemory` if `what` needs more than `most`.
        """
        _require_possible(needed, what, self.limit)
        # The waiting thread keeps the turn, so that small images cannot overtake it for ever.
        with self._turn, self._changed:
            while self._used and self._used + needed > self.budget:
                self._changed.wait()
            self._used += needed
        try:
            yield
        finally:
            with self._changed:
                self._used -= needed
                self._changed.notify_all()

    def bounded(self, needed: int, what: str) -> contextlib.AbstractContextManager[None]:
        """Does nothing: the bound would also apply to other threads of this process."""
        return contextlib.nullcontext()


class AskingGate:
    """Asks the parent process for the memory of large images, which it shares among decoders.

    Args:
        limit: bytes that all decoder processes may use at most.
        free: bytes that an image may take without asking.
        ask: returns once that many bytes are granted. The next answer gives them back.
    """

    def __init__(self, limit: int, free: int, ask: Callable[[int], None]) -> None:
        self._limit, self._free, self._ask = limit, free, ask

    @contextlib.contextmanager
    def hold(self, needed: int, what: str) -> Iterator[None]:
        """Takes `needed` bytes; see `Gate.hold`."""
        _require_possible(needed, what, self._limit)
        if needed > self._free:
            self._ask(needed)
        yield

    @contextlib.contextmanager
    def bounded(self, needed: int, what: str) -> Iterator[None]:
        """Limits this process to little more memory than `needed`, on Linux only.

        Raises:
            ImageError: `TooMuchMemory`. C libraries may also report damage, or abort.
        """
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[5])
        except (OSError, IndexError):
            yield
            return
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        most = pages * os.sysconf("SC_PAGE_SIZE") + needed + needed // 4 + _SPARE
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
        try:
            yield
        except MemoryError as error:
            raise ImageError(
                "TooMuchMemory",
                f"{what} takes more memory to decode than its header lets expect: save it anew "
                "with another program",
            ) from error
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _require_possible(needed: int, what: str, limit: int) -> None:
    if needed > limit // 2:
        raise ImageError(
            "TooMuchMemory",
            f"{what} takes about {needed / 2**20:,.0f} MiB to decode, above half of this "
            f"process' limit of {limit / 2**20:,.0f} MiB: scale it down, or give the "
            "process more memory and use --retry-rejects",
        )


_own: list[AskingGate] = []


def gate() -> Gate | AskingGate:
    """Returns the gate of this process."""
    return _own[0] if _own else _local_gate()


@functools.lru_cache(maxsize=1)
def _local_gate() -> Gate:
    return Gate(memory_limit())


def set_gate(asking: AskingGate) -> None:
    """Makes this process ask its parent for memory."""
    _own[:] = [asking]


def memory_limit(root: str = "/") -> int:
    """Returns the bytes that this process may use: its cgroup's limit, or the machine's memory.

    Args:
        root: folder of `proc` and `sys`, for tests.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    cgroups = Path(root, "sys/fs/cgroup")
    try:
        lines = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:  # The system is not Linux.
        lines = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers in ("", "memory"):
            folder = cgroups if not controllers else cgroups / "memory"
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            # In a container the path may be that of the host, which does not exist.
            inner = folder / path.strip("/")
            for level in (inner, *inner.parents):
                limits += _number(level / name)
                if level == folder:
                    break
    return min(limit for limit in limits if 0 < limit < _WHOLE)


def _number(path: Path) -> list[int]:
    """Reads the number in a file; empty if the file is missing or holds another text, as `max`."""
    try:
        return [int(path.read_text())]
    except (OSError, ValueError):
        return []
