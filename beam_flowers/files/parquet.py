"""Bounds the memory of an untrusted Parquet file before it is read.

A file of 300 bytes can stand for 10 GB: its dictionary has a long text once, and a million rows
name it. The footer is trusted; a false one about its pages is not detected.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import groupby
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_flowers.files.parquet_footer import Chunk, chunks_of

MOST_BYTES = 1 << 30
"""Bytes that a file of any size may unpack into."""
MOST_RATIO = 256
"""Bytes into which each byte of a larger file may unpack. Our own files reach 30: tables of rejects
for one reason."""


def unpacked_too_far(source: BinaryIO) -> str:
    """Returns why an open file must not be read, empty if it may."""
    try:
        chunks = chunks_of(source)
    except ValueError as error:
        return str(error)
    size = source.seek(0, io.SEEK_END)
    most = max(MOST_BYTES, MOST_RATIO * size)
    # The pages of texts, and below the values that only point at another one.
    total = sum(c.values * c.width or c.bytes for c in chunks)
    doubtful = [c for c in chunks if not c.width and (c.has_dictionary or c.has_prefixes)]
    if total <= most < total + sum(c.values * c.bytes for c in doubtful):
        longest = _longest(source, [c for c in doubtful if not c.has_prefixes])
        total += sum(c.values * longest.get((c.group, c.path), c.bytes) for c in doubtful)
    return f"its {size} bytes would unpack into {total}, more than {most}" if total > most else ""


def _longest(source: BinaryIO, chunks: list[Chunk]) -> dict[tuple[int, str], int]:
    """Finds the longest value of each dictionary; one row loads a whole dictionary."""
    longest: dict[tuple[int, str], int] = {}
    for group, columns in groupby(chunks, key=lambda chunk: chunk.group):
        names = [column.path for column in columns]
        file = pq.ParquetFile(source, read_dictionary=names)
        batch = next(file.iter_batches(1, row_groups=[group], columns=names), None)
        for path, values in () if batch is None else _leaves(batch):
            if pa.types.is_dictionary(values.type):
                longest[group, path] = pc.max(pc.binary_length(values.dictionary)).as_py() or 0
    return longest


def cast_within(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """Casts a column to another type.

    Raises:
        pa.ArrowException: a value does not fit, a text is not UTF-8, or it takes too much memory.
    """
    if pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type):
        # Each row could hold the longest text of the dictionary.
        lengths = (pc.max(pc.binary_length(c.dictionary)).as_py() or 0 for c in column.chunks)
        longest = max(lengths, default=0)
        if longest * len(column) > MOST_BYTES:
            raise pa.ArrowInvalid(f"{len(column)} rows, and texts of {longest} bytes")
    column = column.cast(target)
    column.validate(full=True)
    return column


def _leaves(batch: pa.RecordBatch) -> Iterator[tuple[str, Any]]:
    """Yields Parquet's path and the innermost values of each column."""
    todo = [(name, batch.column(name)) for name in batch.schema.names]
    while todo:
        path, values = todo.pop()
        if pa.types.is_struct(values.type):
            todo += [(f"{path}.{f.name}", values.field(f.name)) for f in values.type]
        elif pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            todo.append((f"{path}.list.element", values.values))
        else:
            yield path, values
