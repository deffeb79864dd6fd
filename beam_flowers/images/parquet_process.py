"""Reads the rows of a Parquet file for another process, which outlives a crash and a bomb.

`parquet_rows` starts it and defines its messages. 500 bytes of Parquet may stand for gigabytes of
text, and a schema of 20,000 levels crashes its reader. Here both end only this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from beam_flowers.errors import InputError
from beam_flowers.files.ranges import RangedFile
from beam_flowers.images.child_process import open_answers
from beam_flowers.images.manifest_limits import MOST_CHARACTERS, require_plausible, too_long
from beam_flowers.images.parquet_rows import ALL, ASK, COUNT, END, FAILED, HEADER, ROWS

_ASKED = ("uri", "file_name", "path", "label", "split")
"""Columns whose type must be text; others of a known name are passed over if it is not."""
_ROWS_AT_A_TIME = 256
_BLOCK = 1 << 18
_SECONDS = 120
"""CPU time for one batch of rows, which takes milliseconds in a sound file."""


def main(size: int, memory: int, addresses: Sequence[str], others: Sequence[str]) -> None:
    """Writes the rows of a file to standard output, and asks for its bytes there.

    Args:
        size: bytes of the file.
        memory: bytes of memory that reading it may take.
        addresses: names of columns, at least one of which the file must have.
        others: names of optional columns.
    """
    answers = open_answers()
    _limit_memory(memory)
    with contextlib.suppress(BrokenPipeError):
        try:
            for batch in _batches(_Asked(answers, size), size, addresses, others):
                _send(answers, ROWS, batch)
            _send(answers, END, None)
        except InputError as error:
            _send(answers, FAILED, str(error))
        except MemoryError:  # Before the next clause: Arrow's error is of both classes.
            _send(
                answers,
                FAILED,
                f"reading it takes more than {memory >> 20:,} MiB of memory, as of texts of "
                "megabytes or of a page that is unpacked as a whole; write it anew in smaller row "
                "groups, or as CSV or JSON lines",
            )
        # Arrow raises any class for damaged bytes, and this process does nothing else.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            _send(answers, FAILED, f"it cannot be read as Parquet: {reason[:300]}")


def _send(answers: BinaryIO, message: bytes, content: Any) -> None:
    text = json.dumps(content).encode()
    answers.write(HEADER.pack(message, len(text), 0) + text)
    answers.flush()


class _Asked(RangedFile):
    """Reads a file by asking the parent process for its bytes."""

    def __init__(self, answers: BinaryIO, size: int) -> None:
        super().__init__(size)
        self._answers = answers

    def read_range(self, start: int, end: int) -> bytes:
        self._answers.write(HEADER.pack(ASK, start, end - start))
        self._answers.flush()
        head = sys.stdin.buffer.read(COUNT.size)
        if len(head) < COUNT.size:  # The parent process has ended.
            sys.exit()
        return sys.stdin.buffer.read(COUNT.unpack(head)[0])


def _batches(
    file: Any, size: int, addresses: Sequence[str], others: Sequence[str]
) -> Iterator[dict[str, list[Any]]]:
    _limit_seconds()
    seen = 0
    # With a buffer, a chunk of a column is read piece by piece and not at once.
    with pq.ParquetFile(file, buffer_size=_BLOCK, pre_buffer=False) as table:
        columns = _columns(table.schema_arrow, addresses, others)
        require_plausible(table.metadata.num_rows, size)
        batches = table.iter_batches(_ROWS_AT_A_TIME, columns=columns, use_threads=False)
        for batch in batches:
            _limit_seconds()
            cells = dict(zip(batch.schema.names, (c.to_pylist() for c in batch), strict=True))
            _require_short(cells, seen)
            seen += batch.num_rows
            require_plausible(seen, size)
            yield cells


def _columns(schema: pa.Schema, addresses: Sequence[str], others: Sequence[str]) -> list[str]:
    if not set(addresses) & set(schema.names):
        has = ", ".join(schema.names)
        names = f"{', '.join(addresses[:-1])} or {addresses[-1]}"
        raise InputError(f"no column {names}; it has {has[:300]}")
    present = [name for name in (*addresses, *others) if name in schema.names]
    if ALL in others:
        present += [f.name for f in schema if f.name not in present and _is_simple(f.type)]
    for name in list(present):
        types = [field.type for field in schema if field.name == name]
        if len(types) > 1:
            raise InputError(f"{len(types)} columns are named {name}; keep one")
        if not _is_text(types[0]) and name in _ASKED:
            raise InputError(f"{name} is of type {str(types[0])[:80]}; write text")
        # A column that happens to have such a name, as of the images themselves.
        if not _is_simple(types[0]) or (name in (*addresses, *others) and not _is_text(types[0])):
            present.remove(name)
    return present


def _is_simple(type_: pa.DataType) -> bool:
    return _is_text(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_)


def _is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    tests = ("string", "large_string", "string_view", "integer", "null")
    return any(getattr(pa.types, f"is_{test}")(type_) for test in tests)


def _require_short(cells: Mapping[str, Sequence[Any]], before: int) -> None:
    """Raises InputError for a text longer than any name, which also bounds the messages."""
    for name, column in cells.items():
        for number, cell in enumerate(column, start=before + 1):
            if isinstance(cell, str) and len(cell) > MOST_CHARACTERS:
                raise InputError(f"row {number:,}: {too_long(name, cell)}")


def _limit_memory(memory: int) -> None:
    """Lets this process take `memory` more bytes than it has, on Linux."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # Only Linux has it.
        return
    most = pages * os.sysconf("SC_PAGE_SIZE") + memory
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _limit_seconds() -> None:
    """Lets this process compute for `_SECONDS` more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime) + _SECONDS
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.getrlimit(resource.RLIMIT_CPU)[1]))
