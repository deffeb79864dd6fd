"""Lines in harmony with a bar; those on standard error escaped, or in a stream of JSON there."""

from __future__ import annotations

import io
import logging
import sys
import unicodedata
from collections.abc import Callable
from typing import TextIO

from beam_flowers.files.text import visible as visible
from beam_flowers.files.text import without_secrets
from beam_flowers.records import Say

Writer = Callable[[str, str], None]


def cells(text: str) -> int:
    """Columns of a terminal that `text` takes: Chinese characters two, combining accents none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def padded(text: str, width: int) -> str:
    """Returns `text` padded with spaces to `width` columns."""
    return text + " " * (width - cells(text))


def line(kind: str, message: str) -> str:
    """Returns the line on the screen for a `warning` or an `error`."""
    return f"{'beam-flowers' if kind == 'error' else kind}: {visible(message)}"


def plain(kind: str, message: str) -> None:
    """Writes a line."""
    print(line(kind, message), file=sys.stderr, flush=True)


def plain_output(text: str) -> None:
    """Prints on standard output."""
    print(text, flush=True)


class Screen:
    """Prints lines for the user, in the way of the progress that is shown."""

    def __init__(self) -> None:
        self.release()

    def take(self, writer: Writer, printer: Say = plain_output) -> None:
        """Has all further lines written by `writer`, and all further output by `printer`."""
        self._writer, self._printer = writer, printer

    def release(self) -> None:
        """Has all further lines and output printed as they are."""
        self.take(plain)

    def say(self, kind: str, message: str) -> None:
        """Prints a line for the user, a `warning` or an `error`."""
        self._writer(kind, without_secrets(message))

    def tell(self, text: str) -> None:
        """Prints a line of a run's output, while its progress is shown."""
        self._printer(text)


SCREEN = Screen()
"""The screen of the process: its log and all of its commands write to one terminal."""
say, tell = SCREEN.say, SCREEN.tell


class Escaped(io.TextIOBase):
    """Writes to standard output; hides secrets and escapes control characters."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(visible(without_secrets(text), kept="\n\t"))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


_LEVELS = {"beam_flowers": logging.WARNING, "apache_beam": logging.CRITICAL}


class Handler(logging.Handler):
    """Prints grave log records as warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= _LEVELS.get(record.name.partition(".")[0], logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        say("warning", record.getMessage())
