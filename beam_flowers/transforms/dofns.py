"""Carries out one unit of a plan on a worker; `transforms.plan` wires these into pipelines."""

from __future__ import annotations

import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import groupby
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beam_flowers.backbones.compute import Hashed, hash_files, pool
from beam_flowers.backbones.hardware import cores
from beam_flowers.backbones.joined import Started, start_each
from beam_flowers.errors import (
    BackboneError,
    PartDamagedError,
    PartLostError,
    StoreError,
    WorkerError,
)
from beam_flowers.head.blas import one_blas_thread
from beam_flowers.images.recipe import Limits
from beam_flowers.records import READ, Embedding, Image, Reject, Result, Seconds
from beam_flowers.store.outcomes import Outcome, find_settled, settle, unit_key
from beam_flowers.store.parts import (
    Part,
    Place,
    RejectRows,
    RowKind,
    find_rows,
    holds_rejects,
    iterate_part,
    located,
    read_part,
    write_part,
    write_parts,
)
from beam_flowers.store.plan import derive_parts
from beam_flowers.store.schema import images_of, images_table, rejects_table, vectors_of
from beam_flowers.store.work_units import (
    Source,
    Unit,
    pack,
    partition,
    read_sources,
    read_unchanged,
    read_unit,
    unpack,
)
from beam_flowers.transforms.prefetch import PREFETCHED
from beam_flowers.transforms.preflight import Setup, require_seen
from beam_flowers.transforms.start_ahead import StartAhead


class VectorKind(RowKind, Protocol):
    """Makes rows from the vectors of a store."""

    @property
    def image_columns(self) -> tuple[str, ...]: ...
    def stored(self, images: pa.Table, vectors: npt.NDArray[np.float32]) -> pa.Table: ...


# More units at a time would take memory and not be read faster, see `ScoreUnits`.
_MOST_AHEAD = 4

_SCORED_ROWS = 1024
"""Of a part of 10,000 at once: half the memory, as fast."""

OUTCOMES = "outcomes"
MOVED = "moved"
PROBLEMS = "beam_flowers.problems"
"""Namespace of the counters whose names tell the driver which workers are not set up."""


class Step(beam.DoFn):
    """Applies a function of this package to elements, on workers that are set up as the driver.

    What is wrong with a worker travels to the pipeline's end as an `Outcome` that keeps the run
    from being committed. As an exception it would be repeated by every runner that restarts.

    A class, since functions that Beam wraps itself are pickled as bytecode, which another
    version of Python cannot read: it could not even say so.

    Args:
        setup: what the worker is held against.
        function: element, arguments → elements.
        problems: tag of the output for problems; by default the main one.
        arguments: for `function`.
    """

    def __init__(
        self,
        setup: Setup,
        function: Callable[..., Iterable[Any]],
        problems: str = "",
        **arguments: Any,
    ) -> None:
        self._setup = setup
        self._function = function
        self._problems = problems
        self._arguments = arguments

    def process(self, element: Any) -> Iterator[Any]:
        # What an earlier step found wrong goes through all others to the commit.
        if isinstance(element, Outcome):
            yield element
            return
        for result in attempted(self._setup, self._function, element, **self._arguments):
            # Problems, and parts that are damaged or lost.
            is_tagged = isinstance(result, Outcome) and self._problems
            yield TaggedOutput(self._problems, result) if is_tagged else result


def attempted(
    setup: Setup, function: Callable[..., Iterable[Any]], *arguments: Any, **named: Any
) -> Iterator[Any]:
    """Returns the result of `function`, or an `Outcome` that names a fault of the worker."""
    problem = setup.problem()
    try:
        if not problem:
            yield from function(*arguments, **named)
    except (BackboneError, WorkerError) as error:
        problem = f"{socket.gethostname()}: {error}"
    except PartDamagedError as error:
        # Not an exception of the pipeline: the driver plans again without the part.
        yield Outcome((), damaged=((error.root, error.name),))
    except PartLostError as error:
        # Likewise: another run may have replaced the part, and this one plans on the newest.
        yield Outcome((), lost=str(error))
    if problem:
        # Also as the name of a counter: a worker that does not see the store cannot write there.
        Metrics.counter(PROBLEMS, problem).inc()
        yield Outcome((), problem=problem)


def read_images(unit: Unit | bytes) -> list[Image]:
    """Returns the files of a unit.

    Raises:
        WorkerError: this worker does not see them.
    """
    images = images_of(read_unit(unit)) if isinstance(unit, Unit) else unpack(unit)
    require_seen(images)
    return images


def write_results(
    place: Place, row_kind: RowKind, results: Iterable[Result], spent: Seconds | None = None
) -> Outcome:
    """Writes the rows and the rejects of some files, which took `spent` to compute.

    A file that looks unchanged and cannot be read keeps the row, or the verdict, that it has.
    """
    begun, results = time.perf_counter(), list(results)
    embeddings = [r for r in results if isinstance(r, Embedding)]
    rejects = [r for r in results if isinstance(r, Reject)]
    unread = {r.image.uri: r.error_class for r in rejects if r.stage == READ}
    kept, kept_parts, reasons = keep_rows(place, row_kind, [*unread])
    are_kept = set(kept)
    rejects = [r for r in rejects if r.image.uri not in are_kept]
    rows = row_kind.table(embeddings) if embeddings else None
    parts = (*write_rows(place, row_kind, rows, rejects), *kept_parts)
    # Files of one content share one vector, so that only the first of them was computed.
    computed = len({b.sha256 for b in embeddings})
    seconds = (spent or Seconds())._replace(write=time.perf_counter() - begun)
    return Outcome(
        parts,
        computed,
        len(embeddings) - computed + len(kept) - reasons.total(),
        reasons=dict(reasons + Counter(reasons_of(rejects))),
        seconds=seconds,
        unread=dict(Counter(unread[uri] for uri in kept)),
    )


def keep_rows(
    place: Place, row_kind: RowKind, uris: Sequence[str]
) -> tuple[list[str], list[Part], Counter[str]]:
    """Writes the stored rows and rejects of unchanged files again.

    Args:
        place: the section.
        row_kind: of its rows.
        uris: of files that cannot be read.

    Returns:
        The uris of those that have one, the parts, and their rejects by error class.
    """
    kept: list[str] = []
    parts: list[Part] = []
    reasons: Counter[str] = Counter()
    for (name, described), images in read_unchanged(place, uris).items():
        kept += images["uri"].to_pylist()
        own = RejectRows() if holds_rejects(name) else row_kind
        parts += derive_parts(place, own, name, images, "uri", described=described)
        if holds_rejects(name):
            reasons.update(read_part(place, parts[-1], ["error_class"])[0].to_pylist())
    return kept, parts, reasons


def write_rows(
    place: Place, row_kind: RowKind, rows: pa.Table | None, rejects: Sequence[Reject]
) -> tuple[Part, ...]:
    """Writes rows and rejects as parts."""
    parts = list(write_parts(place, row_kind, rows)) if rows is not None else []
    if rejects:
        parts.append(write_part(place, RejectRows(), rejects_table(rejects)))
    return tuple(parts)


def reasons_of(rejects: Iterable[Reject]) -> dict[str, int]:
    """Counts rejects by their error class."""
    return dict(Counter(reject.error_class for reject in rejects))


class Overlapping(beam.DoFn):
    """Units → outcomes: while one is finished, the next `ahead` are on the threads."""

    ahead = 1

    def __init__(self, setup: Setup) -> None:
        self.expected = setup

    def start_bundle(self) -> None:
        self._work = StartAhead(self._settle, self.ahead)

    def process(self, unit: Any) -> Iterator[Outcome]:
        if isinstance(unit, Outcome):
            yield unit
            return
        yield from attempted(self.expected, self._next, unit)

    def _next(self, unit: Any) -> Iterator[Outcome]:
        key = unit_key(unit)
        # A runner repeats a bundle whose results were lost; its finished units need no second time.
        if settled := find_settled(self.expected.place, key):
            yield settled.outcome
            return
        # The engines are loaded here and not in setup(): a run without new images needs none.
        yield from self._work.add((key, self.start(unit)))

    def _settle(self, started: tuple[str, Any]) -> Outcome:
        key, work = started
        return settle(self.expected.place, replace(self.finish(work), unit=key)).outcome

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for outcome in attempted(self.expected, self._work.rest):
            # At the end of a bundle there is no element that could give time and window.
            yield WindowedValue(outcome, MIN_TIMESTAMP, [GlobalWindow()])

    def start(self, unit: Any) -> Any:
        """Hands a unit to the threads."""
        raise NotImplementedError

    def finish(self, started: Any) -> Outcome:
        """Waits for what `start` returned."""
        raise NotImplementedError


class EmbedUnits(Overlapping):
    """Units of files → outcomes."""

    def __init__(self, setup: Setup, row_kind: RowKind, limits: Limits) -> None:
        super().__init__(setup)
        self.row_kind = row_kind
        self.limits = limits

    def start(self, unit: Unit | bytes) -> Started:
        images, backbones = read_images(unit), self.expected.backbones
        # In the driver's own process some units were started while Beam was imported.
        early = PREFETCHED.take(images, backbones, self.limits)
        return early or start_each(images, backbones, self.limits)

    def finish(self, started: Started) -> Outcome:
        results = started.results()
        return write_results(self.expected.place, self.row_kind, results, started.seconds())


def hash_unit(
    unit: Unit, place: Place, row_kind: RowKind, partitions: int, limits: Limits
) -> Iterator[tuple[int, bytes] | TaggedOutput]:
    """Files of doubtful content → (partition of the digest, files), rejects → an outcome."""
    images, key = read_images(unit), unit_key(unit)
    settled = find_settled(place, key)
    if not settled:
        results = hash_files(images, limits)
        rejects = [r for r in results if isinstance(r, Reject)]
        hashes = [(r.image.bytes, r.sha256) if isinstance(r, Hashed) else None for r in results]
        # Another attempt may find a file that this one could not read: the first one's word counts.
        settled = settle(place, replace(write_results(place, row_kind, rejects), unit=key), hashes)
    if settled.outcome.parts:
        yield TaggedOutput(OUTCOMES, settled.outcome)
    blocks: dict[int, list[Hashed]] = defaultdict(list)
    for image, found in zip(images, settled.more or (), strict=True):
        if found:
            size, sha256 = found
            hashed = Hashed(image._replace(bytes=size), sha256)
            blocks[partition(sha256, partitions)].append(hashed)
    for index, some in blocks.items():
        yield index, pack(some)


def settle_partition(
    keyed: tuple[int, Iterable[bytes]], place: Place, unit_rows: int
) -> Iterator[bytes | TaggedOutput]:
    """Yields the files still to embed, copies together, and (part, files) of known content.

    What the manifest says of a part travels with its files.
    """
    index, blocks = keyed
    sources = read_sources(place, index)
    # A set, as a repeated bundle may deliver a block twice. Sorted, so that an attempt that is
    # repeated makes the same units: an outcome goes by the files of its unit.
    hashed = sorted(
        {h for block in blocks for h in unpack(block)}, key=lambda h: (h.sha256, h.image.uri)
    )
    known: dict[Source, list[Hashed]] = defaultdict(list)
    unit: list[Image] = []
    for sha, group in groupby(hashed, key=lambda h: h.sha256):
        if sha in sources:
            known[sources[sha]].extend(group)
            continue
        unit.extend(h.image for h in group)
        if len(unit) >= unit_rows:
            yield pack(unit)
            unit = []
    if unit:
        yield pack(unit)
    for source, moved in known.items():
        yield TaggedOutput(MOVED, (source.name, pack([source.part, moved])))


def copy_rows(
    keyed: tuple[str, Iterable[bytes]],
    place: Place,
    row_kind: RowKind,
    others: Sequence[Place] = (),
) -> Iterator[Outcome]:
    """Writes rows of moved or copied files with the vectors of a part.

    Args:
        keyed: the part as `<place>/<name>`, and the files.
        place: where to write, and place 0 of the parts.
        row_kind: of the rows.
        others: places from 1 on.
    """
    source, packed = keyed
    source_place, name = located(source, [place, *others])
    blocks = [unpack(block) for block in packed]
    hashed = sorted({h for _, some in blocks for h in some}, key=lambda h: h.image.uri)
    images = images_table([h.image for h in hashed], [h.sha256 for h in hashed])
    described = blocks[0][0]
    parts = derive_parts(place, row_kind, name, images, "sha256", source_place, described)
    yield settle(place, Outcome(parts, reused=len(hashed), unit=unit_key(source))).outcome


def rewrite_part(unit: Unit, place: Place, row_kind: RowKind) -> Iterator[Outcome]:
    """Writes the rows that stay of a part that loses or changes others."""
    parts = derive_parts(place, row_kind, unit.source, read_unit(unit), "uri", described=unit.part)
    yield settle(place, Outcome(parts, unit=unit_key(unit))).outcome


class ScoreUnits(Overlapping):
    """Units of stored rows → rows made from their vectors, several units at a time."""

    def __init__(self, setup: Setup, row_kind: VectorKind, sources: Sequence[Place]) -> None:
        super().__init__(setup)
        self.row_kind = row_kind
        self.sources = sources

    def start_bundle(self) -> None:
        # A unit is a whole part, in memory; more at a time would not be read faster.
        self.ahead = min(cores(), _MOST_AHEAD)
        super().start_bundle()

    def start(self, unit: Unit) -> Future[Outcome]:
        return pool().submit(score_unit, unit, self.sources, self.expected.place, self.row_kind)

    def finish(self, started: Future[Outcome]) -> Outcome:
        return started.result()


@one_blas_thread
def score_unit(unit: Unit, sources: Sequence[Place], place: Place, row_kind: VectorKind) -> Outcome:
    """Writes rows made from vectors of another table's sections, side by side.

    Raises:
        StoreError: the sections differ by now.
    """
    rows = pa.concat_tables(row_kind.stored(*piece) for piece in _pieces(unit, sources, row_kind))
    return Outcome(write_parts(place, row_kind, rows), reused=len(rows) // row_kind.rows_each)


def _pieces(
    unit: Unit, sources: Sequence[Place], row_kind: VectorKind
) -> Iterator[tuple[pa.Table, npt.NDArray[np.float32]]]:
    """Yields rows and vectors of a unit, a few at a time if it is all of a part."""
    columns = [*row_kind.image_columns, "vector"]
    named = [located(source, sources) for source in unit.source.split("+")]
    if not unit.file:
        for some in iterate_part(*named[0], columns, _SCORED_ROWS):
            yield some, vectors_of(some)
        return
    uris = read_unit(unit)["uri"]
    parts = [read_part(*part, columns) for part in named]
    tables = [part.take(find_rows(part, uris, "uri")) for part in parts]
    images, vectors = tables[0], [vectors_of(table) for table in tables]
    if any(not table["sha256"].equals(images["sha256"]) for table in tables):
        raise StoreError(f"the rows of {unit.source} changed under this run; run it again")
    yield images, vectors[0] if len(vectors) == 1 else np.concatenate(vectors, axis=1)
