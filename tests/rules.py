"""The rules by which rows come, change and leave, told once more and in few words.

Nothing here reads a table: `tests/runs/test_random_operations.py` compares what is there with it.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Known(NamedTuple):
    """A row or a reject as a table should have it."""

    root: str
    label: str
    content: bytes
    size: int
    modified: int

    @property
    def is_image(self) -> bool:
        """Tells a row from a reject."""
        return self.content.startswith(b"\xff\xd8")

    @property
    def seen(self) -> tuple[int, int]:
        """What a run compares before it trusts a row."""
        return self.size, self.modified

    @property
    def shown(self) -> tuple[str, ...]:
        """What a table of vectors has of it."""
        if self.is_image:
            return self.root, self.label, digest(self.content)
        return "reject", digest(self.content)

    @property
    def scored(self) -> tuple[str, ...]:
        """What a table of scores has of it."""
        return (() if self.is_image else ("reject",)) + (digest(self.content),)


Rows = Mapping[str, Known]
"""By uri."""
Change = Callable[[Rows], Rows]
"""What a run makes of a table's rows."""


@functools.cache
def digest(content: bytes) -> str:
    """Returns the sha256 of a file."""
    return hashlib.sha256(content).hexdigest()


class Look(NamedTuple):
    """What a run over a root sees, and how much it trusts.

    Attributes:
        root: that is listed.
        found: all that lies there, by uri.
        present: roots that are there.
        verify: no stored row is trusted.
        retry: rejects are tried again.
    """

    root: str
    found: Rows
    present: frozenset[str]
    verify: bool = False
    retry: bool = False

    def trusts(self, had: Known | None, now: Known) -> bool:
        """Tells if a stored row is taken for what is there."""
        if had is None or self.verify or had.seen != now.seen:
            return False
        return had.is_image or not self.retry


def embedded(look: Look, rows: Rows, found: Rows | None = None) -> Rows:
    """Returns the rows after `embed`; `found` is what is listed, if not all that was seen."""
    now = {uri: row for uri, row in rows.items() if not uri.startswith(f"{look.root}/")}
    for uri, seen in (look.found if found is None else found).items():
        had = rows.get(uri)
        now[uri] = seen._replace(content=had.content) if had and look.trusts(had, seen) else seen
    listed = {row.content for row in now.values() if row.root == look.root and row.is_image}
    return {
        uri: row
        for uri, row in now.items()
        if row.root in look.present or row.content not in listed
    }


def labelled(look: Look, rows: Rows) -> Rows:
    """Returns the rows of a table of scores after `score` of a root."""
    return {
        uri: rows[uri] if look.trusts(rows.get(uri), seen) else seen
        for uri, seen in look.found.items()
    }


def kept_beside(look: Look, collection: Rows, rows: Rows) -> Rows:
    """Returns the vectors of images only scored, after `score` of a root with a store."""
    lacking = {u: s for u, s in look.found.items() if not look.trusts(collection.get(u), s)}
    return embedded(look, rows, lacking)


def labelled_with(look: Look, collection: Rows, beside: Rows) -> Rows:
    """Returns the rows of a table of scores after `score` of a root with a store.

    Args:
        look: at the root.
        collection: of the store.
        beside: the images only scored, after that run.
    """
    return {
        uri: collection[uri] if look.trusts(collection.get(uri), seen) else beside[uri]
        for uri, seen in look.found.items()
    }


@dataclass
class Table:
    """One section of one table as it should be.

    Attributes:
        rows: of its newest version.
        begun: what killed runs wanted to commit, which whoever comes next may do.
        left: contents that killed runs have read, and whose vectors wait for the next run.
        superseded: those of which a later run has made rows. Their vectors still lie in `__work`,
            so they count again once these rows are taken out.
    """

    rows: Rows = field(default_factory=dict)
    begun: list[Change] = field(default_factory=list)
    left: dict[str, list[Known]] = field(default_factory=dict)
    superseded: dict[str, list[Known]] = field(default_factory=dict)

    def starts(self) -> list[Rows]:
        """Returns the states that it may have now."""
        states = [self.rows]
        for change in self.begun:
            states += [change(state) for state in states]
        return distinct(states)

    def leave(self, found: Rows) -> None:
        """Notes that a run was killed that had looked at files."""
        for uri, row in found.items():
            held = self.left.setdefault(uri, [])
            if row not in held:
                held.append(row)

    def supersede(self, uris: Iterable[str]) -> None:
        """Notes that a run ended well that had looked at files."""
        for uri in uris:
            self.superseded.setdefault(uri, []).extend(self.left.pop(uri, []))

    def revive(self) -> None:
        """Notes that rows may be gone of which vectors lie in `__work`."""
        for uri, held in self.superseded.items():
            self.left.setdefault(uri, []).extend(held)
        self.superseded = {}

    def forget(self, root: str) -> None:
        """Takes a root out, also of what killed runs have begun to commit."""
        self.revive()
        self.rows = without(root, self.rows)
        self.begun = [functools.partial(_without_after, root, change) for change in self.begun]

    def settle(
        self,
        states: Iterable[Rows],
        found: Mapping[str, tuple[str, ...]],
        shown: Callable[[Known], tuple[str, ...]],
        *,
        trusts_left: bool,
    ) -> None:
        """Takes for true what is found, if it is one of the states that may be.

        Args:
            states: that may be.
            found: what the table has of each file.
            shown: tells what that should be of a row.
            trusts_left: a row may also be of what killed runs have read, where it looks the same.

        Raises:
            AssertionError: it is none of them.
        """
        states = distinct(states)
        for state in states:
            if state.keys() != found.keys():
                continue
            held = {
                uri: self._held(uri, row, found[uri], shown, trusts_left)
                for uri, row in state.items()
            }
            if all(held.values()):
                self.rows = {uri: row for uri, row in held.items() if row}
                return
        has = set(found.items())
        wanted = [{(uri, shown(row)) for uri, row in state.items()} for state in states]
        differences = [(sorted(state - has), sorted(has - state)) for state in wanted]
        raise AssertionError(f"no version that may be, (missing, too much): {differences}")

    def _held(
        self,
        uri: str,
        row: Known,
        found: tuple[str, ...],
        shown: Callable[[Known], tuple[str, ...]],
        trusts_left: bool,
    ) -> Known | None:
        left = self.left.get(uri, []) if trusts_left else []
        others = (other._replace(root=row.root, label=row.label) for other in left)
        may = [row, *(other for other in others if other.seen == row.seen)]
        return next((each for each in may if shown(each) == found), None)


def without(root: str, rows: Rows) -> Rows:
    """Returns the rows of all other roots."""
    return {uri: row for uri, row in rows.items() if row.root != root}


def _without_after(root: str, change: Change, rows: Rows) -> Rows:
    return without(root, change(rows))


def distinct(states: Iterable[Rows]) -> list[Rows]:
    """Returns the states without those that are there before."""
    held: list[Rows] = []
    for state in states:
        if state not in held:
            held.append(state)
    return held


def passed(starts: Sequence[Rows], sure: Sequence[Change], unsure: Sequence[Change]) -> list[Rows]:
    """Returns all states that a table may pass through while runs change it in any order.

    Args:
        starts: states before.
        sure: changes of runs that end well.
        unsure: of runs that are killed.
    """
    return distinct(state for states in _ways(starts, sure, unsure) for state in states)


def ended(starts: Sequence[Rows], sure: Sequence[Change], unsure: Sequence[Change]) -> list[Rows]:
    """Returns the last states of `passed`."""
    return distinct(states[-1] for states in _ways(starts, sure, unsure))


def _ways(
    starts: Sequence[Rows], sure: Sequence[Change], unsure: Sequence[Change]
) -> Iterator[list[Rows]]:
    for count in range(len(unsure) + 1):
        for some in itertools.combinations(unsure, count):
            for order in itertools.permutations([*sure, *some]):
                for start in starts:
                    states = [start]
                    for change in order:
                        states.append(change(states[-1]))
                    yield states
