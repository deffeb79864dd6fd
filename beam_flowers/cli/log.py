"""Sends what Beam, TensorFlow and C++ libraries print to a file, not to the screen."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from beam_flowers.errors import InputError, OutputError
from beam_flowers.files.private import private_folder
from beam_flowers.files.text import without_secrets

DEBUG = "BEAM_FLOWERS_DEBUG"
_MOST_BYTES = 8 * 2**20
_MOST_FILES = 10
_PAUSE = 2.0
_HEADER = "# log of beam-flowers"


def add_log(parser: argparse.ArgumentParser) -> None:
    """Adds `--verbose` and `--log-file`."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        help=f"show what Beam, TensorFlow and other libraries say, as {DEBUG}=1 does",
    )
    parser.add_argument(
        "--log-file",
        metavar="FILE",
        help="file for what they say otherwise; begun anew by each run and whenever it has grown "
        "to 8 MiB (default: a file of its own for each run in ~/.cache/beam-flowers/logs, of "
        "which the last 10 are kept)",
    )


class Wanted(argparse.Namespace):
    """Holds the flags of `add_log` that are needed before a command line is parsed."""

    verbose: bool = False
    log_file: str | None = None


def wanted(arguments: Sequence[str]) -> Wanted:
    """Reads `add_log`'s flags among all others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--log-file", "--log_file", nargs="?")
    found = parser.parse_known_args(_before_dashes(arguments), Wanted())[0]
    found.verbose = found.verbose or bool(os.environ.get(DEBUG))
    return found


def _before_dashes(arguments: Sequence[str]) -> list[str]:
    return list(arguments[: arguments.index("--")] if "--" in arguments else arguments)


def keep_off_the_screen(path: str | None) -> None:
    """Sends what this process and its children write to file descriptor 2 to a log.

    `sys.stderr` stays what it was.

    Args:
        path: of the log; None for one in the user's cache, or none at all if there is no such.

    Raises:
        InputError: it cannot be written.
        OutputError: it is something else than a log of this program.
    """
    target = _open(Path(path)) if path else _open_in_cache()
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    os.dup2(target, 2)
    os.close(target)
    threading.Thread(target=_bound, name="log", daemon=True).start()


def name() -> str | None:
    """Returns the path of the file that descriptor 2 writes to, or None for a file of others."""
    return str(_file) if _file else None


_file: Path | None = None


def _open(path: Path) -> int:
    global _file
    try:
        # Opening a pipe would wait for its reader.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OutputError(f"--log-file {path} is there and no file; give another name")
        target = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        begin = os.read(target, len(_HEADER))
        if begin and begin != _HEADER.encode():
            os.close(target)
            raise OutputError(
                f"--log-file {path} is there and no log of this program, which --overwrite does "
                "not replace either; give another name"
            )
        # It may be one of an earlier version, or made by hand.
        os.fchmod(target, 0o600)
        os.ftruncate(target, 0)
        os.write(target, f"{_HEADER}, {time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
    except OSError as error:
        raise InputError(
            f"--log-file {path} cannot be written: {error.strerror}; give another name"
        ) from error
    _file = path
    return target


def _open_in_cache() -> int:
    with contextlib.suppress(OSError, RuntimeError, InputError):
        folder = private_folder("logs", make=True)
        if folder is None:
            return os.open(os.devnull, os.O_WRONLY)
        for old in sorted(folder.glob("run-*.log"))[: 1 - _MOST_FILES]:
            old.unlink(missing_ok=True)
        atexit.register(_forget_empty)
        return _open(folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log")
    return os.open(os.devnull, os.O_WRONLY)


def _forget_empty() -> None:
    if _file and _file.exists() and _file.read_bytes().count(b"\n") <= 1:
        _file.unlink()


def _bound() -> None:
    while True:
        time.sleep(_PAUSE)
        if os.fstat(2).st_size > _MOST_BYTES:
            os.ftruncate(2, 0)
            os.write(2, f"{_HEADER}, begun anew at {_MOST_BYTES} bytes\n".encode())


class _Formatter(logging.Formatter):
    """Lines as `logging.basicConfig` has them, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def handler(stream: TextIO | None = None) -> logging.Handler:
    """Returns a handler of Python's log lines, to a stream or else to descriptor 2."""
    stream = stream or os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    found = logging.StreamHandler(stream)
    found.setFormatter(_Formatter(logging.BASIC_FORMAT))
    return found
