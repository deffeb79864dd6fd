"""Builds new versions of a table while other writers commit theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from beam_flowers.errors import PartLostError, StoreError
from beam_flowers.store.commits import Manifest, latest, publish

TRIES = 20
"""Most tries of a writer while others commit first."""

T = TypeVar("T")


class Race:
    """Counts the tries of a writer, and tells if another writer was first.

    Args:
        root: the table's folder.
        others: folders of other tables that the writer reads.
    """

    def __init__(self, root: str, others: Sequence[str] = ()) -> None:
        self._root, self._others = root, others
        self._tries = 0

    def start(self) -> Manifest:
        """Finishes the newest version of the table and returns it, to be built on.

        Raises:
            StoreError: others were first each time.
        """
        if self._tries == TRIES:
            raise StoreError(
                f"{self._root}: other writers were first {TRIES} times; run this again"
            )
        self._tries += 1
        publish(self._root)
        base = latest(self._root)
        self._version, self._read = base.version, self._versions_of_others()
        return base

    def is_lost(self) -> bool:
        """Tells if one of the tables has a new version since the last `start`.

        The writer of that version may have replaced a part while this one was read.
        """
        now = self._versions_of_others()
        return latest(self._root).version != self._version or now != self._read

    def _versions_of_others(self) -> list[int]:
        return [latest(other).version for other in self._others]


def until_committed(root: str, attempt: Callable[[Manifest], T | None]) -> T:
    """Builds on the newest version of a table, and begins again while others commit first.

    Args:
        root: the table's folder.
        attempt: takes the newest version and commits the next one. Returns None if another
            writer was first. After a `PartLostError` it is called again if the table has a new
            version by then.

    Returns:
        The result of the attempt that committed.

    Raises:
        StoreError: others were first each time.
    """
    race = Race(root)
    while True:
        base = race.start()
        try:
            result = attempt(base)
        except PartLostError:
            if not race.is_lost():
                raise
            continue
        if result is not None:
            return result
