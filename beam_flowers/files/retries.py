"""Repeats requests to a server that is busy or away for a while."""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from beam_flowers.errors import UnreachableError

Answer = TypeVar("Answer")

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE = 8.0
_BETWEEN_MESSAGES = 5.0
_REST = 10.0
"""Seconds for which a server that was given up is not asked again."""


@dataclass
class Retries:
    """Repeats requests to one server while it is busy or away; safe to use from many threads.

    Attributes:
        server: address of the server, for messages.
        is_passing: tells if an error may pass; any other error is an answer.
        describe: returns an error as one line.
        is_there: tells if the server answers a simple request.
        patience: seconds for which a request is repeated.
        first_patience: the same before the first answer of the server; its address is then more
            likely to be wrong.
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
    _warned_at: float = field(default=-_BETWEEN_MESSAGES, init=False)

    def ask(self, uri: str, request: Callable[[], Answer]) -> Answer:
        """Returns the answer to `request`.

        Args:
            uri: the file of the request, for messages.
            request: called until it returns or raises an error that will not pass.

        Raises:
            UnreachableError: the server does not answer at all.
            OSError: it answers, but not this request.
        """
        began: float | None = None
        attempt = 0
        while True:
            # One thread has waited in vain; the others need not wait as long.
            if self._gone_at is not None and time.monotonic() < self._gone_at + _REST:
                raise UnreachableError(self._gone())
            try:
                answer = request()
            except Exception as error:
                if not self.is_passing(error):
                    self._note_answer()
                    raise
                began = began or time.monotonic()
                # Random, so that threads do not ask all at once.
                pause = min(_LONGEST_PAUSE, 0.25 * 2**attempt) * random.uniform(0.5, 1)
                self._wait_or_give_up(uri, error, began, pause)
                attempt = min(attempt + 1, 10)
            else:
                self._note_answer()
                return answer

    def _note_answer(self) -> None:
        self._answered, self._silent_since, self._gone_at = True, None, None

    def _wait_or_give_up(self, uri: str, error: Exception, began: float, pause: float) -> None:
        now = time.monotonic()
        self._silent_since = self._silent_since or now
        patience = self.patience if self._answered else self.first_patience
        left = min(began, self._silent_since) + patience - now
        reason = self.describe(error)
        if left <= pause:
            self._give_up(uri, reason, error)
        if now >= self._warned_at + _BETWEEN_MESSAGES:
            self._warned_at = now
            _LOG.warning("%s: %s; trying again for up to %.0f seconds", uri, reason, left)
        time.sleep(pause)

    def _give_up(self, uri: str, reason: str, error: Exception) -> None:
        if self.is_there():
            self._note_answer()
            raise OSError(errno.EIO, f"{reason} (again and again)", uri) from error
        self._gone_at = time.monotonic()
        raise UnreachableError(f"{self._gone()}; the last answer for {uri}: {reason}") from error

    def _gone(self) -> str:
        waited = self.patience if self._answered else self.first_patience
        return (
            f"{self.server} has not answered for {waited:.0f} seconds; check its address and the "
            "network, then run this again: it goes on from what is finished"
        )
