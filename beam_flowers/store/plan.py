"""Plans a run, the rows to compute, to derive and to keep, and commits its results."""

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
from beam_flowers.store.commits import Manifest, Section, committed, encoding_in, publish
from beam_flowers.store.lease import commit_under_lease
from beam_flowers.store.ledger import Ledger, Rules, StoredRow
from beam_flowers.store.outcomes import Outcome, one_each
from beam_flowers.store.parts import (
    Part,
    PartKind,
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
from beam_flowers.store.rebase import HELD, Intent, held_rows
from beam_flowers.store.schema import IMAGE_SCHEMA, images_of, images_table, rejects_table, rules_of
from beam_flowers.store.work_units import (
    Unit,
    UnitWriter,
    partitions_for,
    write_sources,
    write_unchanged,
)

FEW_ROWS = 100
"""Number of rows that may leave a section even if they are a large share of it."""
_AT_ONCE = 16
_FEWEST_ROWS, _MOST_ROWS = 128, 8192
_MOST_ALIKE = 1024
"""Number of files of one size that may share a unit, even if units are smaller. Tiny images have
few sizes: without this, all files of such a collection would be hashed first, so read twice."""


@dataclass(frozen=True)
class Plan:
    """Plan of a run; large data is in files below the table's `__work`.

    Attributes:
        place: place of the section to write.
        base: the version that the plan was made on.
        section: the section to commit, without the parts still to be written.
        compute: units of files to read and embed.
        doubtful: units of files to hash first.
        rewrite: units of stored rows that stay while others of their part leave.
        derive: units of files whose rows come from parts of another table.
        sources: number of partitions of the digests that doubtful files may equal.
        others: places of other tables; files of the same content take their vectors.
        unit_rows: approximate number of files of a unit.
        made: `Manifest.made` of the commit.
        exact: the section holds only rows of listed files; see `Rules.exact`.
        counts: `listed`, `hidden`, `reused`, `rejected`, `failures` so far, and `fresh`;
            `reasons`: the rejects by error class. If rows stay because too many would leave,
            `held` is the number of these, and `covered` that of all rows that the listing covers.
        undecided: the rows that leave depend on the contents of files still to be read. After this
            plan's commit another plan on the same listing knows the contents.
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
        """Number of files whose rows the run writes: new ones, and those of rewritten parts."""
        return sum(unit.rows for unit in self._all_units)

    @property
    def _all_units(self) -> tuple[Unit, ...]:
        return self.compute + self.doubtful + self.rewrite + self.derive


def fill_ledger(
    ledger: Ledger, place: Place, manifest: Manifest, damaged: set[tuple[str, str]] | None = None
) -> list[Part]:
    """Adds the stored rows to a ledger; returns the parts that are lost.

    Args:
        ledger: has the listing only.
        place: of the section.
        manifest: version of the table.
        damaged: (folder of the table, name) of parts known to be damaged; this adds those that
            turn out to be damaged.
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
    # Parts that killed runs or earlier attempts left; `adopt_work` has moved them to this run.
    names = [part.name for part in known]
    for name in sorted(set(work_parts(place)).difference(names)):
        # `vacuum` may have withdrawn this run and deleted it by now.
        with contextlib.suppress(PartLostError):
            ledger.add_part(name, stored_rows(place, name), holds_rejects(name), False)
    return lost


def stored_rows(place: Place, name: str) -> Iterator[StoredRow]:
    """Yields the rows of a part as the ledger needs them, one for each file."""
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
    """Tells for each row or reject if the rules that it was made by have changed."""
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
        # The format's name ends at a comma; after it comes the part of the image that is missing.
        formats = ((format_ or "").partition(",")[0] for format_ in table["format"].to_pylist())
        return [format_ in changed for format_ in formats]
    # Rows of scores have no format, so a changed rule of any format makes them outdated.
    return [not changed.isdisjoint(FORMATS)] * len(table)


def unit_rows(count: int, shards: int | None) -> int:
    """Returns the number of rows of a unit for `count` files: the root of `count`, within limits.

    A worker holds some fifteen times a unit's vectors, as it computes a unit while it encodes and
    writes the one before. The driver holds the list of units. With the root, neither grows faster
    than the root of the work.
    The least is 128 rows, since a Parquet file itself costs some 12 KB: a seventh of its size with
    40 rows of 1280 float16 (benchmarks/store_size.py). The most is 8192, which gives parts of some
    40 MB; fifty million files are seven thousand parts.

    Args:
        count: number of files.
        shards: number of units wanted; None for the rule above.
    """
    if shards:
        return max(1, -(-count // shards))
    return max(_FEWEST_ROWS, min(_MOST_ROWS, math.isqrt(count)))


def absent_roots(roots: Mapping[str, bool]) -> list[str]:
    """Returns the roots that are certainly gone; one that cannot be looked for counts as present.

    Args:
        roots: by address, True if the answer matters. If not, no server is asked, as the run may
            not need that server otherwise.
    """
    asked = [root for root, matters in roots.items() if matters or files.is_local(root)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        gone = pool.map(files.is_certainly_gone, asked)
        return [root for root, is_absent in zip(asked, gone, strict=True) if is_absent]


def make_plan(
    ledger: Ledger,
    place: Place,
    manifest: Manifest,
    row_kind: RowKind,
    section: Section,
    rules: Rules,
    shards: int | None = None,
    others: Sequence[tuple[Place, Section]] = (),
    max_removed_fraction: float = 1.0,
    lost: Sequence[Part] = (),
) -> Plan:
    """Joins the listing with the table and writes the units of work below the table's `__work`.

    Args:
        ledger: filled by `fill_ledger`.
        place: of the section to write; its `run` names this run's own files.
        manifest: the version that the ledger was filled from.
        row_kind: of the section's rows.
        section: has the fingerprint and description; parts and roots are ignored.
        rules: of the join.
        shards: number of units wanted; by default it follows from the number of files.
        others: sections of other tables; files of the same content take their vectors.
        max_removed_fraction: largest share of the rows that the listing covers that may leave. If
            more would leave, and more than `FEW_ROWS`, all rows stay.
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
    parts, partly = _standing_parts(ledger, place, known, row_kind, section, described)
    writer = UnitWriter(place.run_file("units.parquet"))
    rewrite = [writer.add(stored_table(ledger.remaining(n)), n, described.get(n)) for n in partly]
    compute: list[Unit] = []
    doubtful: list[Unit] = []
    derive: list[Unit] = []
    partitions = 0
    if ledger.sections:
        derive = [writer.add(stored_table(unit), part) for part, unit in ledger.source_units()]
    else:
        ledger.doubt(max(rows, _MOST_ALIKE))
        compute = [writer.add(images_table(unit)) for unit in ledger.fresh_units(rows)]
        doubtful = [writer.add(images_table(unit)) for unit in ledger.doubtful_units(rows)]
        partitions = partitions_for(len(doubtful), rows)
        tables = (known, *(other for _, other in others))
        sources = {f"{n}/{p.name}": p for n, table in enumerate(tables) for p in table.rows}
        write_sources(ledger, place, partitions, sources)
    writer.close()
    write_unchanged(place, ledger.unchanged(), described)
    return Plan(
        place,
        manifest.version,
        replace(
            section,
            about=section.about | _remembered(ledger, known, held),
            parts=tuple(parts),
            roots=tuple(sorted({*known.roots, *ledger.complete_roots()})),
            lost=(*known.lost, *lost),
        ),
        compute=tuple(compute),
        doubtful=tuple(doubtful),
        rewrite=tuple(rewrite),
        derive=tuple(derive),
        sources=partitions,
        others=tuple(other for other, _ in others),
        unit_rows=rows,
        exact=rules.exact,
        counts=_counts(ledger) | held,
        undecided=undecided,
    )


def _standing_parts(
    ledger: Ledger,
    place: Place,
    known: Section,
    row_kind: RowKind,
    section: Section,
    described: Mapping[str, Part],
) -> tuple[list[Part], list[str]]:
    """Returns the parts that stay, with all known rejects, and the names of those to rewrite."""
    whole, partly = ledger.part_names()
    stale = set(_stale(place, whole, known, section))
    whole, partly = [n for n in whole if n not in stale], [*partly, *sorted(stale)]
    parts = [described.get(n) or describe_part(place, n, row_kind) for n in whole]
    for name in filter(holds_rejects, partly):
        images = stored_table(ledger.remaining(name))
        parts += derive_parts(
            place, RejectRows(), name, images, "uri", described=described.get(name)
        )
    if rejects := list(ledger.found_rejects()):
        parts.append(write_part(place, RejectRows(), rejects_table(rejects)))
    return parts, list(filterfalse(holds_rejects, partly))


def _settle_members(ledger: Ledger, known: Section, fraction: float) -> tuple[dict[str, int], bool]:
    """Removes rows of renamed roots, and keeps all rows if too many would leave.

    Returns:
        The counts `held` and `covered`, empty if rows may leave, and `Plan.undecided`.
    """
    ledger.take_out_ghosts(absent_roots(ledger.stray_roots()))
    undecided = ledger.is_undecided()
    going = ledger.going()
    # Files that were added since must not make the share of the missing ones smaller.
    covered = min(going.covered, held_rows(known).get(ledger.listing_name(), going.covered))
    if going.rows <= max(FEW_ROWS, fraction * covered):
        return {}, undecided
    ledger.hold()
    return {"held": going.rows, "covered": covered}, undecided or going.doubtful > 0


def _remembered(ledger: Ledger, known: Section, held: dict[str, int]) -> dict[str, Any]:
    """Returns the entry of `about` that the next run reads by `held_rows`."""
    earlier = held_rows(known)
    earlier.pop(ledger.listing_name(), None)
    if held:
        earlier[ledger.listing_name()] = held["covered"]
    return {HELD: earlier} if earlier else {}


def _add_others(ledger: Ledger, others: Sequence[tuple[Place, Section]]) -> None:
    for number, (place, section) in enumerate(others, start=1):
        for part in section.rows:
            # Another run may have replaced the part: then its files are computed again.
            with contextlib.suppress(PartLostError):
                ledger.add_part(part.name, stored_rows(place, part.name), False, True, number)


def _stale(place: Place, names: Iterable[str], known: Section, wanted: Section) -> Iterator[str]:
    """Yields the names of parts to rewrite, as their vectors have another encoding than wanted."""
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


def derive_parts(
    place: Place,
    row_kind: PartKind,
    source: str,
    images: pa.Table,
    key: str,
    source_place: Place | None = None,
    described: Part | None = None,
) -> tuple[Part, ...]:
    """Writes rows of part `source` under the identities in `images`, by partition; see `derive`.

    Args:
        place: of the section to write.
        row_kind: of the rows.
        source: name of the part.
        images: see `derive`.
        key: see `derive`.
        source_place: of the part's section, if it is another.
        described: the part as the manifest describes it, to check its bytes; None if no manifest
            does.

    Raises:
        PartDamagedError: the part is not as it was written.
    """
    whence = source_place or place
    # No manifest describes a part that a killed run left; its pages have checksums.
    rows = read_checked(whence, described, row_kind) if described else read_part(whence, source)
    return write_parts(place, row_kind, derive(rows, images, key, row_kind))


def stored_table(rows: list[StoredRow]) -> pa.Table:
    """Returns stored rows as a table in `IMAGE_SCHEMA`."""
    return images_table([r.image for r in rows], [r.sha256 for r in rows])


def is_done(plan: Plan, manifest: Manifest) -> bool:
    """Tells if the plan changes nothing."""
    before, after = committed(manifest, plan.place), plan.section
    same = (before.roots, before.lost) == (after.roots, after.lost)
    same = same and set(before.parts) == set(after.parts)
    return same and not plan.units and plan.place.section in manifest.sections


def finish(plan: Plan, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Commits and publishes the results of a run; the last step of a pipeline, and idempotent.

    Returns:
        The run's counts and `committed`. It is False if the run was withdrawn, or another writer
        was first with changes that are not disjoint. Then the work stays in `__work` for the next
        plan. It is also False with one of these: `problems`; `damaged`, the parts without which
        the driver plans again; `lost`, the messages about parts that are gone.
    """
    outcomes = list(outcomes)
    problems = sorted({outcome.problem for outcome in outcomes if outcome.problem})
    if problems:
        return leave_result(plan.place, {"committed": False, "problems": problems})
    # A runner that repeats a bundle may deliver the outcomes of both attempts.
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
    # A repeated step returns the committed counts, even if a unit was made again since.
    result = leave_result(plan.place, {**committed_as.counts, "committed": True})
    publish(plan.place.root)
    return result


def leave_result(place: Place, result: dict[str, Any]) -> dict[str, Any]:
    """Writes the result of a run to where its driver reads it after the pipeline; returns it."""
    files.write_atomic(place.run_file("result.json"), json.dumps(result).encode())
    return result


def add_counts(counts: dict[str, Any], outcomes: Iterable[Outcome]) -> dict[str, int]:
    """Returns `counts` increased by those of the outcomes."""
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
