"""Asking a server that may be busy or away for a while."""

from __future__ import annotations

import errno
import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from beam_flowers.errors import UnreachableError

Answer = TypeVar("Answer")

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE = 8.0
_BETWEEN_MESSAGES = 5.0
_REST = 10.0


@dataclass
class Retries:
    """Makes requests to one server again while it is busy or away; safe to use from many threads.

    Attributes:
        server: its address, for messages.
        is_passing: whether an error may pass; any other one is an answer.
        describe: an error in one line.
        is_there: asks the server for something simple.
        patience: seconds for which a request is made again.
        first_patience: the same while the server has never answered: then its address is
            more likely to be wrong.
    """

    server: str
    is_passing: Callable[[Exception], bool]
    describe: Callable[[Exception], str]
    is_there: Callable[[], bool]
    patience: float = 120.0
    first_patience: float = 15.0
    _answered: bool = field(default=False, init=False)
    _silent_since: float | None = field(default=None, init=False)
    _gone_at: float | None = field(default=None, init=False)
    _said_at: float = field(default=-_BETWEEN_MESSAGES, init=False)

    def ask(self, what: str, request: Callable[[], Answer]) -> Answer:
        """The answer to `request`.

        Args:
            what: is asked for, for messages.
            request: called until it returns or raises an error that will not pass.

        Raises:
            UnreachableError: the server does not answer at all.
            OSError: it answers, but not this request.
        """
        began: float | None = None
        for pause in _pauses():
            self._refuse_if_gone()
            try:
                answer = request()
            except Exception as error:
                if not self.is_passing(error):
                    self._note_answer()
                    raise
                began = began or time.monotonic()
                self._wait_or_give_up(what, error, began, pause)
            else:
                self._note_answer()
                return answer
        raise AssertionError("the pauses never end")

    def _note_answer(self) -> None:
        self._answered, self._silent_since, self._gone_at = True, None, None

    def _refuse_if_gone(self) -> None:
        # Whatever else is waiting in this process need not find out for itself.
        if self._gone_at is not None and time.monotonic() < self._gone_at + _REST:
            raise UnreachableError(self._gone())

    def _wait_or_give_up(self, what: str, error: Exception, began: float, pause: float) -> None:
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        patience = self.patience if self._answered else self.first_patience
        left = min(began, self._silent_since) + patience - now
        reason = self.describe(error)
        if left <= pause:
            self._give_up(what, reason, error)
        if now >= self._said_at + _BETWEEN_MESSAGES:
            self._said_at = now
            _LOG.warning("%s: %s; trying again for up to %.0f seconds", what, reason, left)
        time.sleep(pause)

    def _give_up(self, what: str, reason: str, error: Exception) -> None:
        if self.is_there():
            self._note_answer()
            raise OSError(errno.EIO, f"{reason} (again and again)", what) from error
        self._gone_at = time.monotonic()
        raise UnreachableError(f"{self._gone()}; the last answer for {what}: {reason}") from error

    def _gone(self) -> str:
        waited = self.patience if self._answered else self.first_patience
        return (
            f"{self.server} has not answered for {waited:.0f} seconds; check its address and the "
            "network, then run this again: it goes on from what is finished"
        )


def _pauses() -> Iterator[float]:
    """Seconds to wait between tries, growing, by chance a little different for each thread."""
    for attempt in itertools.count():
        yield min(_LONGEST_PAUSE, 0.25 * 2 ** min(attempt, 10)) * random.uniform(0.5, 1)
