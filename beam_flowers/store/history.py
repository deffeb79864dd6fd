"""Older versions of a table: listed, read, and made the newest again."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pyarrow.dataset as ds

from beam_flowers import files
from beam_flowers.errors import PartLostError, StoreError
from beam_flowers.store.changes import ADDED, CHANGED, REMOVED, count_changes
from beam_flowers.store.commits import (
    Manifest,
    Section,
    commit,
    open_table,
    publish,
    read_manifest,
    read_those_there,
    versions,
)
from beam_flowers.store.features import choose_section
from beam_flowers.store.parts import Place, copy_part
from beam_flowers.store.table import until_committed
from beam_flowers.store.vacuum import own_entries


@dataclass(frozen=True)
class Version:
    """One version of a table.

    Attributes:
        number: of the version.
        time: seconds since the epoch at which it was committed; 0 where it is not known.
        program: that committed it; empty likewise.
        command: of that program; empty likewise.
        options: of the command, those that hold no secret.
        rows: in all sections.
        rejects: likewise.
        added: rows of images that the version before had none of; None where it is not known, as
            of versions from before they were counted and of those that lost a part.
        removed: rows of images that this version has none of; None likewise.
        changed: rows of the same images with another content or label; None likewise.
        lost: rows of parts that were gone or damaged.
        readable: all parts are there; of a version of before layout 3 they are gone.
    """

    number: int
    time: float
    program: str
    command: str
    options: dict[str, object]
    rows: int
    rejects: int
    added: int | None
    removed: int | None
    changed: int | None
    lost: int
    readable: bool


def history(root: str) -> Iterator[Version]:
    """Lists the versions of a table that can still be told, the newest first.

    Args:
        root: absolute folder of a store or of a table of scores.

    Raises:
        StoreError: there is no table.
    """
    open_table(root)
    manifests = list(read_those_there(root, reversed(versions(root))))
    # One listing: a version has thousands of parts, and most of them in common with others.
    there = {entry.uri for entry in own_entries(root)}
    for manifest in manifests:
        sections = manifest.sections.values()
        made = manifest.made
        yield Version(
            manifest.version,
            manifest.time,
            str(made.get("program", "")),
            str(made.get("command", "")),
            dict(made.get("options", {})),
            sum(part.rows for section in sections for part in section.rows),
            sum(part.rows for section in sections for part in section.rejects),
            _count(manifest, ADDED),
            _count(manifest, REMOVED),
            _count(manifest, CHANGED),
            sum(part.rows for section in sections for part in section.lost),
            all(_is_there(root, key, s, there) for key, s in manifest.sections.items()),
        )


def _count(manifest: Manifest, name: str) -> int | None:
    found = manifest.counts.get(name)
    return found if type(found) is int else None


def _is_there(root: str, key: str, section: Section, there: set[str]) -> bool:
    place = Place(root, key, section.fingerprint)
    return all(not there.isdisjoint(place.addresses(part.name)) for part in section.parts)


def read_version(root: str, number: int | None = None) -> Manifest:
    """Reads a version of a table, or the newest.

    Raises:
        StoreError: there is no table, or no such version any more.
    """
    newest = open_table(root)
    if number is None or number == newest.version:
        return newest
    known = versions(root)
    if number not in known:
        held = f"{known[0]} to {known[-1]}" if known else "none"
        raise StoreError(
            f"{root} has no version {number}: it has {held}; `beam-flowers history {root}` lists "
            "them, and a replaced one is kept for 7 days"
        )
    return read_manifest(root, number)


def restore(root: str, number: int) -> int:
    """Commits the rows of an older version as the newest one.

    Parts that are not in the newest version come back under new names: a name never means other
    rows than before.

    Args:
        root: absolute folder of a store or of a table of scores.
        number: of the version.

    Returns:
        The number of the new version.

    Raises:
        StoreError: there is no such version any more.
        PartLostError: a part of it is gone.
    """
    wanted = read_version(root, number)

    def attempt(base: Manifest) -> int | None:
        run = secrets.token_hex(8)
        held = base.part_names(root)
        sections = {}
        for key, section in wanted.sections.items():
            place = Place(root, key, section.fingerprint, run)
            kept = held.get(replace(place, run=""), set())
            parts = [p if p.name in kept else copy_part(place, p) for p in section.parts]
            sections[key] = replace(section, parts=tuple(parts))
        made = {"command": "restore", "options": {"version": number}}
        counts = {"restored": number}
        counts |= count_changes(root, base.sections, sections)
        again = Manifest(base.version + 1, run, sections, counts, made)
        return again.version if commit(root, again) else None

    version = until_committed(root, attempt)
    publish(root)
    return version


def open_dataset(root: str, version: int | None = None, backbone: str | None = None) -> ds.Dataset:
    """Opens the rows of a version of a store or score table, exactly, for pyarrow and pandas.

    Args:
        root: folder, on this machine.
        version: its number; by default the newest.
        backbone: of a store with several.

    Returns:
        A `pyarrow.dataset.Dataset`; nothing is read yet.

    Raises:
        StoreError: there is no such version any more, or it lies elsewhere than on this machine.
        PartLostError: a part of it is gone.
    """
    root = files.absolute(root)
    if not files.is_local(root):
        raise StoreError(f"{root} is not on this machine: read it with pyarrow's own file systems")
    manifest = read_version(root, version)
    key, section = "", manifest.sections.get("")
    if section is None:
        key, section = choose_section(root, manifest, backbone)
    place = Place(root, key, section.fingerprint)
    paths = []
    for part in section.rows:
        path = place.locate(part.name)
        if not files.exists(path):
            raise PartLostError(f"{path} is gone: version {manifest.version} cannot be read")
        paths.append(path)
    return ds.dataset(paths, format="parquet")
