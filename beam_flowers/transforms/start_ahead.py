"""Starts work on threads before the results of earlier work are awaited."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Started = TypeVar("Started")
Result = TypeVar("Result")


class StartAhead(Generic[Started, Result]):
    """Awaits started work in its order, one piece behind what is started.

    While a result is fetched and written, the threads have the next piece: a step that waits for
    each piece before it starts another leaves them idle in between. One is kept for each bundle.

    Args:
        finish: waits for started work and returns its result.
        ahead: pieces that are on the threads while one is awaited.
    """

    def __init__(self, finish: Callable[[Started], Result], ahead: int = 1) -> None:
        self._finish = finish
        self._ahead = ahead
        self._started: deque[Started] = deque()

    def add(self, started: Started) -> Iterator[Result]:
        """Takes work that was started, and yields the results that are due."""
        self._started.append(started)
        while len(self._started) > self._ahead:
            yield self._finish(self._started.popleft())

    def rest(self) -> Iterator[Result]:
        """Yields the results of all that is left."""
        while self._started:
            yield self._finish(self._started.popleft())
