"""Lets only so much memory be taken by pictures that are decoded at a time."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from beam_flowers.errors import PictureError

_WHOLE = 1 << 40
"""More than any machine has, less than the value of cgroup v1 for no limit."""


_SPARE = 2**26
"""For stacks of threads, of which most is never touched, and what does not grow with pixels."""


class Gate:
    """Lets pictures be decoded side by side as long as they stay within a budget together.

    Attributes:
        limit: bytes that the process may use at most.
        budget: a quarter of them, for all pictures that are decoded at a time. A picture that
            needs more waits until it is the only one.
        most: half of them, for that one.
        free: bytes of a picture that a decoder process takes without asking.

    Args:
        limit: see above.
        processes: number of decoder processes that ask this one. Half of the budget is theirs in
            equal shares, so that small pictures, which are nearly all, cost no question.
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
        """Takes that many bytes of the budget, waiting for them if need be.

        No thread that holds some may ask for more: two of them could wait for each other.

        Raises:
            PictureError: `TooMuchMemory`, `what` needs more than `most`.
        """
        _require_possible(needed, what, self.limit)
        # Who waits for room has the turn. So a large picture is not overtaken for ever.
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
        """Does nothing: other threads of this process would be held to the bound, too."""
        return contextlib.nullcontext()


class AskingGate:
    """Asks another process for the memory of large pictures, which it shares out among several.

    Args:
        limit: bytes that all of them may use at most.
        free: bytes of a picture that is decoded without a question.
        ask: returns once that many bytes are granted. They are given back with the next answer.
    """

    def __init__(self, limit: int, free: int, ask: Callable[[int], None]) -> None:
        self._limit, self._free, self._ask = limit, free, ask

    @contextlib.contextmanager
    def hold(self, needed: int, what: str) -> Iterator[None]:
        """Takes that many bytes; see `Gate.hold`."""
        _require_possible(needed, what, self._limit)
        if needed > self._free:
            self._ask(needed)
        yield

    @contextlib.contextmanager
    def bounded(self, needed: int, what: str) -> Iterator[None]:
        """Has the system refuse this process much more memory than that, where it is Linux.

        Raises:
            PictureError: `TooMuchMemory`. Libraries of C that are refused memory also report
                damage instead, or abort.
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
            raise PictureError(
                "TooMuchMemory",
                f"{what} takes more memory to decode than its header lets expect: save it anew "
                "with another program",
            ) from error
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _require_possible(needed: int, what: str, limit: int) -> None:
    if needed > limit // 2:
        raise PictureError(
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
    """Makes this process ask another one."""
    _own[:] = [asking]


def memory_limit(root: str = "/") -> int:
    """Returns the bytes that this process may use: its cgroup's limit, or the machine's memory.

    Args:
        root: where `proc` and `sys` lie.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    cgroups = Path(root, "sys/fs/cgroup")
    try:
        lines = Path(root, "proc/self/cgroup").read_text().splitlines()
    except OSError:  # No Linux.
        lines = []
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers in ("", "memory"):
            folder = cgroups if not controllers else cgroups / "memory"
            name = "memory.limit_in_bytes" if controllers else "memory.max"
            # In a container the path may be the host's, which is not there.
            inner = folder / path.strip("/")
            for place in (inner, *inner.parents):
                limits += _number(place / name)
                if place == folder:
                    break
    return min(limit for limit in limits if 0 < limit < _WHOLE)


def _number(path: Path) -> list[int]:
    """The number in a file, if it is there and has one; `max` is none."""
    try:
        return [int(path.read_text())]
    except (OSError, ValueError):
        return []
