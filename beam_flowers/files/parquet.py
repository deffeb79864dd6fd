"""Tells how much memory a Parquet file from anybody takes, before it is read.

A file of 300 bytes can stand for 10 GB: a dictionary has a long text once, and a million rows name
it. Taken for true is what the footer says; one that lies about its pages is not found out.
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
"""That a file may unpack into whatever its size is."""
MOST_RATIO = 256
"""Bytes into which each byte of a larger file may unpack. Of ours the smallest are tables of
rejects for one reason, with 30."""


def unpacked_too_far(source: BinaryIO) -> str:
    """Tell why a file is not to be read, or nothing if it may.

    Args:
        source: the open file.
    """
    try:
        chunks = chunks_of(source)
    except ValueError as error:
        return str(error)
    size = source.seek(0, io.SEEK_END)
    most = max(MOST_BYTES, MOST_RATIO * size)
    # The pages of texts as they are; and what each value may be that only points at another.
    total = sum(c.values * c.width or c.bytes for c in chunks)
    doubtful = [c for c in chunks if not c.width and (c.has_dictionary or c.has_prefixes)]
    if total <= most < total + sum(c.values * c.bytes for c in doubtful):
        longest = _longest(source, [c for c in doubtful if not c.has_prefixes])
        total += sum(c.values * longest.get((c.group, c.path), c.bytes) for c in doubtful)
    return f"its {size} bytes would unpack into {total}, more than {most}" if total > most else ""


def _longest(source: BinaryIO, chunks: list[Chunk]) -> dict[tuple[int, str], int]:
    """Finds the longest value in dictionaries: one row brings each of them whole."""
    found: dict[tuple[int, str], int] = {}
    for group, some in groupby(chunks, key=lambda chunk: chunk.group):
        names = [chunk.path for chunk in some]
        file = pq.ParquetFile(source, read_dictionary=names)
        batch = next(file.iter_batches(1, row_groups=[group], columns=names), None)
        for path, values in () if batch is None else _leaves(batch):
            if pa.types.is_dictionary(values.type):
                found[group, path] = pc.max(pc.binary_length(values.dictionary)).as_py() or 0
    return found


def cast_within(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Gives a column another type, if its values are of that one too.

    Raises:
        pa.ArrowException: they are not, a text is not UTF-8, or it would take too much memory.
    """
    if pa.types.is_dictionary(column.type) and pa.types.is_string(column.type.value_type):
        # Each row could be as long as the longest.
        lengths = (pc.max(pc.binary_length(c.dictionary)).as_py() or 0 for c in column.chunks)
        longest = max(lengths, default=0)
        if longest * len(column) > MOST_BYTES:
            raise pa.ArrowInvalid(f"{len(column)} rows, and texts of {longest} bytes")
    column = column.cast(kind)
    column.validate(full=True)
    return column


def _leaves(batch: pa.RecordBatch) -> Iterator[tuple[str, Any]]:
    """The innermost values of each column, by their path as Parquet has it."""
    todo = [(name, batch.column(name)) for name in batch.schema.names]
    while todo:
        path, values = todo.pop()
        if pa.types.is_struct(values.type):
            todo += [(f"{path}.{f.name}", values.field(f.name)) for f in values.type]
        elif pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            todo.append((f"{path}.list.element", values.values))
        else:
            yield path, values
