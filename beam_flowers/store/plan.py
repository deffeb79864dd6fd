"""The plan of a run: what is computed, what is derived, what stays, and the commit they end in."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import filterfalse, groupby
from typing import Any

import pyarrow as pa

from beam_flowers import files
from beam_flowers.errors import PartDamagedError, PartLostError
from beam_flowers.images.formats import FORMATS
from beam_flowers.images.rules import BY_INSTALLATION, changed_rules, is_outdated
from beam_flowers.records import NOT_AN_IMAGE, READ, added
from beam_flowers.store.commits import (
    Manifest,
    Section,
    committed,
    encoding_in,
    publish,
)
from beam_flowers.store.lease import Intent, commit_under_lease
from beam_flowers.store.ledger import Ledger, Rules, StoredRow
from beam_flowers.store.outcomes import Outcome, one_each
from beam_flowers.store.parts import (
    Part,
    Place,
    RejectRows,
    RowKind,
    derive,
    describe_part,
    encoded_otherwise,
    holds_rejects,
    iterate_part,
    read_checked,
    read_part,
    work_parts,
    write_part,
    write_parts,
)
from beam_flowers.store.rebase import HELD, held_rows
from beam_flowers.store.schema import (
    IMAGE_SCHEMA,
    images_of,
    images_table,
    rejects_table,
    rules_of,
)
from beam_flowers.store.work_units import (
    Unit,
    UnitWriter,
    partitions_for,
    write_sources,
    write_unchanged,
)

FEW_ROWS = 100
"""So many may leave a section whatever share of it they are."""
_AT_ONCE = 16
_FEWEST_ROWS, _MOST_ROWS = 128, 8192
_MOST_ALIKE = 1024
"""Files of one size that share a unit, however small units are. Else all files of a collection of
tiny pictures, which have few sizes, would be hashed first and so be read twice."""


@dataclass(frozen=True)
class Plan:
    """What a run will do; everything large lies in files beside the table.

    Attributes:
        place: the section written.
        base: the version the plan was made against.
        section: the section as it will be, without the parts still to be written.
        compute: units of files to read and embed.
        doubtful: units of files to hash first.
        rewrite: units of stored rows that stay while others of their part go.
        derive: units of files whose rows come from parts of another table.
        sources: number of partitions of the digests that doubtful files may equal.
        others: places of other tables whose vectors files of the same content take.
        unit_rows: files of a unit, about.
        made: what the manifest says of the command; see `Manifest.made`.
        exact: the section holds nothing but what was listed; see `Rules.exact`.
        counts: `listed`, `hidden`, `reused`, `rejected`, `failures` so far, and `fresh`;
            `reasons`: the rejects by error class. Where rows stay because too many would leave,
            `held` is the number of these and `covered` that of the rows that were listed, or left.
        undecided: what leaves depends on the contents of files still to be read; another plan on
            the same listing, once this one is committed, knows them.
    """

    place: Place
    base: int
    section: Section
    compute: tuple[Unit, ...] = ()
    doubtful: tuple[Unit, ...] = ()
    rewrite: tuple[Unit, ...] = ()
    derive: tuple[Unit, ...] = ()
    sources: int = 0
    others: tuple[Place, ...] = ()
    unit_rows: int = _FEWEST_ROWS
    exact: bool = False
    counts: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    undecided: bool = False

    @property
    def units(self) -> int:
        return len(self._all_units)

    @property
    def files(self) -> int:
        """Files whose rows the run writes: new ones, and those of parts that are written again."""
        return sum(unit.rows for unit in self._all_units)

    @property
    def _all_units(self) -> tuple[Unit, ...]:
        return self.compute + self.doubtful + self.rewrite + self.derive


def fill_ledger(
    ledger: Ledger,
    place: Place,
    manifest: Manifest,
    damaged: set[tuple[str, str]] | None = None,
) -> list[Part]:
    """Takes the stored rows in; returns the parts that are lost.

    Args:
        ledger: empty but for the listing.
        place: of the section.
        manifest: the version of the table.
        damaged: (folder of the table, name) of parts that are known to be damaged; those that
            turn out to be are added.
    """
    damaged = set() if damaged is None else damaged
    known = committed(manifest, place).parts
    lost = []
    for part in known:
        try:
            if (place.root, part.name) in damaged:
                raise PartLostError(place.locate(part.name))
            ledger.add_part(part.name, stored_rows(place, part.name), part.is_rejects, True)
        except PartLostError as error:
            lost.append(part)
            if isinstance(error, PartDamagedError):
                damaged.add((place.root, part.name))
    names = [part.name for part in known]
    for name in sorted(set(work_parts(place)).difference(names)):
        # `vacuum` may have withdrawn this run and deleted it by now.
        with contextlib.suppress(PartLostError):
            ledger.add_part(name, stored_rows(place, name), holds_rejects(name), False)
    return lost


def stored_rows(place: Place, name: str) -> Iterator[StoredRow]:
    """What the ledger needs of a part's rows, once for each file."""
    for _, rows in groupby(_stored_rows(place, name), key=lambda row: row.image.uri):
        yield next(rows)


def _stored_rows(place: Place, name: str) -> Iterator[StoredRow]:
    columns = [*IMAGE_SCHEMA.names, "format", "stage", "error_class", "message"]
    for table in iterate_part(place, name, columns):
        none = [None] * len(table)
        stages, reasons = (
            table[n].to_pylist() if holds_rejects(name) else none for n in ("stage", "error_class")
        )
        unread = [stage == READ for stage in stages]
        values = (images_of(table), table["sha256"].to_pylist(), reasons, unread)
        yield from (StoredRow(*row) for row in zip(*values, _outdated(table), strict=True))


def _outdated(table: pa.Table) -> list[bool]:
    """For each row or reject, if the rules have changed that it was made by."""
    changed = changed_rules(rules_of(table.schema))
    is_of_rejects = "stage" in table.schema.names
    if not changed and not (
        is_of_rejects and BY_INSTALLATION & {*table["error_class"].unique().to_pylist()}
    ):
        return [False] * len(table)
    if is_of_rejects:
        verdicts = (table[name].to_pylist() for name in ("stage", "error_class", "message"))
        return [is_outdated(changed, *verdict) for verdict in zip(*verdicts, strict=True)]
    if "format" in table.schema.names:
        # Behind a comma stands what is missing of the picture.
        formats = ((format_ or "").partition(",")[0] for format_ in table["format"].to_pylist())
        return [format_ in changed for format_ in formats]
    # Scores do not tell.
    return [not changed.isdisjoint(FORMATS)] * len(table)


def unit_rows(count: int, shards: int | None) -> int:
    """Rows of a unit for `count` files: as many as there are units then.

    A worker holds some fifteen times a unit's vectors, of which one is computed while the one
    before is encoded and written; the driver holds the list of units. Neither grows faster than
    the root of the work.
    128 rows at least, since a Parquet file costs some 12 KB by itself: of 1280 float16 in files of
    40 rows a seventh (benchmarks/store_size.py);
    8192 at most, which is parts of some 40 MB; fifty million files are seven thousand parts.
    """
    if shards:
        return max(1, -(-count // shards))
    return max(_FEWEST_ROWS, min(_MOST_ROWS, math.isqrt(count)))


def absent_roots(roots: Mapping[str, bool]) -> list[str]:
    """Those of the roots that are not there any more; one that cannot be asked for is.

    Args:
        roots: by address, if the answer matters. Where it does not, no server is asked: the run
            may have nothing else to do with it.
    """
    asked = [root for root, matters in roots.items() if matters or files.is_local(root)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        gone = pool.map(files.is_certainly_gone, asked)
        return [root for root, is_absent in zip(asked, gone, strict=True) if is_absent]


def make_plan(
    ledger: Ledger,
    place: Place,
    manifest: Manifest,
    kind: RowKind,
    section: Section,
    rules: Rules,
    shards: int | None = None,
    others: Sequence[tuple[Place, Section]] = (),
    max_removed_fraction: float = 1.0,
    lost: Sequence[Part] = (),
) -> Plan:
    """Joins the listing with the table and writes the units of work beside it.

    Args:
        ledger: filled by `fill_ledger`.
        place: the section to write; its `run` names this run's own files.
        manifest: the version that the ledger was filled from.
        kind: of the section's rows.
        section: its fingerprint and description; parts and roots are ignored.
        rules: of the join.
        shards: number of units wanted; by default it follows from the number of files.
        others: sections of other tables whose vectors files of the same content take.
        max_removed_fraction: of the rows that the listing covers; if more would leave, and more
            than `FEW_ROWS`, then none does.
        lost: parts of the section that are gone or damaged; see `Section.lost`.
    """
    ledger.join(rules)
    known = committed(manifest, place)
    held, undecided = _settle_members(ledger, known, max_removed_fraction)
    fresh = ledger.fresh()
    rows = unit_rows(fresh, shards)
    if fresh:
        _add_others(ledger, others)
    described = {p.name: p for p in known.parts}
    parts, partly = _standing_parts(ledger, place, known, kind, section, described)
    roots = {*known.roots, *ledger.complete_roots()}
    plan = Plan(
        place,
        manifest.version,
        replace(
            section,
            about=section.about | _remembered(ledger, known, held),
            parts=tuple(parts),
            roots=tuple(sorted(roots)),
            lost=(*known.lost, *lost),
        ),
        others=tuple(other for other, _ in others),
        exact=rules.exact,
        counts=_counts(ledger) | held,
        undecided=undecided,
    )
    tables = (known, *(other for _, other in others))
    sources = {f"{n}/{part.name}": part for n, table in enumerate(tables) for part in table.rows}
    partly = list(filterfalse(holds_rejects, partly))
    return _write_units(ledger, plan, rows, partly, described, sources)


def _standing_parts(
    ledger: Ledger,
    place: Place,
    known: Section,
    kind: RowKind,
    section: Section,
    described: Mapping[str, Part],
) -> tuple[list[Part], list[str]]:
    """Returns the parts that stay, with all known rejects, and names of those to write again."""
    whole, partly = ledger.part_names()
    stale = set(_stale(place, whole, known, section))
    whole, partly = [n for n in whole if n not in stale], [*partly, *sorted(stale)]
    parts = [described.get(n) or describe_part(place, n, kind) for n in whole]
    parts += _rewrite_rejects(ledger, place, filter(holds_rejects, partly), described)
    return parts + _found_rejects(ledger, place), partly


def _settle_members(ledger: Ledger, known: Section, fraction: float) -> tuple[dict[str, int], bool]:
    """Lets ghosts leave, and all others stay if they are too many.

    Returns:
        The counts of what stays therefore, and `Plan.undecided`.
    """
    ledger.take_out_ghosts(absent_roots(ledger.stray_roots()))
    undecided = ledger.is_undecided()
    going = ledger.going()
    # What was added since does not make the share of what is missing any smaller.
    covered = min(going.covered, held_rows(known).get(ledger.listing_name(), going.covered))
    if going.rows <= max(FEW_ROWS, fraction * covered):
        return {}, undecided
    ledger.hold()
    return {"held": going.rows, "covered": covered}, undecided or going.doubtful > 0


def _remembered(ledger: Ledger, known: Section, held: dict[str, int]) -> dict[str, Any]:
    """The entry of `about` that the next run reads by `held_rows`."""
    earlier = held_rows(known)
    earlier.pop(ledger.listing_name(), None)
    if held:
        earlier[ledger.listing_name()] = held["covered"]
    return {HELD: earlier} if earlier else {}


def _add_others(ledger: Ledger, others: Sequence[tuple[Place, Section]]) -> None:
    for number, (place, section) in enumerate(others, start=1):
        for part in section.rows:
            # Another run may have replaced it by now: then its files are computed again.
            with contextlib.suppress(PartLostError):
                ledger.add_part(part.name, stored_rows(place, part.name), False, True, number)


def _stale(place: Place, names: Iterable[str], known: Section, wanted: Section) -> Iterator[str]:
    """Parts to be written again, as their vectors shall be encoded otherwise."""
    encoding = encoding_in(wanted)
    if encoding_in(known) == encoding:
        names = set(names).difference(p.name for p in known.parts)
    return encoded_otherwise(place, sorted(names), encoding)


def _counts(ledger: Ledger) -> dict[str, Any]:
    reasons = Counter(ledger.known_rejects())
    reasons.update(reject.error_class for reject in ledger.found_rejects())
    return {
        "listed": ledger.listed() + ledger.hidden,
        "hidden": ledger.hidden,
        "fresh": ledger.fresh(),
        "reused": ledger.known(),
        "rejected": reasons.total(),
        "failures": reasons.total() - reasons[NOT_AN_IMAGE],
        "reasons": dict(reasons),
    }


def _rewrite_rejects(
    ledger: Ledger, place: Place, names: Iterable[str], described: Mapping[str, Part]
) -> list[Part]:
    return [
        derive_part(
            place,
            RejectRows(),
            name,
            stored_table(ledger.remaining(name)),
            "uri",
            described.get(name),
        )
        for name in names
    ]


def _found_rejects(ledger: Ledger, place: Place) -> list[Part]:
    rejects = list(ledger.found_rejects())
    return [write_part(place, RejectRows(), rejects_table(rejects))] if rejects else []


def derive_part(
    place: Place,
    kind: RowKind | RejectRows,
    source: str,
    images: pa.Table,
    key: str,
    described: Part | None = None,
) -> Part:
    """Writes the rows of part `source` under the identities in `images`: see `derive`.

    Args:
        place: of the section.
        kind: of the rows.
        source: name of a part.
        images: see `derive`.
        key: likewise.
        described: what the manifest says of the part, by which it is checked.

    Raises:
        PartDamagedError: it is not as it was written.
    """
    rows = _source(place, source, kind, described)
    return write_part(place, kind, derive(rows, images, key, kind))


def _source(
    place: Place, name: str, kind: RowKind | RejectRows, described: Part | None
) -> pa.Table:
    # A part that a killed run left is named by no manifest; its pages have checksums.
    return read_checked(place, described, kind) if described else read_part(place, name)


def derive_parts(
    place: Place,
    kind: RowKind,
    source: str,
    images: pa.Table,
    key: str,
    source_place: Place | None = None,
    described: Part | None = None,
) -> tuple[Part, ...]:
    """`derive_part` for a table that may have partitions; the source may be another table's."""
    rows = _source(source_place or place, source, kind, described)
    return write_parts(place, kind, derive(rows, images, key, kind))


def stored_table(rows: list[StoredRow]) -> pa.Table:
    """`IMAGE_SCHEMA` table of stored rows."""
    return images_table([r.image for r in rows], [r.sha256 for r in rows])


def _write_units(
    ledger: Ledger,
    plan: Plan,
    rows: int,
    partly: Iterable[str],
    described: Mapping[str, Part],
    sources: Mapping[str, Part],
) -> Plan:
    """Writes the units, and the digests that doubtful files may have.

    Args:
        ledger: joined.
        plan: without units.
        rows: files of a unit.
        partly: names of the parts to be written again.
        described: the section's parts, as the manifest has them, by name.
        sources: parts that files may take vectors from, of other tables too, by `<place>/<name>`.
    """
    writer = UnitWriter(plan.place.run_file("units.parquet"))
    rewrite = tuple(
        writer.add(stored_table(ledger.remaining(name)), name, described.get(name))
        for name in partly
    )
    plan = replace(plan, rewrite=rewrite, unit_rows=rows)
    if ledger.sections:
        derive = (writer.add(stored_table(unit), parts) for parts, unit in ledger.source_units())
        plan = replace(plan, derive=tuple(derive))
    else:
        ledger.doubt(max(rows, _MOST_ALIKE))
        compute = tuple(writer.add(images_table(unit)) for unit in ledger.fresh_units(rows))
        doubtful = tuple(writer.add(images_table(unit)) for unit in ledger.doubtful_units(rows))
        partitions = partitions_for(len(doubtful), rows)
        write_sources(ledger, plan.place, partitions, sources)
        plan = replace(plan, compute=compute, doubtful=doubtful, sources=partitions)
    writer.close()
    write_unchanged(plan.place, ledger.unchanged(), described)
    return plan


def is_done(plan: Plan, manifest: Manifest) -> bool:
    """True if the plan changes nothing at all."""
    before = committed(manifest, plan.place)
    same = (set(before.parts), before.roots, before.lost) == (
        set(plan.section.parts),
        plan.section.roots,
        plan.section.lost,
    )
    return same and not plan.units and plan.place.section in manifest.sections


def finish(plan: Plan, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Commits and publishes what the run made; the pipeline's last and idempotent step.

    Returns:
        The run's counts, with `committed` False where another writer was first and its changes
        are not disjoint, or where the run was withdrawn: then the work lies in `__work`, and the
        next plan takes it up. With `problems` if there were any, with `damaged` parts, without
        which the driver plans again, and with `lost`, the message about parts that are gone.
    """
    outcomes = list(outcomes)
    problems = sorted({outcome.problem for outcome in outcomes if outcome.problem})
    if problems:
        return leave_result(plan.place, {"committed": False, "problems": problems})
    # A runner that repeats a bundle may deliver what it gave before as well.
    outcomes = one_each(outcomes)
    parts = {p.name: p for p in plan.section.parts}
    parts |= {p.name: p for o in outcomes for p in o.parts}
    section = replace(plan.section, parts=tuple(parts[name] for name in sorted(parts)))
    counts = add_counts(plan.counts, outcomes)
    damaged = sorted({part for outcome in outcomes for part in outcome.damaged})
    if damaged:
        return leave_result(plan.place, {**counts, "committed": False, "damaged": damaged})
    if lost := sorted({outcome.lost for outcome in outcomes if outcome.lost}):
        return leave_result(plan.place, {**counts, "committed": False, "lost": lost})
    intent = Intent(plan.base, section, counts, plan.made, plan.exact)
    committed_as = commit_under_lease(plan.place, intent)
    if committed_as is None:
        return leave_result(plan.place, {**counts, "committed": False})
    # A repeated step says what was committed, also where a unit was made again since.
    result = leave_result(plan.place, {**committed_as.counts, "committed": True})
    publish(plan.place.root)
    return result


def leave_result(place: Place, result: dict[str, Any]) -> dict[str, Any]:
    """Writes down what a run did, where its driver looks when the pipeline has ended."""
    files.write_atomic(place.run_file("result.json"), json.dumps(result).encode())
    return result


def add_counts(counts: dict[str, Any], outcomes: Iterable[Outcome]) -> dict[str, int]:
    """`counts` with what the outcomes add."""
    outcomes = list(outcomes)
    rejects = [p for o in outcomes for p in o.parts if p.is_rejects]
    reasons = Counter(counts.get("reasons", {}))
    unread = Counter(counts.get("unread", {}))
    for outcome in outcomes:
        reasons.update(outcome.reasons)
        unread.update(outcome.unread)
    seconds = added(outcome.seconds for outcome in outcomes)
    return {
        **counts,
        **({"unread": dict(sorted(unread.items()))} if unread else {}),
        "embedded": sum(o.computed for o in outcomes),
        "reused": counts["reused"] + sum(o.reused for o in outcomes),
        "rejected": counts["rejected"] + sum(p.rows for p in rejects),
        "failures": counts["failures"] + sum(p.failures for p in rejects),
        "reasons": dict(sorted(reasons.items())),
        "seconds": {name: round(value, 3) for name, value in seconds._asdict().items()},
    }
