"""Lists and reads older versions of a table, and makes one the newest again."""

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
    """Version of a table, as `history` lists it.

    Attributes:
        number: number of the version.
        time: seconds since the epoch at which it was committed; 0 if unknown.
        program: the program that committed it; empty if unknown.
        command: command of that program; empty if unknown.
        options: of the command, those that hold no secret.
        rows: number in all sections.
        rejects: number in all sections.
        added: rows of images without a row in the version before; None if unknown, as for versions
            of programs that did not count, and for those that lost a part.
        removed: rows of images that have no row any more; None if unknown.
        changed: rows of the same images with another content or label; None if unknown.
        lost: rows of parts that were gone or damaged.
        readable: True if all its parts exist; those of versions before layout 3 are gone.
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
    """Yields the versions of a table that still have a manifest, the newest first.

    Args:
        root: absolute folder of a store or of a table of scores.

    Raises:
        StoreError: there is no table.
    """
    open_table(root)
    manifests = list(read_those_there(root, reversed(versions(root))))
    # One listing for all: a version has thousands of parts and shares most of them with others.
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
            all(
                not there.isdisjoint(place.addresses(name))
                for place, names in manifest.part_names(root).items()
                for name in names
            ),
        )


def _count(manifest: Manifest, name: str) -> int | None:
    found = manifest.counts.get(name)
    return found if type(found) is int else None


def read_version(root: str, number: int | None = None) -> Manifest:
    """Reads a version of a table; by default the newest.

    Raises:
        StoreError: there is no table, or the version is gone.
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

    Parts that are not in the newest version come back under new names, since a removed name is
    never used again.

    Args:
        root: absolute folder of a store or of a table of scores.
        number: number of the older version.

    Returns:
        The number of the new version.

    Raises:
        StoreError: the older version is gone.
        PartLostError: a part of it is gone.
    """
    wanted = read_version(root, number)

    def attempt(base: Manifest) -> int | None:
        run = secrets.token_hex(8)
        held = base.part_names(root)
        sections = {}
        for place, section in wanted.places(root, run):
            kept = held.get(replace(place, run=""), set())
            parts = [p if p.name in kept else copy_part(place, p) for p in section.parts]
            sections[place.section] = replace(section, parts=tuple(parts))
        made = {"command": "restore", "options": {"version": number}}
        counts = {"restored": number, **count_changes(root, base.sections, sections)}
        again = Manifest(base.version + 1, run, sections, counts, made)
        return again.version if commit(root, again) else None

    version = until_committed(root, attempt)
    publish(root)
    return version


def open_dataset(root: str, version: int | None = None, backbone: str | None = None) -> ds.Dataset:
    """Opens exactly the rows of one version of a store or score table, for pyarrow and pandas.

    Args:
        root: folder, on this machine.
        version: number of the version; by default the newest.
        backbone: name; needed in a store with several.

    Returns:
        A `pyarrow.dataset.Dataset`; nothing is read yet.

    Raises:
        StoreError: the version is gone, or the table is not on this machine.
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
    paths = [place.locate(part.name) for part in section.rows]
    for path in paths:
        if not files.exists(path):
            raise PartLostError(f"{path} is gone: version {manifest.version} cannot be read")
    return ds.dataset(paths, format="parquet")
