"""Shows the progress of a run on standard error, as a bar, lines or JSON, and its summary."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from beam_flowers.cli import screen
from beam_flowers.files.text import without_secrets

if TYPE_CHECKING:
    from beam_flowers.workflows.progress import Progress, ProgressState
    from beam_flowers.workflows.summary import EmbedSummary

FORMS = ("auto", "bar", "lines", "json", "none")
_TICK = 0.2
_FIRST_LINE, _BETWEEN_LINES = 1.0, 10.0
_BETWEEN_OBJECTS = 1.0
_COLUMNS, _BAR = 80, 20
_WITH_BAR = f"{{percentage:3.0f}}%|{{bar:{_BAR}}}| {{desc}}"


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Adds `--progress`."""
    parser.add_argument(
        "--progress",
        choices=FORMS,
        default="auto",
        help="how far the run is, on standard error: a bar, a line every 10 s, or a JSON object a "
        "line, with warnings, errors and the summary as objects as well (default auto: a bar on "
        "a terminal, else lines)",
    )


def in_words(state: ProgressState) -> str:
    """Returns a state as a line."""
    done = f"{state.done:,}" if state.total is None else f"{state.done:,} of {state.total:,}"
    words = [f"{state.stage}: {done}" if state.done or state.total else state.stage]
    words.append(f"{state.rate:,.1f}/s" if state.rate else f"{duration(state.seconds)} so far")
    if state.remaining:
        words.append(f"{duration(state.remaining)} left")
    if state.rejects:
        words.append(f"{state.rejects:,} rejected")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Seconds as `42 s`, `3:20 min` or `2:05 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def as_dict(state: ProgressState) -> dict[str, Any]:
    """Returns a state as JSON values; rates in files a second, times in seconds."""
    numbers = {"rate": state.rate, "remaining": state.remaining, "seconds": state.seconds}
    return {
        "event": "progress",
        "stage": state.stage,
        "done": state.done,
        "total": state.total,
        "rejects": state.rejects,
        **{name: value and round(value, 2) for name, value in numbers.items()},
    }


class Form(Protocol):
    """Shows progress in one form."""

    def show(self, state: ProgressState, seconds: float) -> None:
        """Shows a state, `seconds` after the start of the run. It is called often."""

    def close(self) -> None: ...


class Nothing:
    """Shows no progress."""

    def show(self, state: ProgressState, seconds: float) -> None: ...
    def close(self) -> None: ...


class Lines:
    """Prints a line after a second, then one every ten."""

    def __init__(self) -> None:
        self._next = _FIRST_LINE

    def show(self, state: ProgressState, seconds: float) -> None:
        if seconds >= self._next:
            self._next = seconds + _BETWEEN_LINES
            print(in_words(state), file=sys.stderr, flush=True)

    def close(self) -> None: ...


class Objects:
    """Prints a JSON object for each new stage, and one a second."""

    def __init__(self) -> None:
        self._next = 0.0
        self._stage = ""
        screen.SCREEN.take(lambda kind, message: print_object(event=kind, message=message))

    def show(self, state: ProgressState, seconds: float) -> None:
        if seconds >= self._next or state.stage != self._stage:
            self._next, self._stage = seconds + _BETWEEN_OBJECTS, state.stage
            print_object(**as_dict(state))

    def close(self) -> None: ...


def print_object(**values: Any) -> None:
    """Prints a line of JSON on standard error."""
    print(without_secrets(json.dumps(values)), file=sys.stderr, flush=True)


class Bar:
    """Draws one line that changes, and clears it at the end."""

    def __init__(self) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0
        # A width of its own: of a terminal that does not know its size tqdm shows nothing.
        self._bar = tqdm(
            file=sys.stderr,
            disable=False,
            leave=False,
            ncols=_COLUMNS,
            nrows=2,
            bar_format="{desc}",
        )
        screen.SCREEN.take(self._write, self._print)

    def _write(self, kind: str, message: str) -> None:
        self._bar.write(screen.line(kind, message), file=sys.stderr)

    def _print(self, text: str) -> None:
        self._bar.write(text, file=sys.stdout)

    def show(self, state: ProgressState, seconds: float) -> None:
        self._bar.total, self._bar.n = state.total, state.done
        self._bar.ncols = _columns()
        self._bar.bar_format = _WITH_BAR if state.total else "{desc}"
        beside = len("100%|| ") + _BAR if state.total else 0
        self._bar.set_description_str(in_words(state)[: self._bar.ncols - beside - 1])

    def close(self) -> None:
        screen.SCREEN.release()
        self._bar.close()


def _columns() -> int:
    with contextlib.suppress(OSError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    return _COLUMNS


def _form(name: str) -> Form:
    if name == "auto":
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        name = "bar" if terminal else "lines"
    forms: dict[str, Callable[[], Form]]
    forms = {"bar": Bar, "lines": Lines, "json": Objects, "none": Nothing}
    return forms[name]()


@contextlib.contextmanager
def shown(name: str) -> Iterator[Progress]:
    """Gives the body a progress, which is shown in the form of a name."""
    from beam_flowers.workflows.progress import Progress

    progress, form, ended = Progress(), _form(name), threading.Event()
    showing = threading.Thread(target=_show, args=(progress, form, ended), daemon=True)
    showing.start()
    try:
        yield progress
    finally:
        progress.begin("done")
        ended.set()
        showing.join()
        form.close()


def _show(progress: Progress, form: Form, ended: threading.Event) -> None:
    begun = time.monotonic()
    while True:
        form.show(progress.state(), time.monotonic() - begun)
        if ended.wait(_TICK):
            return


def conclude(
    arguments: argparse.Namespace,
    summary: EmbedSummary,
    progress: Progress,
    places: Mapping[str, str],
    following: str,
) -> None:
    """Says what a run came to: counts, reasons, time, where all lies and what to run next.

    Args:
        arguments: with the flag of `add_progress`.
        summary: of the run.
        progress: of it, ended.
        places: what was written, by kind.
        following: command line.
    """
    lies = ", ".join(f"{kind}: {screen.visible(place)}" for kind, place in places.items())
    seconds = {name: round(value, 2) for name, value in progress.seconds.items()}
    computing = seconds.get("computing", 0.0)
    speed = summary.embedded / computing if summary.embedded and computing else None
    print(f"{summary} ({lies})")
    if summary.details:
        print(summary.details)
    if summary.replaced:
        print(_replaced(summary.replaced, next(iter(places.values()))))
    stages = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
    print(f"seconds by the clock: {stages}" + (f"; {speed:.1f} images/s" if speed else ""))
    print(f"next: {screen.visible(following)}")
    if arguments.progress == "json":
        counts = {
            n: v for n, v in vars(summary).items() if n not in ("seconds", "copied", "answers")
        }
        timing = {"seconds": seconds, "rate": speed and round(speed, 2), "next": following}
        print_object(event="summary", **counts, **timing, **places)


def _replaced(number: int, table: str) -> str:
    """Tells how much room replaced parts take, and how they go."""
    from beam_flowers.pages.format import size
    from beam_flowers.store.commits import RETENTION

    # The newest two versions stay in any case: readers may be at the one before the newest.
    return (
        f"replaced parts of {size(number)} stay beside the new ones for {RETENTION / 86_400:.0f} "
        "days, so that older versions can be read; once one more version is committed, "
        f"`beam-flowers vacuum {screen.visible(shlex.quote(table))} --older-than 0` deletes them"
    )
