"""Rows of a Parquet file from anyone, read by a process of its own: see `parquet_process`.

That process writes messages on its standard output. Each is a `HEADER` and, but for `ASK`, as many
bytes of JSON as its first number says. `ASK` wants bytes of the file, the first number says from
where on and the second how many; its standard input then has their `COUNT` and them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from beam_flowers.errors import InputError
from beam_flowers.images.memory_gate import memory_limit

HEADER = struct.Struct("<cQQ")
COUNT = struct.Struct("<Q")
ASK, ROWS, FAILED, END = b"A", b"R", b"F", b"E"
"""Kinds of messages: bytes are wanted; rows, as columns; what is wrong; there are no more."""

# As decoder processes are started, see `backbones.decoders`.
_PROGRAM = (
    "import sys; size, memory, *names = sys.argv[1:5]; sys.path[:] = sys.argv[5:]; "
    "from beam_flowers.images.parquet_process import main; "
    "main(int(size), int(memory), *(several.split(',') for several in names))"
)
_MOST_MEMORY = 1 << 30


def parquet_rows(
    file: BinaryIO, addresses: Sequence[str], others: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The cells of those of the named columns that a file has, row by row: text or integers.

    It takes at most 1 GiB, or a quarter of what this process may use if that is less. Only Linux
    holds it to that.

    Args:
        file: open, seekable.
        addresses: names of columns, of which the file has one at least.
        others: names of more columns.

    Raises:
        InputError: this is no such Parquet file, or takes too much; without the file's name.
        OSError: the file cannot be read.
    """
    memory = min(_MOST_MEMORY, memory_limit() // 4)
    size = file.seek(0, os.SEEK_END)
    given = [str(size), str(memory), ",".join(addresses), ",".join(others)]
    command = [sys.executable, "-c", _PROGRAM, *given, *sys.path]
    # Other allocators reserve more than they use, and BLAS a stack for each core.
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1"}
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, env=environment)
    requests, answers = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
    try:
        yield from _conversation(file, requests, answers)
    except (EOFError, BrokenPipeError, KeyError, ValueError):
        # The last two are of messages that make no sense: its memory is broken.
        process.kill()
        raise InputError(
            "it cannot be read as Parquet: it ends the process that reads it "
            f"({_name(process.wait())}); write it anew, or as CSV or JSON lines"
        ) from None
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(BrokenPipeError):
            requests.close()
        answers.close()


def _conversation(
    file: BinaryIO, requests: BinaryIO, answers: BinaryIO
) -> Iterator[dict[str, Any]]:
    while True:
        kind, first, second = HEADER.unpack(_read(answers, HEADER.size))
        if kind == ASK:
            file.seek(first)
            data = file.read(second)
            requests.write(COUNT.pack(len(data)) + data)
            requests.flush()
            continue
        content = json.loads(_read(answers, first))
        if kind == FAILED:
            raise InputError(str(content))
        if kind == END:
            return
        if kind != ROWS:
            raise ValueError(kind)
        names = list(content)
        for cells in zip(*content.values(), strict=True):
            yield dict(zip(names, cells, strict=True))


def _read(answers: BinaryIO, size: int) -> bytes:
    found = answers.read(size)
    if len(found) < size:
        raise EOFError
    return found


def _name(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit code {status}"
