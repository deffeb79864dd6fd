"""Plans a new table from all rows of a store, without a listing and a join."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pyarrow.compute as pc

from beam_flowers.store.commits import Manifest, Section, committed
from beam_flowers.store.parts import Part, Place, RejectRows, read_part, work_parts, write_part
from beam_flowers.store.plan import Plan
from beam_flowers.store.work_units import Unit


def is_new(place: Place, manifest: Manifest) -> bool:
    """Tells if a section has neither parts nor unfinished work that a plan has to consider."""
    return not committed(manifest, place).parts and not work_parts(place)


def plan_whole(
    place: Place, base: Manifest, section: Section, source: Place, stored: Section
) -> Plan:
    """Plans a part of the table for each part of a store, and copies the store's rejects.

    Args:
        place: of the section to write, in a table that `is_new`.
        base: version of the table.
        section: has the fingerprint and description; parts and roots are ignored.
        source: place of the store's section.
        stored: the store's section.
    """
    rejects: list[Part] = []
    reasons: Counter[str] = Counter()
    for part in stored.rejects:
        rows = read_part(source, part)
        rejects.append(write_part(place, RejectRows(), rows))
        reasons.update(rows["error_class"].to_pylist())
    units = tuple(Unit("", 0, f"0/{part.name}", part.rows) for part in stored.rows)
    fresh, rejected = sum(unit.rows for unit in units), sum(part.rows for part in rejects)
    counts = {
        "listed": fresh + rejected,
        "hidden": 0,
        "fresh": fresh,
        "reused": 0,
        "rejected": rejected,
        "failures": sum(part.failures for part in rejects),
        "reasons": dict(reasons),
    }
    section = replace(section, parts=tuple(rejects), roots=())
    return Plan(place, base.version, section, derive=units, exact=True, counts=counts)


def stored_images(source: Place, stored: Section) -> Iterator[tuple[str, str | None, str]]:
    """Yields uri, label and path below the root of a store's rows."""
    for part in stored.rows:
        rows = read_part(source, part, ["uri", "label", "relative_path"])
        yield from zip(*(column.to_pylist() for column in rows.columns), strict=True)


def stored_labels(source: Place, stored: Section) -> list[str]:
    """Returns the labels of a store's rows, sorted."""
    found: set[str] = set()
    for part in stored.rows:
        found.update(pc.unique(read_part(source, part, ["label"])["label"]).to_pylist())
    return sorted(label for label in found - {None} if label)
