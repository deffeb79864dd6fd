"""Removes the rows of a root, a backbone or missing files from a store, by one commit a table."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers import files
from beam_flowers.errors import BeamFlowersError, InputError, PartLostError, StoreError
from beam_flowers.files.tar import Damaged
from beam_flowers.store.changes import count_changes
from beam_flowers.store.commits import (
    Manifest,
    Section,
    commit,
    encoding_in,
    latest,
    publish,
    purge,
)
from beam_flowers.store.features import open_store
from beam_flowers.store.lease import finish_begun
from beam_flowers.store.names import SCORED
from beam_flowers.store.parts import Part, Place, RejectRows, read_checked, read_part, write_part
from beam_flowers.store.schema import StoreRows
from beam_flowers.store.table import until_committed

_NAMED_ROOTS = 10
_REMEMBERED = 256
"""Listings of folders in object stores that are kept, of up to thousands of names each."""
IMAGES_ONLY_SCORED: Mapping[str, type[StoreRows]] = MappingProxyType({SCORED: StoreRows})
"""Tables inside of a store that the core writes, and the kinds of their rows."""


@dataclass(frozen=True)
class Forgotten:
    """Numbers of rows and rejects that left a store.

    Attributes:
        rows: of the collection.
        rejects: of the collection.
        inner: rows and rejects of the tables inside of the store, by their folders.
        lost: addresses of parts that are gone or damaged, so that their rows are not known. Parts
            that an earlier run marked as lost have left the store, too.
    """

    rows: int = 0
    rejects: int = 0
    inner: Mapping[str, int] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backbone:
    """Selects all rows of a backbone.

    Attributes:
        fingerprints: of the backbone's vectors; sections of distorted copies name the one that
            they belong to.
    """

    fingerprints: frozenset[str]

    def is_of(self, section: Section) -> bool:
        """Tells if a section belongs to the backbone."""
        made_by = {section.fingerprint, section.about.get("backbone")}
        return not self.fingerprints.isdisjoint(made_by)


@dataclass(frozen=True)
class Below:
    """Selects the images that were listed as `root` or are below it."""

    root: str

    def rows(self, names: pa.Table) -> pa.ChunkedArray:
        """Returns a mask of the rows that leave."""
        return pc.or_(_below(names["uri"], self.root), _below(names["root"], self.root))

    def is_left(self, root: str) -> bool:
        """Tells if a root leaves a section's list of roots."""
        return root == self.root or root.startswith(files.join(self.root, ""))


class Missing:
    """Selects the rows whose files are gone; a file that cannot be looked for is an error."""

    def __init__(self) -> None:
        self._require_reachable = lru_cache(maxsize=None)(_require_reachable)
        self._names = lru_cache(maxsize=_REMEMBERED)(_names)

    def rows(self, names: pa.Table) -> pa.ChunkedArray:
        """Returns a mask of the rows that leave.

        Args:
            names: with columns `uri` and `root`.

        Raises:
            InputError: a root is empty or a file cannot be looked for; it is named.
        """
        for root in names["root"].unique().to_pylist():
            if root is not None:
                self._require_reachable(root)
        gone = [self._is_gone(uri) for uri in names["uri"].to_pylist()]
        return pa.chunked_array([pa.array(gone, pa.bool_())])

    def is_left(self, root: str) -> bool:
        """Tells if a root leaves a section's list of roots."""
        return self._is_gone(root)

    def _is_gone(self, uri: str) -> bool:
        try:
            if files.is_local(uri) or files.is_member(uri):
                return files.is_gone(uri)
            # Listing a folder takes fewer requests than looking for its files one by one.
            return uri not in self._names(files.parent(uri))
        except (OSError, BeamFlowersError, Damaged) as error:
            raise _unreachable(uri, str(error)) from error


Selection = Backbone | Below | Missing


def forget(
    store: str,
    root: str | None,
    dry_run: bool = False,
    inner: Mapping[str, type[StoreRows]] = IMAGES_ONLY_SCORED,
    now: bool = False,
) -> Forgotten:
    """Removes rows and rejects from a store: those of some images, or those of a backbone.

    The images themselves are not touched. If they are embedded again, their embeddings are
    computed again.

    Args:
        store: absolute folder of the store.
        root: a folder or file that was embedded or scored, or one below or above it; it may be
            gone. The name of a backbone selects all its sections; with the digits of a section's
            folder, that section alone. None selects all images whose files are gone.
        dry_run: count only.
        inner: kinds of rows of the tables inside of the store, by their folders.
        now: delete older versions as well, which otherwise keep the rows for a week.

    Raises:
        InputError: the store has nothing below `root`, or `root` names both a folder and a
            backbone. With None: it cannot be found out which files are gone.
        StoreError: there is no store, or other writers were first each time.
    """
    open_store(store)
    folders = {name: files.join(store, name) for name in inner}
    every = (store, *folders.values())
    if not dry_run:
        # Otherwise the next run would finish them, and bring forgotten rows back.
        for table in every:
            finish_begun(table, by="forget")
    leaving: Selection = Missing()
    if root is not None:
        leaving = _named_backbone(root, every) or Below(files.absolute(root))
    found = _forget(store, leaving, StoreRows, dry_run=dry_run)
    tables = {
        name: _forget(folders[name], leaving, rows, dry_run=dry_run) for name, rows in inner.items()
    }
    counts = {name: gone.rows + gone.rejects for name, gone in tables.items()}
    lost = (*found.lost, *(uri for gone in tables.values() for uri in gone.lost))
    found = replace(found, inner=counts, lost=lost)
    if root is not None and not (found.rows or found.rejects or any(counts.values()) or lost):
        sections = open_store(store).sections.values()
        roots = sorted({known for section in sections for known in section.roots})
        listed = ", ".join(roots[:_NAMED_ROOTS]) + ", ..." * (len(roots) > _NAMED_ROOTS)
        raise InputError(
            f"{store} has no image of {files.absolute(root)!r}. Folders that it has listed: "
            f"{listed or 'none'}"
        )
    if now and not dry_run:
        for table in every:
            purge(table)
    return found


def _named_backbone(name: str, folders: Iterable[str]) -> Backbone | None:
    """Returns the backbone of that name, or None if no table has it.

    Raises:
        InputError: it is the name of a folder as well.
    """
    held = [item for folder in folders for item in latest(folder).sections.items()]
    found = {
        section.fingerprint
        for key, section in held
        if section.about.get("name") == name or key == f"backbone={name}"
    }
    images = files.absolute(name)
    if found and (files.exists(images) or any(images in section.roots for _, section in held)):
        raise InputError(
            f"{name!r} is a backbone of the store, and the folder {images} as well: write "
            f"{images} for that folder; for the backbone, run this in another working folder"
        )
    return Backbone(frozenset(found)) if found else None


def _forget(table: str, leaving: Selection, rows: type[StoreRows], *, dry_run: bool) -> Forgotten:
    """Removes rows and rejects from one table; returns their numbers."""
    if "" in latest(table).sections:
        raise StoreError(f"{table} is a table of scores, which no store has there; move it away")
    if dry_run:
        base = latest(table)
        return _gone(base, *_without(base, table, leaving, rows, run="", dry_run=True))

    def attempt(base: Manifest) -> Forgotten | None:
        run = secrets.token_hex(8)
        now, lost = _without(base, table, leaving, rows, run=run, dry_run=False)
        gone = _gone(base, now, lost)
        if now.sections == base.sections:
            return gone
        counts = {"forgotten": gone.rows, "forgotten_rejects": gone.rejects}
        counts |= count_changes(table, base.sections, now.sections)
        made = {"command": "forget"}
        forgotten = Manifest(base.version + 1, run, now.sections, counts, made)
        return gone if commit(table, forgotten) else None

    before = latest(table)  # The new version clears its lost parts.
    gone = until_committed(table, attempt)
    publish(table)
    for place, parts in before.lost_parts(table).items():
        if isinstance(leaving, Backbone) and not leaving.is_of(before.sections[place.section]):
            continue
        # The files of lost parts may have come back, and forgotten rows must not stay in them.
        for part in parts:
            files.delete(place.work(part.name))
            files.delete(place.damaged(part.name))
    return gone


def _gone(base: Manifest, now: Manifest, lost: tuple[str, ...]) -> Forgotten:
    """Counts the rows and rejects that a version lacks against the one before it."""
    rows = _count(base, rejects=False) - _count(now, rejects=False)
    return Forgotten(rows, _count(base, rejects=True) - _count(now, rejects=True), lost=lost)


def _without(
    base: Manifest,
    table: str,
    leaving: Selection,
    rows: type[StoreRows],
    *,
    run: str,
    dry_run: bool,
) -> tuple[Manifest, tuple[str, ...]]:
    """Returns the version without the rows that leave, and the addresses of lost parts."""
    if isinstance(leaving, Backbone):
        others = {k: s for k, s in base.sections.items() if not leaving.is_of(s)}
        return replace(base, sections=others, made={}), ()
    sections, lost = {}, []
    for place, section in base.places(table, run):
        lost += [place.published(part.name) for part in section.lost]
        kept: list[Part | None] = []
        for part in section.parts:
            try:
                kept.append(_remaining(place, part, section, leaving, rows, dry_run))
            except PartLostError:
                # Either replaced since `base`: then the commit fails. Or lost: then the next run
                # that lists its images computes its rows again.
                lost.append(place.published(part.name))
                kept.append(part)
        parts = tuple(part for part in kept if part is not None)
        roots = tuple(known for known in section.roots if not leaving.is_left(known))
        # A section without parts is dropped: it would be a backbone without images.
        if parts or not section.parts:
            sections[place.section] = replace(section, parts=parts, roots=roots, lost=())
    return replace(base, sections=sections, made={}), tuple(lost)


def _remaining(
    place: Place,
    part: Part,
    section: Section,
    leaving: Below | Missing,
    rows: type[StoreRows],
    dry_run: bool,
) -> Part | None:
    """Returns the part itself, a new one without the rows that leave, or None if no row stays."""
    names = read_part(place, part, ["uri", "root"])
    gone = leaving.rows(names)
    left = len(names) - (pc.sum(gone).as_py() or 0)
    if left == len(names):
        return part
    if not left:
        return None
    if dry_run:
        return replace(part, rows=left)
    name = str(section.about.get("name", ""))
    own = rows(section.fingerprint, name, encoding=encoding_in(section))
    row_kind = RejectRows() if part.is_rejects else own
    return write_part(place, row_kind, read_checked(place, part, row_kind).filter(pc.invert(gone)))


def _below(paths: pa.ChunkedArray, root: str) -> pa.ChunkedArray:
    """Returns a mask of the paths that are `root` or below it; False for a missing path."""
    is_root = pc.equal(paths, root)
    return pc.fill_null(pc.or_(is_root, pc.starts_with(paths, files.join(root, ""))), False)


def _count(manifest: Manifest, *, rejects: bool) -> int:
    parts: Iterable[Part] = (p for s in manifest.sections.values() for p in s.parts)
    return sum(part.rows for part in parts if part.is_rejects == rejects)


def _names(folder: str) -> frozenset[str]:
    try:
        return frozenset(entry.uri for entry in files.list_folder(folder))
    except FileNotFoundError:
        return frozenset()


def _require_reachable(root: str) -> None:
    """Refuses a root unless it certainly exists and is not empty, or is certainly gone.

    An empty folder may be the place of a disk that is not mounted.

    Raises:
        InputError: it may be either; the reason is named.
    """
    if files.is_member(root):
        return
    try:
        if not files.is_gone(root):
            if not files.exists(root):
                raise _unreachable(root, "it is a link that leads nowhere")
            if files.is_folder(root) and _is_empty(root):
                raise _unreachable(root, "it is empty, as where a disk is not mounted")
        elif files.is_local(root):
            above = files.parent(root)
            while files.is_gone(above):
                above = files.parent(above)
            if _is_empty(above):
                reason = f"it is not there, and {above} is empty, as where a disk is not mounted"
                raise _unreachable(root, reason)
    except InputError:
        raise
    except (OSError, BeamFlowersError) as error:
        raise _unreachable(root, str(error)) from error


def _is_empty(folder: str) -> bool:
    if files.is_local(folder) and not os.path.isdir(folder):
        return False
    return not list(islice(files.list_folder(folder), 1))


def _unreachable(uri: str, reason: str) -> InputError:
    return InputError(
        f"nobody can say whether {uri} is gone: {reason}. Nothing was taken out. Make it readable "
        "and run this again; `beam-flowers forget STORE ROOT` takes a folder out in any case"
    )
