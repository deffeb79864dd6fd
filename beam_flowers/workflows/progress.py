"""Counts the progress of a run: by its own reports, and by the parts that workers have finished.

A runner that blocks, or whose workers are on other hosts, tells its driver nothing. So the driver
counts the parts of this run in the table. If the workers are this process, the count of its
threads comes sooner.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from beam_flowers import files
from beam_flowers.errors import BeamFlowersError
from beam_flowers.records import OnProgress
from beam_flowers.store.parts import Place, holds_rejects, open_part, work_parts
from beam_flowers.store.plan import Plan

if TYPE_CHECKING:
    from beam_flowers.backbones.compute import Tally

T = TypeVar("T")
_WINDOW = 60.0
_SETTLED = 2.0
_APART = 0.2
_LOCAL_PAUSE, _REMOTE_PAUSE = 0.5, 5.0
_BLOCK = 256


class Sample(NamedTuple):
    """Holds the number of files done at a time, in seconds of `time.monotonic`."""

    time: float
    done: int


@dataclass(frozen=True)
class ProgressState:
    """Holds the state of a run.

    Attributes:
        stage: `starting`, `listing`, `planning`, `computing`, `committing`, ...
        done: files done in this stage.
        total: of so many; None where nobody knows yet.
        rejects: files rejected so far.
        rate: files a second, of the last minute; None before there is one.
        seconds: since the stage began.
    """

    stage: str = "starting"
    done: int = 0
    total: int | None = None
    rejects: int = 0
    rate: float | None = None
    seconds: float = 0.0

    @property
    def remaining(self) -> float | None:
        """Seconds that the rest of the stage takes at this rate."""
        if self.total is None or not self.rate:
            return None
        return max(self.total - self.done, 0) / self.rate


def rate(samples: Sequence[Sample], now: float) -> float | None:
    """Files a second by what was seen, oldest first; None until there is something to tell.

    The first sample is the beginning, when networks are still loaded and no unit is finished: it
    counts as long as there is only one other.
    """
    if len(samples) < 2 or now - samples[1].time < _SETTLED:
        return None
    first = samples[1] if len(samples) > 2 else samples[0]
    return (samples[-1].done - first.done) / (now - first.time)


class Progress:
    """Collects the reports of a run; safe to ask from other threads.

    Attributes:
        seconds: that the finished stages took, by name.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.RLock()
        self._state = ProgressState()
        self._samples = deque([Sample(time.monotonic(), 0)])
        self._begun = time.monotonic()

    def begin(self, stage: str, total: int | None = None, rejects: int = 0) -> None:
        """Starts a stage and ends the one before."""
        with self._lock:
            now = time.monotonic()
            if self._state.stage != ProgressState.stage:
                self.seconds[self._state.stage] += now - self._begun
            self._begun = now
            self._state = ProgressState(stage, 0, total, rejects)
            self._samples = deque([Sample(now, 0)])

    def reach(self, done: int, rejects: int = 0) -> None:
        """Sets the number of files done in this stage; a smaller number changes nothing."""
        with self._lock:
            now, old = time.monotonic(), self._state
            done = max(done if old.total is None else min(done, old.total), old.done)
            self._state = ProgressState(old.stage, done, old.total, max(rejects, old.rejects))
            if done != old.done:
                self._add(Sample(now, done))

    def _add(self, sample: Sample) -> None:
        samples = self._samples
        if len(samples) > 2 and sample.time - samples[-2].time < _APART:
            samples.pop()
        samples.append(sample)
        while len(samples) > 3 and sample.time - samples[1].time > _WINDOW:
            samples.popleft()

    def state(self) -> ProgressState:
        """Returns the state of the run now."""
        with self._lock:
            now, at = time.monotonic(), self._state
            speed = rate(list(self._samples), now)
            return ProgressState(at.stage, at.done, at.total, at.rejects, speed, now - self._begun)

    def callback(self, stage: str) -> OnProgress:
        """Returns a callback (done, total) for this stage; a smaller `done` restarts it."""

        def tell(done: int, total: int) -> None:
            at = self.state()
            if at.stage != stage or at.total != total or done < at.done:
                self.begin(stage, total)
            self.reach(done)

        return tell

    def counted(self, found: Iterable[T]) -> Iterator[T]:
        """Yields the items and counts each as done."""
        done = 0
        for done, item in enumerate(found, 1):
            yield item
            if done % _BLOCK == 0:
                self.reach(done)
        self.reach(done)


@contextlib.contextmanager
def watched(
    plan: Plan, progress: Progress | None, rows_each: int = 1, networks: int = 1
) -> Iterator[None]:
    """Tells `progress` how much of a plan is done while the body carries it out.

    Args:
        plan: whose parts are counted.
        progress: gets the counts; None to count nothing.
        rows_each: rows of a file; see `RowKind`.
        networks: that compute each file.
    """
    if progress is None:
        yield
        return
    rejects = plan.counts["rejected"]
    progress.begin("computing", plan.files, rejects)
    ended = threading.Event()
    counts = _Counts(plan.place, rows_each, networks)
    watching = threading.Thread(
        target=_watch, args=(counts, progress, rejects, ended), name="progress", daemon=True
    )
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join(_LOCAL_PAUSE)
    if progress.state().stage == "computing":
        progress.reach(plan.files)
        progress.begin("committing", plan.files)
    progress.reach(plan.files)


class _Counts:
    """Holds the counts of this run's new parts and of this process' threads."""

    def __init__(self, place: Place, rows_each: int, networks: int) -> None:
        # A run that has nothing to do goes without Pillow.
        from beam_flowers.backbones.compute import pool

        self._place, self._rows_each, self._networks = place, rows_each, networks
        self._pool, self._old = pool(), pool().tally
        self._seen = set(work_parts(place))
        self.rows = self.rejects = 0

    def look(self) -> None:
        """Counts the parts that are new; one that is just being moved counts with the next look."""
        for name in sorted(set(work_parts(self._place)) - self._seen):
            with open_part(self._place, name) as part:
                rows = part.metadata.num_rows
            self._seen.add(name)
            if holds_rejects(name):
                self.rejects += rows
            else:
                self.rows += rows

    @property
    def written(self) -> int:
        """Files in parts."""
        return self.rows // self._rows_each + self.rejects

    def threads(self) -> Tally:
        """Files that the threads have finished since."""
        new, old = self._pool.tally, self._old
        done, rejects = new.files - old.files, new.rejects - old.rejects
        return new._replace(files=done // self._networks, rejects=rejects // self._networks)


def _watch(counts: _Counts, progress: Progress, rejects: int, ended: threading.Event) -> None:
    usual = _LOCAL_PAUSE if files.is_local(counts._place.root) else _REMOTE_PAUSE
    next_look = 0.0
    while not ended.wait(_LOCAL_PAUSE):
        if (begun := time.monotonic()) >= next_look:
            # A moment's trouble here is none of the job's.
            with contextlib.suppress(OSError, BeamFlowersError):
                counts.look()
            # Looking takes a tenth of the time at most, however many parts there are.
            took = time.monotonic() - begun
            next_look = begun + max(usual, 10 * took) - 1e-3
        threads = counts.threads()
        done = max(counts.written, threads.files)
        progress.reach(done, rejects + max(counts.rejects, threads.rejects))
        total = progress.state().total
        if counts.written == total and progress.state().stage == "computing":
            progress.begin("committing", total, progress.state().rejects)
            progress.reach(total, 0)
