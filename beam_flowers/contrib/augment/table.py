"""Reads and writes the table of distorted copies inside of a store: a row for each file and copy.

The table has commits of its own, so that readers of the store do not see it. Its sections have
the names of the store's sections, and hold copies of one set of distortions at a time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers import files
from beam_flowers.contrib.augment.distort import Augmentation, Distortions
from beam_flowers.contrib.augment.ledger import Copy, CopyLedger, CopyVector
from beam_flowers.errors import PartLostError
from beam_flowers.records import Image
from beam_flowers.store.commits import Manifest, Section, committed
from beam_flowers.store.forget import IMAGES_ONLY_SCORED, Forgotten, forget
from beam_flowers.store.names import AUGMENTED
from beam_flowers.store.parts import (
    Part,
    Place,
    RowKind,
    describe_part,
    encoded_otherwise,
    find_rows,
    holds_rejects,
    identified,
    iterate_part,
    read_checked,
    read_part,
    work_parts,
    write_part,
)
from beam_flowers.store.plan import Plan, stored_rows, unit_rows
from beam_flowers.store.schema import IMAGE_SCHEMA, StoreRows, images_of, images_table
from beam_flowers.store.work_units import Unit, UnitWriter

_NUMBER = pa.field("k", pa.int32())
_COPY_SCHEMA = IMAGE_SCHEMA.append(_NUMBER)
_MOST_DERIVED = 8192


@dataclass(frozen=True)
class AugmentedRows(StoreRows):
    """Schema of copies: the columns of the store and `k`, the number of the copy."""

    key = (*StoreRows.key, "k")

    def schema(self, vector_length: int) -> pa.Schema:
        """Returns the columns; `vector` as `StoreRows` has it."""
        plain = super().schema(vector_length)
        return plain.insert(plain.get_field_index("vector"), _NUMBER)

    def of_copies(self, copies: Sequence[CopyVector]) -> pa.Table:
        """Makes the rows of copies (at least one), in their order."""
        plain = StoreRows(self.fingerprint, self.backbone, self.vectors, self.encoding)
        rows = plain.table([copy.embedding for copy in copies])
        numbers = pa.array([copy.k for copy in copies], _NUMBER.type)
        return rows.add_column(rows.schema.get_field_index("vector"), _NUMBER, numbers)


def augmented_root(store: str) -> str:
    """Returns the folder of the table of copies in `store`."""
    return files.join(store, AUGMENTED)


def forget_everywhere(
    store: str, root: str | None, *, dry_run: bool = False, now: bool = False
) -> Forgotten:
    """Takes images and their distorted copies out of a store, see `forget`."""
    inner = {**IMAGES_ONLY_SCORED, AUGMENTED: AugmentedRows}
    return forget(store, root, dry_run=dry_run, inner=inner, now=now)


def augmented_fingerprint(backbone: str, distortions: Distortions) -> str:
    """Returns the hex sha256 of all that the vectors of copies depend on, except the images.

    The number of copies is not part of it: stored copies stay valid if others are added.

    Args:
        backbone: fingerprint of the backbone.
        distortions: distortions of the copies.
    """
    about = {"backbone": backbone, "distortions": distortions.as_dict()}
    text = json.dumps(about, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def describe_copies(plain: Section, augmentation: Augmentation) -> Section:
    """Makes the section of the copies of a store's section, without parts."""
    distortions = augmentation.distortions
    about: dict[str, Any] = {
        "name": plain.about["name"],
        "backbone": plain.fingerprint,
        "copies": augmentation.copies,
        "distortions": distortions.as_dict(),
        "encoding": plain.about.get("encoding"),
    }
    return Section(augmented_fingerprint(plain.fingerprint, distortions), about)


def labelled_images(place: Place, section: Section) -> Iterator[tuple[Image, str]]:
    """Yields the labelled files of a store's section, with the sha256 of their contents."""
    for part in section.rows:
        for row in stored_rows(place, part.name):
            if row.image.label is not None and row.sha256 is not None:
                yield row.image, row.sha256


def fill_copies(
    ledger: CopyLedger, place: Place, manifest: Manifest, row_kind: AugmentedRows
) -> list[str]:
    """Adds the stored copies to the ledger; returns the names of lost parts."""
    known = [part.name for part in committed(manifest, place).rows]
    unfinished = [name for name in work_parts(place) if not holds_rejects(name)]
    lost = []
    for name in dict.fromkeys([*known, *unfinished]):
        try:
            stale = any(encoded_otherwise(place, [name], row_kind.encoding))
            blocks = map(copies_of, iterate_part(place, name, _COPY_SCHEMA.names))
            copies = chain.from_iterable(blocks)
            ledger.add_part(name, copies, committed=name in known, stale=stale)
        except PartLostError:
            # The writer of an unfinished part may have published and replaced it by now.
            lost += [name] if name in known else []
    return lost


def copies_of(table: pa.Table) -> list[Copy]:
    """Returns the `Copy`s of a table of copies."""
    columns = (images_of(table), table["sha256"].to_pylist(), table["k"].to_pylist())
    return [Copy(*row) for row in zip(*columns, strict=True)]


def plan_copies(
    ledger: CopyLedger,
    place: Place,
    manifest: Manifest,
    row_kind: RowKind,
    section: Section,
    shards: int | None = None,
) -> Plan:
    """Writes the units of work beside the table.

    Args:
        ledger: filled with the images and by `fill_copies`.
        place: the section to write; its `run` names this run's own files.
        manifest: the version of the table that the ledger was filled from.
        row_kind: schema of the section's rows.
        section: from `describe_copies`.
        shards: number of units; by default it follows from the number of copies.
    """
    ledger.join(section.about["copies"])
    known = {part.name: part for part in committed(manifest, place).rows}
    parts = [known.get(n) or describe_part(place, n, row_kind) for n in ledger.whole_parts()]
    fresh = ledger.fresh()
    rows = unit_rows(fresh, shards)
    writer = UnitWriter(place.run_file("units.parquet"), _COPY_SCHEMA)
    derive = tuple(
        writer.add(_table(unit), part, known.get(part))
        for part, unit in ledger.derived(_MOST_DERIVED)
    )
    compute = tuple(writer.add(_table(unit)) for unit in ledger.computed(rows))
    writer.close()
    listed = ledger.images() * section.about["copies"]
    return Plan(
        place,
        manifest.version,
        replace(section, parts=tuple(parts)),
        compute=compute,
        derive=derive,
        unit_rows=rows,
        counts=dict.fromkeys(("hidden", "rejected", "failures"), 0)
        | {"listed": listed, "fresh": fresh, "reused": listed - fresh},
    )


def _table(copies: list[Copy]) -> pa.Table:
    images = images_table([c.image for c in copies], [c.sha256 for c in copies])
    return images.append_column(_NUMBER, pa.array([c.k for c in copies], _NUMBER.type))


def derive_copies(place: Place, row_kind: RowKind, unit: Unit, wanted: pa.Table) -> Part:
    """Writes the rows of a unit, with the vectors of its source part for their contents."""
    described, name = unit.part, "content"
    rows = read_checked(place, described, row_kind) if described else read_part(place, unit.source)
    places = find_rows(rows.append_column(name, _contents(rows)), _contents(wanted), name)
    return write_part(place, row_kind, identified(rows.take(places), wanted, row_kind))


def _contents(rows: pa.Table) -> pa.ChunkedArray:
    """Returns a key of each row's content and copy."""
    return pc.binary_join_element_wise(rows["sha256"], rows["k"].cast(pa.string()), " ")
