"""Bounds the memory of an untrusted Parquet file before it is read.

A file of 300 bytes can stand for 10 GB: its dictionary has a long text once, and a million rows
name it. The footer is trusted; one that lies about its pages is not detected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

MOST_BYTES = 1 << 30
"""Bytes that a file of any size may unpack into."""
MOST_RATIO = 256
"""Bytes into which each byte of a larger file may unpack. Our own files reach 30: tables of rejects
for one reason."""
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


def unpacked_too_far(file: pq.ParquetFile, source: Any, size: int) -> str:
    """Returns why a file must not be read, empty if it may.

    Args:
        file: opened, its footer read.
        source: the file again, to read its dictionaries if need be.
        size: bytes of the file.
    """
    most = max(MOST_BYTES, MOST_RATIO * size)
    total, doubtful = 0, defaultdict[int, list[Any]](list)
    metadata = file.metadata
    lengths = [metadata.schema.column(index).length for index in range(metadata.num_columns)]
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for index, length in enumerate(lengths):
            column = group.column(index)
            if column.physical_type == "BYTE_ARRAY":
                # Its pages, and below the values that only point at another one.
                total += column.total_uncompressed_size
                if column.has_dictionary_page or "DELTA_BYTE_ARRAY" in column.encodings:
                    doubtful[number].append(column)
            else:
                total += column.num_values * _WIDTHS.get(column.physical_type, length)
    bound = sum(
        c.num_values * c.total_uncompressed_size for columns in doubtful.values() for c in columns
    )
    if total <= most < total + bound:
        for number, columns in doubtful.items():
            longest = _longest(source, number, columns)
            total += sum(c.num_values * longest(c) for c in columns)
    if total <= most:
        return ""
    return f"its {size} bytes would unpack into {total}, more than {most}"


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


def _longest(source: Any, group: int, columns: list[Any]) -> Any:
    """Returns a function from a column to its longest value; one row loads a whole dictionary."""
    names = [column.path_in_schema for column in columns if column.has_dictionary_page]
    lengths: dict[str, int] = {}
    if names:
        file = pq.ParquetFile(source, read_dictionary=names)
        batch = next(file.iter_batches(1, row_groups=[group], columns=names), None)
        for path, values in () if batch is None else _leaves(batch):
            if pa.types.is_dictionary(values.type):
                longest = pc.max(pc.binary_length(values.dictionary)).as_py()
                lengths[path] = longest or 0
    return lambda c: (
        c.total_uncompressed_size
        if "DELTA_BYTE_ARRAY" in c.encodings
        else lengths.get(c.path_in_schema, c.total_uncompressed_size)
    )


def _leaves(batch: pa.RecordBatch) -> Iterator[tuple[str, Any]]:
    """Yields path, as Parquet has it, and innermost values of each column."""
    todo = [(name, batch.column(name)) for name in batch.schema.names]
    while todo:
        path, values = todo.pop()
        if pa.types.is_struct(values.type):
            todo += [(f"{path}.{f.name}", values.field(f.name)) for f in values.type]
        elif pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type):
            todo.append((f"{path}.list.element", values.values))
        else:
            yield path, values
