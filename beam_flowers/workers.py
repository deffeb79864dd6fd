"""What a worker does with one unit of a plan; `transforms` wires these into pipelines."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beam_flowers.backbones.compute import Hashed, Pending, collect, hash_files, start
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Bottleneck, Image, Reject
from beam_flowers.store.parts import (
    Part,
    Place,
    RejectRows,
    RowKind,
    read_part,
    take_rows,
    write_part,
)
from beam_flowers.store.plan import Outcome, Unit, derive_part, partition, read_sources, read_unit
from beam_flowers.store.schema import bottlenecks_of, images_of, images_table, rejects_table

OUTCOMES = "outcomes"
MOVED = "moved"


def read_images(unit: Unit) -> list[Image]:
    """The files of a unit."""
    return images_of(read_unit(unit))


def write_results(place: Place, kind: RowKind, results: Iterable[Bottleneck | Reject]) -> Outcome:
    """Writes the rows and the rejects of some files."""
    results = list(results)
    bottlenecks = [r for r in results if isinstance(r, Bottleneck)]
    rejects = [r for r in results if isinstance(r, Reject)]
    parts: list[Part] = []
    if bottlenecks:
        parts.append(write_part(place, kind, kind.table(bottlenecks)))
    if rejects:
        parts.append(write_part(place, RejectRows(), rejects_table(rejects)))
    computed = len({b.sha256 for b in bottlenecks})
    return Outcome(tuple(parts), computed, len(bottlenecks) - computed)


class EmbedUnits(beam.DoFn):
    """Lists of files → outcomes. One unit is written while the next is on the threads."""

    def __init__(
        self, place: Place, kind: RowKind, backbone: ResolvedBackbone, limits: Limits
    ) -> None:
        self.place = place
        self.kind = kind
        self.backbone = backbone
        self.limits = limits

    def start_bundle(self) -> None:
        self._started: deque[Pending] = deque()

    def process(self, images: list[Image]) -> Iterator[Outcome]:
        # The engine is loaded here and not in setup(): a run without new pictures needs none.
        self._started.append(start(images, load(self.backbone), self.limits))
        if len(self._started) > 1:
            yield self._finish_oldest()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._started:
            yield WindowedValue(self._finish_oldest(), MIN_TIMESTAMP, [GlobalWindow()])

    def _finish_oldest(self) -> Outcome:
        return write_results(self.place, self.kind, collect(self._started.popleft()))


def hash_unit(
    unit: Unit, place: Place, kind: RowKind, partitions: int, limits: Limits
) -> Iterator[tuple[int, list[Hashed]] | TaggedOutput]:
    """Files of doubtful content → (partition of the digest, files), rejects → an outcome."""
    results = hash_files(read_images(unit), limits)
    rejects = [r for r in results if isinstance(r, Reject)]
    if rejects:
        yield TaggedOutput(OUTCOMES, write_results(place, kind, rejects))
    blocks: dict[int, list[Hashed]] = defaultdict(list)
    for result in results:
        if isinstance(result, Hashed):
            blocks[partition(result.sha256, partitions)].append(result)
    yield from blocks.items()


def settle_partition(
    keyed: tuple[int, Iterable[Sequence[Hashed]]], place: Place, unit_rows: int
) -> Iterator[list[Image] | TaggedOutput]:
    """Hashed files → files still to embed, copies together; (part, files) of known content."""
    index, blocks = keyed
    sources = read_sources(place, index)
    hashed = sorted((h for block in blocks for h in block), key=lambda h: (h.sha256, h.image.uri))
    known: dict[str, list[Hashed]] = defaultdict(list)
    unit: list[Image] = []
    for sha, group in groupby(hashed, key=lambda h: h.sha256):
        if sha in sources:
            known[sources[sha]].extend(group)
            continue
        unit.extend(h.image for h in group)
        if len(unit) >= unit_rows:
            yield unit
            unit = []
    if unit:
        yield unit
    for item in known.items():
        yield TaggedOutput(MOVED, item)


def copy_rows(
    keyed: tuple[str, Iterable[Sequence[Hashed]]], place: Place, kind: RowKind
) -> Outcome:
    """Writes rows of moved or copied files with the vectors that `keyed[0]`, a part, has."""
    source, blocks = keyed
    hashed = sorted((h for block in blocks for h in block), key=lambda h: h.image.uri)
    images = images_table([h.image for h in hashed], [h.sha256 for h in hashed])
    part = derive_part(place, kind, source, images, "sha256")
    return Outcome((part,), reused=part.rows)


def rewrite_part(unit: Unit, place: Place, kind: RowKind) -> Outcome:
    """Writes the rows that stay of a part that loses or changes others."""
    return Outcome((derive_part(place, kind, unit.source, read_unit(unit), "uri"),))


def score_unit(unit: Unit, source: Place, place: Place, kind: RowKind) -> Outcome:
    """Writes rows of kind `kind` from vectors of another table."""
    rows = take_rows(read_part(source, unit.source), read_unit(unit)["uri"], "uri")
    part = write_part(place, kind, kind.table(bottlenecks_of(rows)))
    return Outcome((part,), reused=part.rows)
