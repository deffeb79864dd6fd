"""Commits a section on top of versions that others committed meanwhile, if changes are disjoint."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers import files
from beam_flowers.errors import PartLostError, StoreError
from beam_flowers.store.changes import count_changes
from beam_flowers.store.commits import Manifest, Section, commit, latest, read_manifest
from beam_flowers.store.parts import Part, Place, iterate_part
from beam_flowers.store.table import TRIES

HELD = "held"
"""Key of a section's `about`; see `held_rows`."""
_ENGINE = "engine"
"""Key of a section's `about`: engine that computed the vectors, which are alike for all engines."""


@dataclass(frozen=True)
class Intent:
    """Holds all that the commit of a run needs, so that any program can finish it.

    Attributes:
        base: the version that the section was planned on.
        section: the section to commit, if nobody committed since.
        counts: counts of the manifest; those of changed rows are added.
        made: `Manifest.made` of the manifest.
        exact: the section may hold only rows that this run listed, and so none of others.
    """

    base: int
    section: Section
    counts: dict[str, Any]
    made: dict[str, Any] = field(default_factory=dict)
    exact: bool = False


def commit_on_newest(place: Place, intent: Intent) -> Manifest | None:
    """Commits a section that was planned on an older version, on top of the newest one.

    A repeated call finds the version of the first one, also below newer versions of others.

    Args:
        place: of the section; its `run` is the manifest's.
        intent: all that the commit needs.

    Returns:
        The version that this run committed. None if the section has to be planned again: the
        changes of others are not disjoint from its own, or are not known any more, or parts that
        it adds are gone. Every later call then returns None as well, as versions only grow.

    Raises:
        LateError: others were first each time.
    """
    root, newest = place.root, latest(place.root)
    base, section = intent.base, intent.section
    try:
        first = newest if newest.version == base else _version(root, base)
    except FileNotFoundError:
        return None
    change = _Change(place, first.sections.get(place.section), section, exact=intent.exact)
    seen = base
    counted: dict[str, Any] | None = None
    for _ in range(TRIES):
        # Manifests were deleted by hand, and with them the history that this run builds on.
        if newest.version < seen:
            return None
        for version in range(seen + 1, newest.version + 1):
            # Each version in turn: rows that were removed and came back would not show otherwise.
            try:
                other = newest if version == newest.version else read_manifest(root, version)
            except FileNotFoundError:  # Expired: its changes are not known any more.
                return None
            if other.run == place.run:
                return other
            if "restored" in other.counts:  # Rows that this run plans with may differ now.
                return None
            change.note(other.sections.get(place.section))
        seen = newest.version
        merged = change.merged(newest.sections.get(place.section))
        if merged is None:
            return None
        if counted is None:
            # Counted once: disjoint changes have the same counts on any version.
            after = {**first.sections, place.section: section}
            counted = intent.counts | count_changes(root, first.sections, after)
        if not change.has_its_work():
            return None
        sections = {**newest.sections, place.section: merged}
        own = Manifest(seen + 1, place.run, sections, counted, intent.made)
        if commit(root, own):
            return own
        newest = latest(root)
    raise LateError(f"{root}: other writers were first {TRIES} times; run this again")


class LateError(StoreError):
    """Error about a commit that others preceded each time; a later try may succeed."""


def held_rows(section: Section) -> dict[str, int]:
    """Returns the row counts of listings whose last run kept rows, as too many were missing.

    By name of the listing, the number of rows that it covered; see `Ledger.listing_name`.
    """
    found = section.about.get(HELD)
    return {k: v for k, v in found.items() if type(v) is int} if isinstance(found, dict) else {}


def _version(root: str, version: int) -> Manifest:
    return read_manifest(root, version) if version else Manifest()


class _Change:
    """Merges the changes of a run in a section with those of others since its base.

    Args:
        place: of the section.
        base: the section that the run planned on; None if the table had none.
        own: the section that the run made.
        exact: see `Intent`.
    """

    def __init__(self, place: Place, base: Section | None, own: Section, *, exact: bool) -> None:
        self._place, self._base, self._own, self._exact = place, base, own, exact
        empty = Section(own.fingerprint, {})
        self._before = base if base and base.fingerprint == own.fingerprint else empty
        before, after = _by_name(self._before.parts), _by_name(own.parts)
        self._added = {name: part for name, part in after.items() if name not in before}
        self._removed = before.keys() - after.keys()
        self._newest_rows = _rows(self._before)
        self._has_shrunk = False
        self._checked: set[str] = set()
        self._own_uris: npt.NDArray[np.int64] | None = None

    def note(self, section: Section | None) -> None:
        """Notes the section of the next version of others, in ascending order."""
        rows = _rows(section) if section else 0
        self._has_shrunk |= rows < self._newest_rows
        self._newest_rows = rows

    def merged(self, newest: Section | None) -> Section | None:
        """Returns the section with both sides' changes, or None if they are not disjoint."""
        if newest == self._base:
            return self._own
        # An exact section, such as a score table, may hold no rows of others.
        if newest is None or self._exact or not self._is_alike(newest):
            return None
        theirs = _by_name(newest.parts)
        # Rows that this run plans with may be gone: lost, forgotten, or removed with their files.
        removed_by_both = self._removed - theirs.keys()
        if self._has_shrunk or removed_by_both:
            return None
        before = _by_name(self._before.parts)
        new = {name: p for name, p in theirs.items() if name not in before}
        # Two rows of one file: only a new plan can decide between them.
        if self._share_uris(part for name, part in new.items() if name not in self._checked):
            return None
        self._checked |= new.keys()
        kept = {name: part for name, part in theirs.items() if name not in self._removed}
        parts = {**kept, **self._added}
        lost = {part.name: part for part in self._own.lost}
        for part in self._before.lost:  # Another command may have cleared them.
            lost.pop(part.name, None)
        return replace(
            self._own,
            about=self._merged_about(newest),
            parts=tuple(parts[name] for name in sorted(parts)),
            roots=tuple(sorted({*newest.roots, *self._own.roots})),
            lost=(*newest.lost, *lost.values()),
        )

    def has_its_work(self) -> bool:
        """Tells if all new parts exist.

        Only users may have deleted parts of a run that was not withdrawn, or `vacuum` if a pipeline
        without a lease wrote them.
        """
        folders = {files.parent(self._place.work(name)) for name in self._added}
        there = {e.uri for f in folders if files.is_folder(f) for e in files.list_folder(f)}
        return {self._place.work(name) for name in self._added} <= there

    def _is_alike(self, newest: Section) -> bool:
        """Tells if both have rows of one kind, and others neither lost a part nor forgot a root."""
        return (
            newest.fingerprint == self._own.fingerprint
            and _about(newest) == _about(self._own)
            and newest.lost == self._before.lost
            and set(newest.roots) >= set(self._before.roots)
        )

    def _merged_about(self, newest: Section) -> dict[str, Any]:
        """Returns the run's description with both sides' changes of `held_rows`."""
        before, own, held = held_rows(self._before), held_rows(self._own), held_rows(newest)
        for listing in {*before, *own}:
            if before.get(listing) != own.get(listing):
                held.pop(listing, None)
                held.update({listing: own[listing]} if listing in own else {})
        about = {name: value for name, value in self._own.about.items() if name != HELD}
        return {**about, HELD: held} if held else about

    def _share_uris(self, theirs: Iterable[Part]) -> bool:
        try:
            if self._own_uris is None:
                self._own_uris = _uris(self._place, self._added.values())
            return bool(np.isin(_uris(self._place, theirs), self._own_uris).any())
        except PartLostError:
            return True


def _about(section: Section) -> Any:
    """Returns the description of a section to compare: as in a manifest, with lists for tuples."""
    about = {name: value for name, value in section.about.items() if name not in (_ENGINE, HELD)}
    return json.loads(json.dumps(about))


def _by_name(parts: Iterable[Part]) -> dict[str, Part]:
    return {part.name: part for part in parts}


def _rows(section: Section) -> int:
    """Counts rows and rejects together, as a file may turn from one into the other."""
    return sum(part.rows for part in section.parts)


def _uris(place: Place, parts: Iterable[Part]) -> npt.NDArray[np.int64]:
    """Returns hashes of the uris in parts, int64 [N], to be compared within this process only.

    Two uris of one hash, which is very rare, cost another plan.
    """
    tables = (table for part in parts for table in iterate_part(place, part, ["uri"]))
    numbers = [np.array(list(map(hash, table["uri"].to_pylist())), np.int64) for table in tables]
    return np.concatenate([np.empty(0, np.int64), *numbers])
