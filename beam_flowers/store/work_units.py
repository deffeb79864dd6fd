"""Writes and reads units of work: rows in files below `__work`, so workers are sent little."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_flowers import files
from beam_flowers.errors import StoreFieldError, WorkerError
from beam_flowers.files.typed import Form
from beam_flowers.store.ledger import Ledger, StoredRow
from beam_flowers.store.parts import Part, PartFields, Place, checked_parts
from beam_flowers.store.schema import IMAGE_SCHEMA, images_table

_MOST_IN_PARTITION = 200_000
"""Most files whose names and digests are in memory at once, some 110 MB."""

_UNCHANGED = "unchanged.parquet"
_UNCHANGED_ROWS = 10_000
_UNCHANGED_SCHEMA = pa.schema(
    [*IMAGE_SCHEMA, pa.field("part", pa.string()), pa.field("described", pa.string())]
)
_SOURCE_SCHEMA = pa.schema([(name, pa.string()) for name in ("sha256", "part", "described")])


class Source(NamedTuple):
    """Part that rows are copied from, by the content or by the file.

    Attributes:
        name: `<place>/<part>`; for rows that stay in their own table `<part>`.
        part: the part as the manifest describes it; None if no manifest names it yet.
    """

    name: str
    part: Part | None


@dataclass(frozen=True)
class Unit:
    """Reference to one piece of work, small enough to send: a row group of a file.

    Attributes:
        file: Parquet file of a `UnitWriter`; empty for all rows of `source`.
        index: number of the row group.
        source: name of the part that the rows come from, if they come from one; `<place>/<name>`
            for a part of another table, joined by `+` for several sections.
        rows: number of rows of the row group.
        part: `source` as the manifest describes it, if rows are copied from it; None if no manifest
            names it yet.
    """

    file: str
    index: int
    source: str = ""
    rows: int = 0
    part: Part | None = None


class UnitWriter:
    """Writes units as row groups of one file."""

    def __init__(self, uri: str, schema: pa.Schema = IMAGE_SCHEMA) -> None:
        self._uri = uri
        self._buffer = io.BytesIO()
        self._writer = pq.ParquetWriter(self._buffer, schema, compression="zstd")
        self._count = 0

    def add(self, rows: pa.Table, source: str = "", part: Part | None = None) -> Unit:
        unit = Unit(self._uri, self._count, source, len(rows), part)
        self._writer.write_table(rows, row_group_size=max(len(rows), 1))
        self._count += 1
        return unit

    def close(self) -> None:
        self._writer.close()
        if self._count:
            files.write_atomic(self._uri, self._buffer.getvalue())


def read_unit(unit: Unit) -> pa.Table:
    """Reads the unit's rows, in the schema of its writer."""
    with files.open_read(unit.file) as source, pq.ParquetFile(source) as file:
        return file.read_row_group(unit.index)


def pack(rows: Sequence[Any]) -> bytes:
    """Packs rows into one small element of some 60 bytes a file.

    The in-process runner would hold four copies of plain objects, 200 bytes each. Arrow takes as
    much as this for many rows, but 1,600 bytes for one.
    """
    return zlib.compress(pickle.dumps(rows), 1)


def unpack(block: bytes) -> Any:
    """Unpacks the rows of `pack`; only safe for blocks that this pipeline's own steps made."""
    return pickle.loads(zlib.decompress(block))


@dataclass(frozen=True)
class Filed:
    """Reference to an object in a file beside the units, for an object that is too large to send.

    Beam would compress an object that a step holds, send it with each step, and unpack it on each
    thread.
    """

    uri: str
    sha256: str

    @classmethod
    def write(cls, uri: str, value: object) -> Filed:
        data = pickle.dumps(value)
        files.write_atomic(uri, data)
        return cls(uri, hashlib.sha256(data).hexdigest())

    def read(self) -> Any:
        """Reads the object, once in each process.

        Raises:
            WorkerError: the file is not the one that the driver wrote.
        """
        return _read_filed(self)


@lru_cache(maxsize=4)
def _read_filed(filed: Filed) -> Any:
    data = files.read_bytes(filed.uri)
    # Loading a pickle runs its code, so only the driver's own is loaded.
    if hashlib.sha256(data).hexdigest() != filed.sha256:
        raise WorkerError(f"{filed.uri} was changed by another program; run this again")
    return pickle.loads(data)


def partition(sha256: str, partitions: int) -> int:
    """Returns the number of the range of digests, of `partitions` ascending ones, of a digest."""
    return (int(sha256[:8], 16) * partitions) >> 32


def partitions_for(units: int, rows: int) -> int:
    """Returns the number of ranges of digests for `units` units of doubtful files, of `rows` each.

    There are as many ranges as units, which spreads the next steps over the workers, but at most
    64, as each unit sends an element to each range. There are more if a range would have more files
    than fit into a worker's memory.
    """
    return max(min(units, 64), units * rows // _MOST_IN_PARTITION)


def write_sources(
    ledger: Ledger, place: Place, partitions: int, described: Mapping[str, Part]
) -> None:
    """Writes the digests that doubtful files may have, a row group for each partition.

    Args:
        ledger: joined.
        place: of the run.
        partitions: number of partitions.
        described: parts that manifests name, by `<place>/<name>`.
    """
    if not partitions:
        return
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, _SOURCE_SCHEMA, compression="zstd") as writer:
        by_partition = groupby(ledger.sources(), key=lambda row: partition(row[0], partitions))
        following = next(by_partition, None)
        # A row group for every partition, empty ones included: readers go by their numbers.
        for index in range(partitions):
            rows: list[tuple[str, str]] = []
            if following and following[0] == index:
                rows = list(following[1])
                following = next(by_partition, None)
            columns = [
                [sha256 for sha256, _ in rows],
                [name for _, name in rows],
                [_description(described.get(name)) for _, name in rows],
            ]
            table = pa.table([pa.array(c, pa.string()) for c in columns], _SOURCE_SCHEMA)
            writer.write_table(table, row_group_size=max(len(rows), 1))
    files.write_atomic(place.run_file("sources.parquet"), buffer.getvalue())


def write_unchanged(
    place: Place, rows: Iterable[tuple[StoredRow, str]], described: Mapping[str, Part]
) -> None:
    """Writes the rows that stay if their files cannot be read, with the parts that have them.

    Args:
        place: of the run.
        rows: with each the name of its part.
        described: parts as the manifest describes them, by name.
    """
    rows = iter(rows)
    writer = UnitWriter(place.run_file(_UNCHANGED), _UNCHANGED_SCHEMA)
    while block := list(islice(rows, _UNCHANGED_ROWS)):
        images = images_table([row.image for row, _ in block], [row.sha256 for row, _ in block])
        names = [name for _, name in block]
        images = images.append_column("part", pa.array(names, pa.string()))
        texts = [_description(described.get(name)) for name in names]
        writer.add(images.append_column("described", pa.array(texts, pa.string())))
    writer.close()


def read_unchanged(place: Place, uris: Sequence[str]) -> dict[Source, pa.Table]:
    """Finds rows that `write_unchanged` wrote, by the uris of their files.

    Returns:
        Tables in `IMAGE_SCHEMA`, by part.
    """
    uri = place.run_file(_UNCHANGED)
    if not uris or not files.exists(uri):
        return {}
    # Sorted by uri, so that only the row groups that may have them are read.
    with files.open_read(uri) as source:
        found = pq.read_table(source, filters=[("uri", "in", list(uris))])
    parts = dict(zip(found["part"].to_pylist(), found["described"].to_pylist(), strict=True))
    return {
        Source(name, _described(text, uri)): found.filter(pc.equal(found["part"], name)).select(
            IMAGE_SCHEMA.names
        )
        for name, text in sorted(parts.items())
    }


def read_sources(place: Place, index: int) -> dict[str, Source]:
    """Reads the parts of the stored rows in one partition, by the digest of their content."""
    uri = place.run_file("sources.parquet")
    with files.open_read(uri) as source, pq.ParquetFile(source) as file:
        rows = file.read_row_group(index)
    decode = lru_cache(maxsize=None)(_described)
    columns = (rows[name].to_pylist() for name in rows.schema.names)
    return {sha: Source(name, decode(text, uri)) for sha, name, text in zip(*columns, strict=True)}


def _description(part: Part | None) -> str | None:
    return json.dumps(part.as_dict()) if part else None


def _described(text: str | None, uri: str) -> Part | None:
    if not text:
        return None
    return checked_parts([_PART.read(text.encode(), uri)], uri, "described")[0]


_PART = Form(PartFields, StoreFieldError, "run this again")
