"""The one way to a new version of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from beam_flowers.errors import PartLostError, StoreError
from beam_flowers.store.commits import Manifest, latest, publish

TRIES = 20
"""Number of tries of a writer while others commit first."""

T = TypeVar("T")


def until_committed(
    root: str,
    attempt: Callable[[Manifest], T | None],
    others: Sequence[str] = (),
    retried: type[Exception] = PartLostError,
) -> T:
    """Finishes the newest version and builds on it, again as long as others commit first.

    Args:
        root: the table's folder.
        attempt: takes the newest version and commits the next one. Returns None if another
            writer was first.
        others: folders of other tables that `attempt` reads.
        retried: errors that are worth another try if one of the tables has a new version by
            then, as its writer may have replaced a part under this one's hands.

    Returns:
        The result of the attempt that committed.

    Raises:
        StoreError: others were first each time.
    """
    for _ in range(TRIES):
        publish(root)
        base = latest(root)
        read = [latest(other).version for other in others]
        try:
            result = attempt(base)
        except retried:
            now = [latest(other).version for other in others]
            if latest(root).version == base.version and now == read:
                raise
            continue
        if result is not None:
            return result
    raise StoreError(f"{root}: other writers were first {TRIES} times; run this again")
