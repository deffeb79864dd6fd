"""Records one outcome for each unit of a run: the file of the attempt that ends first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import msgspec

from beam_flowers import files
from beam_flowers.errors import StoreFieldError
from beam_flowers.files.typed import Count, Form, Items
from beam_flowers.records import Seconds
from beam_flowers.store.names import OUTCOMES, is_digest
from beam_flowers.store.parts import Part, PartFields, Place, checked_parts, foreign
from beam_flowers.store.work_units import Unit, unpack

Hashes = Sequence[tuple[int | None, str] | None] | None
"""Sizes and sha256 digests of a unit of doubtful files; None for each that was not read."""


@dataclass(frozen=True)
class Outcome:
    """Holds the results of one unit.

    Attributes:
        parts: the parts written.
        computed: number of rows whose vectors were computed, each content once.
        reused: number of rows whose vectors were stored already.
        reasons: rejects by error class.
        seconds: time of the threads that made it.
        problem: reason why there is no result; it keeps the run from a commit.
        unit: key of the unit; empty if the outcome belongs to no unit.
        damaged: (folder of the table, name) of parts that rows should have been copied from; they
            keep the run from a commit.
        lost: message about a part that is gone, as another run replaced it; it keeps the run from
            a commit.
        unread: number of rows that stay, as their files look unchanged and could not be read, by
            the class of the error. They also count in `reused`, or among the rejects.
    """

    parts: tuple[Part, ...]
    computed: int = 0
    reused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    seconds: Seconds = field(default_factory=Seconds)
    problem: str = ""
    unit: str = ""
    damaged: tuple[tuple[str, str], ...] = ()
    lost: str = ""
    unread: dict[str, int] = field(default_factory=dict)


class Settled(NamedTuple):
    """Result of a unit; all attempts of the unit get the same one.

    Attributes:
        outcome: parts and counts.
        more: see `Hashes`.
    """

    outcome: Outcome
    more: Hashes = None


class _SecondsFields(msgspec.Struct, forbid_unknown_fields=True):
    read: float = 0.0
    network: float = 0.0
    write: float = 0.0


class _Fields(msgspec.Struct, forbid_unknown_fields=True):
    """Types of the fields of an outcome's file."""

    parts: Annotated[list[PartFields], Items]
    seconds: _SecondsFields
    more: Annotated[list[tuple[Count | None, str] | None], Items] | None
    computed: Count = 0
    reused: Count = 0
    reasons: dict[str, Count] = {}
    unread: dict[str, Count] = {}


_FORM = Form(_Fields, StoreFieldError, "run this again")


def unit_key(unit: Unit | bytes | str) -> str:
    """Returns the name of a unit within its run; 32 hex digits.

    Args:
        unit: row group of the run's files, packed files, or source of rows to copy.
    """
    if isinstance(unit, Unit):
        content = ["unit", unit.file.rpartition("/")[2], unit.index, unit.source]
    elif isinstance(unit, str):
        content = ["source", unit]
    else:  # By the uris, as equal rows may be packed into different bytes.
        content = ["files", *(image.uri for image in unpack(unit))]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def settle(place: Place, outcome: Outcome, more: Hashes = None) -> Settled:
    """Puts the result of a unit unless another attempt has; returns the one that was put."""
    document = {
        "parts": [part.as_dict() for part in outcome.parts],
        "computed": outcome.computed,
        "reused": outcome.reused,
        "reasons": outcome.reasons,
        "seconds": outcome.seconds._asdict(),
        "unread": outcome.unread,
        "more": more,
    }
    data = json.dumps(document).encode()
    if files.put_if_absent(_uri(place, outcome.unit), data):
        return Settled(outcome, more)
    # Without a file the run is over and its folder deleted: nobody commits this late result.
    return find_settled(place, outcome.unit) or Settled(outcome, more)


def find_settled(place: Place, unit: str) -> Settled | None:
    """Returns the result of an earlier attempt of a unit, or None.

    Raises:
        StoreFieldError: a field of its file is not as this program writes it.
    """
    uri = _uri(place, unit)
    try:
        found = _FORM.read(files.read_document(uri, _FORM), uri)
    except FileNotFoundError:
        return None
    for index, hashed in enumerate(found.more or ()):
        if hashed and not is_digest(hashed[1]):
            raise foreign(uri, f"more[{index}][1]", hashed[1])
    outcome = Outcome(
        checked_parts(found.parts, uri, "parts"),
        found.computed,
        found.reused,
        found.reasons,
        Seconds(*msgspec.structs.astuple(found.seconds)),
        unit=unit,
        unread=found.unread,
    )
    return Settled(outcome, found.more)


def one_each(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Drops the outcomes of further attempts of a unit.

    Attempts usually find the same outcome. If not, the first by the names of its parts stays.
    """
    # Sorted, so that a repeated commit step chooses the same ones.
    by_name = sorted(outcomes, key=lambda outcome: [part.name for part in outcome.parts])
    kept: dict[Any, Outcome] = {}
    for outcome in by_name:
        key = outcome.unit or (outcome.parts, outcome.damaged, outcome.lost)
        kept.setdefault(key, outcome)
    return list(kept.values())


def _uri(place: Place, unit: str) -> str:
    return place.run_file(f"{OUTCOMES}/{unit}")
