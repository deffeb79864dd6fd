"""Reads the rows of an untrusted Parquet file by a separate process: see `parquet_process`.

That process writes messages on its standard output. Each is a `HEADER` and, except for `ASK`, JSON
of as many bytes as its first number. `ASK` requests bytes of the file: the first number is their
offset, the second their number. The answer on its standard input is their `COUNT` and the bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, cast

from beam_flowers.errors import InputError
from beam_flowers.images.child_process import status_name
from beam_flowers.images.memory_gate import memory_limit

HEADER = struct.Struct("<cQQ")
COUNT = struct.Struct("<Q")
ASK, ROWS, FAILED, END = b"A", b"R", b"F", b"E"
"""Kinds of messages: a request for bytes; rows, as columns; an error; the end of the rows."""

ALL = "*"
"""Name for all further columns of text, numbers or truth values, each as JSON has it."""

# Started like decoder processes, see `backbones.decoders`.
_PROGRAM = (
    "import sys; size, memory, *names = sys.argv[1:5]; sys.path[:] = sys.argv[5:]; "
    "from beam_flowers.images.parquet_process import main; "
    "main(int(size), int(memory), *(several.split(',') for several in names))"
)
_MOST_MEMORY = 1 << 30


def parquet_rows(
    file: BinaryIO, addresses: Sequence[str], others: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yields the cells of a row by column, text or integers, for the named columns of the file.

    Takes at most 1 GiB of memory, or a quarter of this process' limit if that is less. Only Linux
    enforces this.

    Args:
        file: open, seekable.
        addresses: names of columns, at least one of which the file must have.
        others: names of optional columns; with `ALL` among them, of all that can be read.

    Raises:
        InputError: the Parquet file is damaged, lacks the columns or takes too much memory; the
            message does not name the file.
        OSError: the file cannot be read.
    """
    memory = min(_MOST_MEMORY, memory_limit() // 4)
    size = file.seek(0, os.SEEK_END)
    arguments = [str(size), str(memory), ",".join(addresses), ",".join(others)]
    command = [sys.executable, "-c", _PROGRAM, *arguments, *sys.path]
    # Other allocators reserve more memory than they use, and BLAS reserves a stack for each core.
    environment = os.environ | {"ARROW_DEFAULT_MEMORY_POOL": "system", "OPENBLAS_NUM_THREADS": "1"}
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, env=environment)
    requests, answers = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
    try:
        yield from _conversation(file, requests, answers)
    except (EOFError, BrokenPipeError, KeyError, ValueError):
        # KeyError and ValueError come from malformed messages: the process' memory is corrupt.
        process.kill()
        raise InputError(
            "it cannot be read as Parquet: it ends the process that reads it "
            f"({status_name(process.wait())}); write it anew, or as CSV or JSON lines"
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
        message, first, second = HEADER.unpack(_read(answers, HEADER.size))
        if message == ASK:
            file.seek(first)
            data = file.read(second)
            requests.write(COUNT.pack(len(data)) + data)
            requests.flush()
            continue
        content = json.loads(_read(answers, first))
        if message == FAILED:
            raise InputError(str(content))
        if message == END:
            return
        if message != ROWS:
            raise ValueError(message)
        names = list(content)
        for cells in zip(*content.values(), strict=True):
            yield dict(zip(names, cells, strict=True))


def _read(answers: BinaryIO, size: int) -> bytes:
    data = answers.read(size)
    if len(data) < size:
        raise EOFError
    return data
