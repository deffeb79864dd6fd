"""Reads sizes and encodings of columns from the footer of a Parquet file.

pyarrow 25 ends the process ("terminate called") when asked about a column with a damaged footer.
The format is Thrift's compact protocol, and `parquet.thrift` of parquet-format.
"""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO, NamedTuple

_MOST_VALUES = 4_000_000
"""Values of a footer: 2,000 row groups of 50 columns, which take seconds to read."""
_MOST_DEPTH = 16
_BYTE_ARRAY, _FIXED = 6, 7
_WIDTHS = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8}
"""Bytes of a value by the number of its physical type."""
_DICTIONARIES, _DELTA_BYTE_ARRAY = {2, 8}, 7


class Chunk(NamedTuple):
    """Describes the values of a column in one row group.

    Attributes:
        group: number of the row group.
        path: names of the column and of the fields in it, joined by points.
        values: number of values, including those in lists.
        width: bytes of a value; 0 for texts.
        bytes: size of its unpacked pages.
        has_dictionary: values may be numbers of entries in a dictionary.
        has_prefixes: values may share the beginning of the value before them.
    """

    group: int
    path: str
    values: int
    width: int
    bytes: int
    has_dictionary: bool
    has_prefixes: bool


def chunks_of(source: BinaryIO) -> list[Chunk]:
    """Reads the footer of an open file.

    Raises:
        ValueError: the footer is damaged, or larger than any of ours.
    """
    size = source.seek(0, io.SEEK_END)
    source.seek(max(size - 8, 0))
    tail = source.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > size - 8:
        raise ValueError("it has no footer")
    source.seek(size - 8 - length)
    try:
        footer = _Reader(source.read(length)).struct(0)
        leaves = [element for element in footer[2] if not element.get(5)]
        return [
            _chunk(number, column[3], leaf)
            for number, group in enumerate(footer[4])
            for column, leaf in zip(group[1], leaves, strict=True)
        ]
    except (KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise ValueError(f"its footer is damaged: {error!r}") from error


def _chunk(group: int, column: dict[int, Any], leaf: dict[int, Any]) -> Chunk:
    type_, encodings = column[1], set(column[2])
    values, unpacked = column[5], column[6]
    width = 0 if type_ == _BYTE_ARRAY else leaf[2] if type_ == _FIXED else _WIDTHS[type_]
    if min(values, unpacked, width) < 0:
        raise ValueError("its footer has numbers below 0")
    return Chunk(
        group,
        b".".join(column[3]).decode(),
        values,
        width,
        unpacked,
        bool(encodings & _DICTIONARIES) or 11 in column,
        _DELTA_BYTE_ARRAY in encodings,
    )


class _Reader:
    """Reads values of the compact protocol: structs as dicts by field number."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._count = 0

    def struct(self, depth: int) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        if depth > _MOST_DEPTH:
            raise ValueError("its footer is too deep")
        while head := self._byte():
            type_id, delta = head & 15, head >> 4
            number = number + delta if delta else self._integer()
            # A truth value is its kind (1 or 2), except in lists.
            fields[number] = type_id == 1 if type_id in (1, 2) else self._value(type_id, depth)
        return fields

    def _value(self, type_id: int, depth: int) -> Any:
        self._count += 1
        if self._count > _MOST_VALUES:
            raise ValueError("its footer is too large")
        if type_id in (1, 2, 3):
            return self._byte()
        if type_id in (4, 5, 6):
            return self._integer()
        if type_id == 7:
            return struct.unpack("<d", self._bytes(8))[0]
        if type_id == 8:
            return self._bytes(self._unsigned())
        if type_id in (9, 10):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._unsigned()
            return [self._value(head & 15, depth + 1) for _ in range(size)]
        if type_id == 12:
            return self.struct(depth + 1)
        raise ValueError(f"its footer has a value of the kind {type_id}")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, length: int) -> bytes:
        self._at += length
        if self._at > len(self._data):
            raise ValueError("its footer ends too early")
        return self._data[self._at - length : self._at]

    def _unsigned(self) -> int:
        value = shift = 0
        while shift < 70:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise ValueError("its footer has a number that is too long")

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
