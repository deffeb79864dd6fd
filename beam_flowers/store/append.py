"""Adding parts that somebody else's pipeline made to a store, in one commit."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from beam_flowers import files
from beam_flowers.errors import StoreError
from beam_flowers.store.commits import (
    Section,
    commit,
    latest,
    publish,
    require_table_place,
)
from beam_flowers.store.features import section_name
from beam_flowers.store.ledger import Ledger, Rules
from beam_flowers.store.parts import Part, Place
from beam_flowers.store.plan import committed, derive_part, stored_rows, stored_table
from beam_flowers.store.schema import StoreRows

_TRIES = 20


def store_place(store: str, backbone: str, fingerprint: str) -> tuple[Place, StoreRows]:
    """Where one run writes a backbone's rows, and what they are."""
    root = files.absolute(store)
    require_table_place(root)
    place = Place(root, section_name(backbone, fingerprint), fingerprint, secrets.token_hex(8))
    return place, StoreRows(fingerprint, backbone)


def append_parts(
    place: Place, kind: StoreRows, about: dict[str, Any], parts: Sequence[Part]
) -> int:
    """Commits `parts`, which lie in the table's `__work`; stored rows of the same uris go.

    Returns:
        The number of rows added.

    Raises:
        StoreError: if two of the new rows have one uri.
    """
    if not parts:
        return 0
    for _ in range(_TRIES):
        if _try(place, kind, about, parts):
            publish(place.root)
            return sum(p.rows for p in parts)
    raise StoreError(f"{place.root}: other writers were first {_TRIES} times; run this again")


def _try(place: Place, kind: StoreRows, about: dict[str, Any], parts: Sequence[Part]) -> bool:
    publish(place.root)
    base = latest(place.root)
    if base.run == place.run:
        return True
    known = committed(base, place)
    kept = _without_rows_of(parts, known, place, kind)
    names = {p.name: p for p in (*kept, *known.rejects, *parts)}
    section = Section(
        place.fingerprint,
        {"name": kind.backbone, **about},
        tuple(names[n] for n in sorted(names)),
        known.roots,
    )
    manifest = base.with_section(place.section, section)
    return commit(place.root, replace(manifest, version=base.version + 1, run=place.run, counts={}))


def _without_rows_of(
    parts: Sequence[Part], known: Section, place: Place, kind: StoreRows
) -> list[Part]:
    """The known row parts without rows whose uris are in the new parts."""
    ledger = Ledger()
    for part in parts:
        ledger.list_found(row.image for row in stored_rows(place, part.name))
    for part in known.rows:
        ledger.add_part(part.name, stored_rows(place, part.name), False, True)
    ledger.join(Rules(verify=True))
    if ledger.listed() != sum(p.rows for p in parts):
        raise StoreError(f"{place.root}: two of the new rows have one uri; keep one of them")
    whole, partly = ledger.part_names()
    kept = [p for p in known.rows if p.name in set(whole)]
    kept += [derive_part(place, kind, n, stored_table(ledger.remaining(n)), "uri") for n in partly]
    ledger.close()
    return kept
