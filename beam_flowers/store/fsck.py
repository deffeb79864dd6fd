"""Checks every part of a table against its newest version, and repairs the table."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers import files
from beam_flowers.errors import PartDamagedError, PartLostError
from beam_flowers.store.changes import count_changes
from beam_flowers.store.commits import (
    Manifest,
    Section,
    commit,
    encoding_in,
    latest,
    publish,
    read_those_there,
    versions,
)
from beam_flowers.store.names import COMMITS, LEASES, WORK, is_reserved_file
from beam_flowers.store.parts import Part, Place, RejectRows, read_checked, read_part, write_part
from beam_flowers.store.schema import StoreRows, digest_rows
from beam_flowers.store.table import until_committed
from beam_flowers.store.vacuum import own_entries, tables

State = Literal["sound", "damaged", "missing"]


@dataclass
class Checked:
    """Findings of `fsck` in a table and in those inside of it.

    Attributes:
        parts: number of parts that were read.
        bytes: size of these parts.
        damaged: rows of the parts that are not as they were written, by address.
        missing: rows of the parts that are gone, by address.
        lost: rows of the parts that an earlier run found damaged or missing, by address.
        back: rows that `repair` added, of lost parts whose files have come back.
        left_over: addresses of files that interrupted runs left; `vacuum` deletes them.
        foreign: addresses of files that this program does not write.
    """

    parts: int = 0
    bytes: int = 0
    damaged: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    back: int = 0
    left_over: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """True if all rows of the newest version exist as they were written."""
        return not (self.damaged or self.missing or self.lost)


def fsck(root: str, repair: bool = False) -> Checked:
    """Reads every part of the newest version and compares it with its digest.

    Args:
        root: absolute folder of a store or of a table of scores.
        repair: commit a version of the sound parts. Rows of lost parts are added if their files
            have come back and their images have no row. Damaged files move to `__damaged`;
            foreign ones are not touched.

    Raises:
        StoreError: there is no table, or one of its manifests is refused.
    """
    found = Checked()
    for table in tables(root):
        if repair:
            publish(table)
        states = _check(table, found)
        if repair:
            found.back += until_committed(table, partial(_repair, root=table, states=states))
            publish(table)
    return found


def _check(root: str, found: Checked) -> dict[str, State]:
    """Adds the findings of one table to `found`; returns the states of the parts by name."""
    states: dict[str, State] = {}
    manifest, named = latest(root), set()
    for place, section in manifest.places(root):
        for part in (*section.parts, *section.lost):
            named |= {place.published(part.name), place.work(part.name)}
        for part in section.parts:
            uri = place.locate(part.name)
            states[part.name] = state = _state(place, section, part)
            if state == "sound":
                found.bytes += part.bytes or files.stat(uri).bytes
            else:
                (found.damaged if state == "damaged" else found.missing)[uri] = part.rows
            found.parts += state != "missing"
        found.lost |= {place.published(part.name): part.rows for part in section.lost}
    for older in read_those_there(root, versions(root)):
        for place, names in older.part_names(root).items():
            named |= {place.retired(name) for name in names}
    for entry in own_entries(root):
        relative = files.relative(entry.uri, root)
        if entry.uri in named or relative.startswith((f"{COMMITS}/", f"{WORK}/{LEASES}/")):
            continue
        (found.left_over if is_reserved_file(relative) else found.foreign).append(entry.uri)
    return states


def _state(place: Place, section: Section, part: Part) -> State:
    try:
        read_checked(place, part, _rows_of(place, section, part))
    except PartDamagedError:
        return "damaged"
    except PartLostError:
        return "missing"
    return "sound"


class _AsWritten(StoreRows):
    """Rows of a store or of its distorted copies, digested over the columns that they have."""

    def digest(self, rows: pa.Table) -> int:
        """Returns the sum of the rows' digests, with the copy's number `k` if there is one."""
        has_number = "k" in rows.schema.names
        return digest_rows(rows, (*StoreRows.key, "k") if has_number else StoreRows.key)


def _rows_of(place: Place, section: Section, part: Part) -> StoreRows | RejectRows | None:
    """Returns the kind that digests a part's rows; None for scores, which need their models."""
    if part.is_rejects:
        return RejectRows()
    if not place.section:
        return None
    name = str(section.about.get("name", ""))
    return _AsWritten(section.fingerprint, name, encoding=encoding_in(section))


def _repair(base: Manifest, root: str, states: dict[str, State]) -> int | None:
    """Commits a version without damaged, missing and lost parts.

    Returns:
        The number of rows that came back; None if another writer was first.
    """
    run, sections, back = secrets.token_hex(8), {}, 0
    for place, section in base.places(root, run):
        sound = []
        for part in section.parts:
            if part.name not in states:  # Another writer committed it meanwhile.
                states[part.name] = _state(place, section, part)
            if states[part.name] == "sound":
                sound.append(part)
            elif states[part.name] == "damaged" and files.exists(place.locate(part.name)):
                files.move(place.locate(part.name), place.damaged(part.name))
        returned = _returned(place, section, sound) if section.lost else []
        back += sum(part.rows for part in returned)
        sections[place.section] = replace(section, parts=(*sound, *returned), lost=())
    if sections == base.sections:
        return 0
    counts = {"returned": back, **count_changes(root, base.sections, sections)}
    made = {"command": "fsck --repair"}
    repaired = Manifest(base.version + 1, run, sections, counts, made)
    return back if commit(root, repaired) else None


def _returned(place: Place, section: Section, sound: list[Part]) -> list[Part]:
    """Writes the rows of lost parts that have come back, without images that have a row already."""
    held = {uri for part in sound for uri in _uris(place, part)}
    parts = []
    for part in section.lost:
        row_kind = _rows_of(place, section, part)
        if row_kind is None or part.is_rejects:
            continue
        try:
            rows = read_checked(place, part, row_kind)
        except PartLostError:
            continue
        fresh = [uri not in held for uri in rows["uri"].to_pylist()]
        rows = rows.filter(pa.array(fresh, pa.bool_()))
        held.update(rows["uri"].to_pylist())
        if len(rows):
            parts.append(write_part(place, row_kind, rows))
    return parts


def _uris(place: Place, part: Part) -> list[str]:
    return pc.unique(read_part(place, part, ["uri"])["uri"]).to_pylist()
