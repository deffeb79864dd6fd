"""Brings a store up to date with images."""

from __future__ import annotations

import contextlib
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec

from beam_flowers import files
from beam_flowers.backbones.catalogue import find_row
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import (
    InputError,
    PartDamagedError,
    PartLostError,
    StoreError,
    StoreFieldError,
)
from beam_flowers.files.typed import MOST_FREE_BYTES, Count, Form
from beam_flowers.images.find import find_images
from beam_flowers.images.labels import collisions, is_hidden
from beam_flowers.images.recipe import DEFAULT_LIMITS, Limits
from beam_flowers.pages.format import counted
from beam_flowers.records import Listed, Reject, RootListed, Say
from beam_flowers.store.commits import (
    Manifest,
    Section,
    committed,
    encoding_in,
    latest,
    require_outer_table,
    require_table_place,
)
from beam_flowers.store.features import scored_root, section_name
from beam_flowers.store.lease import Heart, adopt_work, is_withdrawn_by_another
from beam_flowers.store.ledger import Ledger, Rules, StoredRow
from beam_flowers.store.parts import Part, Place, RowKind
from beam_flowers.store.plan import Plan, fill_ledger, is_done, make_plan, stored_rows
from beam_flowers.store.schema import StoreRows
from beam_flowers.store.table import Race
from beam_flowers.store.whole import is_new
from beam_flowers.transforms.prefetch import head_start
from beam_flowers.transforms.preflight import unfit
from beam_flowers.workflows.progress import Progress, watched
from beam_flowers.workflows.summary import EmbedSummary as EmbedSummary
from beam_flowers.workflows.wrong_pixels import doubt

_NAMED_ROOTS = 3
_GREAT_SHARE, _GREAT_SIZE = 0.25, 1_000_000
"""Rows, as a share, and bytes of replaced parts from which on a run says how much room they take;
another encoding is always reported."""


@dataclass(frozen=True)
class RunOptions:
    """Holds the options of every run over images.

    Attributes:
        pipeline: Beam's own options as flags, `["--runner=FlinkRunner", ...]`.
        shards: units of work; by default it follows from the number of files.
        retry_rejects: try files again that were rejected.
        verify: trust no stored row; read every file again.
        made: `command` and `options` for the history of the table; nothing that is secret.
        limits: bounds on the cost of one image. Images that other limits accepted or rejected
            stay so; `retry_rejects` looks at the rejected ones again.
        max_removed_fraction: of the stored rows that a listing covers. If the files of more are
            gone, and of more than 100, `embed` takes none out: a disk may not be mounted.
        manifest_schemes: that rows of manifests and lists may name besides local files and the
            scheme of the manifest, `["s3"]`; rows of others are rejects.
    """

    pipeline: Sequence[str] = ()
    shards: int | None = None
    retry_rejects: bool = False
    verify: bool = False
    made: Mapping[str, Any] = field(default_factory=dict)
    max_removed_fraction: float = 0.25
    limits: Limits = DEFAULT_LIMITS
    manifest_schemes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.max_removed_fraction <= 1:
            raise InputError(
                "max_removed_fraction is a share from 0 to 1, not "
                f"{self.max_removed_fraction!r}; 1 allows all"
            )
        if self.shards is not None and self.shards < 1:
            raise InputError(f"shards must be 1 or more, not {self.shards!r}")

    def apply(self) -> None:
        """Lets this process reach files with the pipeline's options, before any work.

        Raises:
            InputError: Beam does not take one of them.
        """
        if self.pipeline:
            # Beam takes two seconds to import; a run that has nothing to do goes without.
            from beam_flowers.transforms.runner import reach_files

            reach_files(self.pipeline)


class RunResult(msgspec.Struct, frozen=True):
    """Holds the fields of `result.json` that are read; see `plan.finish`.

    Attributes:
        covered: see `Plan.counts`; likewise `held` and the counts.
    """

    committed: bool
    problems: list[str] = []
    lost: list[str] = []
    damaged: list[tuple[str, str]] = []
    embedded: Count = 0
    listed: Count = 0
    reused: Count = 0
    rejected: Count = 0
    hidden: Count = 0
    failures: Count = 0
    held: Count = 0
    covered: Count = 0
    reasons: dict[str, Count] = {}
    unread: dict[str, Count] = {}
    seconds: dict[str, float] = {}

    @classmethod
    def of_nothing(cls, plan: Plan) -> RunResult:
        """Returns the result of a plan that changes nothing."""
        return msgspec.convert({**plan.counts, "committed": True}, cls)


_RESULT = Form(RunResult, StoreFieldError, "run this again", most=MOST_FREE_BYTES)
NOT_COMMITTED = RunResult(committed=False)
"""The result of a run that computed nothing and lost a race."""


@dataclass
class TableRun:
    """Brings a section of a table up to date with a listing, in one run.

    Attributes:
        root: the table's folder.
        section: folder of the section below it.
        described: fingerprint and description of the section.
        row_kind: of its rows.
        rules: of the join.
        shards: see `RunOptions`.
        warn: takes a line for the user.
        progress: gets the state of the run, again and again.
        others: folders of other tables that have such a section, whose vectors are taken for
            files of the same content.
        reads: folders of further tables that rows are made from.
        leaves_out: files that one of `others` has, as they are listed, are no matter of this
            table, and it gets no commit that has no rows.
        damaged: (folder of the table, name) of parts that this run has found damaged.
        lost: rows of the parts that this run has found gone or damaged.
        replaced: see `EmbedSummary`.
        made: see `RunOptions`.
        max_removed_fraction: see `RunOptions`; None for a table whose rows come and go unasked.
        on_listed: takes uri, label and path of the images that are listed, at the latest when a
            plan is committed; what it took for an earlier plan does not count then.
    """

    root: str
    section: str
    described: Section
    row_kind: RowKind
    rules: Rules
    shards: int | None = None
    warn: Say = print
    progress: Progress | None = None
    others: Sequence[str] = ()
    reads: Sequence[str] = ()
    leaves_out: bool = False
    damaged: set[tuple[str, str]] = field(default_factory=set)
    lost: int = 0
    replaced: int = 0
    made: Mapping[str, Any] = field(default_factory=dict)
    max_removed_fraction: float | None = None
    on_listed: Callable[[Iterable[tuple[str, str | None, str]]], None] | None = None

    def bring_up_to_date(
        self,
        list_into: Callable[[Ledger], None],
        carry_out: Callable[[Plan], None],
        whole: Callable[[Place, Manifest], Plan] | None = None,
    ) -> EmbedSummary:
        """Plans and carries out until a plan is committed or has nothing to do.

        A plan fails to commit only when another writer was first, or withdrew this run; then what
        it computed lies in the table's `__work` and the next plan finds it there.

        Args:
            list_into: fills in what the table shall have.
            carry_out: runs a plan.
            whole: makes the plan without a listing, where the table has nothing yet.
        """
        self._require_own_kind()
        # Of the parts that are read another run may replace some: then it made a new version, and
        # this run plans on that. A part that is lost without one is lost for good.
        race, earlier = Race(self.root, [*self.others, *self.reads]), 0
        while True:
            base = race.start()
            try:
                result = self._attempt(base, list_into, carry_out, whole)
            except PartLostError:
                if not race.is_lost():
                    raise
                continue
            if result.committed:
                return self._summary(result, earlier)
            earlier += result.embedded

    def _require_own_kind(self) -> None:
        require_table_place(self.root)
        held = latest(self.root).sections
        if held and ("" in held) != (self.section == ""):
            other = "a table of scores" if "" in held else "a feature store"
            raise StoreError(f"{self.root} is {other}; give this run another folder")

    def _attempt(
        self,
        base: Manifest,
        list_into: Callable[[Ledger], None],
        carry_out: Callable[[Plan], None],
        whole: Callable[[Place, Manifest], Plan] | None,
    ) -> RunResult:
        """Plans against the newest version and carries the plan out, once."""
        place = Place(self.root, self.section, self.described.fingerprint, secrets.token_hex(8))
        with Heart(place) as heart, closing(Ledger()) as ledger:
            if base.version:
                heart.start()  # A new table stays unmade until there is something for it.
            if whole and adopt_work(place, base) and is_new(place, base):
                return self._carry_out(whole(place, base), base, carry_out, heart)
            try:
                self._list(ledger, list_into)
                if not adopt_work(place, base):
                    return NOT_COMMITTED
                lost = fill_ledger(ledger, place, base, self.damaged)
                plan = self._plan_listed(ledger, place, base, lost)
                result = self._carry_out(plan, base, carry_out, heart)
                if result.committed and plan.undecided:
                    plan, result = self._decide(ledger, place, result, carry_out)
                if result.committed:
                    self._warn_of_losses(place, lost)
                    self._warn_of_unread(result)
                    self._warn_of_absent(ledger, result)
                    self._warn_of_labels(ledger, place, plan)
                    if self.on_listed:
                        self.on_listed(ledger.listed_images())
                return result
            except PartDamagedError as error:
                self._note_damage(error.root, error.name)
                return NOT_COMMITTED

    def _list(self, ledger: Ledger, list_into: Callable[[Ledger], None]) -> None:
        progress = self.progress or Progress()
        progress.begin("listing")
        list_into(ledger)
        progress.begin("planning")
        if ledger.is_empty():
            places = "".join(f" in {root!r}" for root in ledger.complete_roots()[:1])
            raise InputError(
                f"there is no file to read{places}; name a folder that has images in it"
            )

    def _plan_listed(
        self, ledger: Ledger, place: Place, base: Manifest, lost: Sequence[Part]
    ) -> Plan:
        others = self._other_sections(place)
        if self.leaves_out:
            self._leave_out(ledger, others)
        plan = self._plan(ledger, place, base, self.rules, others, lost)
        ledger.rest()
        return plan

    def _plan(
        self,
        ledger: Ledger,
        place: Place,
        base: Manifest,
        rules: Rules,
        others: Sequence[tuple[Place, Section]] = (),
        lost: Sequence[Part] = (),
    ) -> Plan:
        return make_plan(
            ledger,
            place,
            base,
            self.row_kind,
            self.described,
            rules,
            self.shards,
            others,
            1.0 if self.max_removed_fraction is None else self.max_removed_fraction,
            # A table that holds exactly what is listed makes all of it again.
            () if rules.exact else lost,
        )

    def _decide(
        self,
        ledger: Ledger,
        place: Place,
        first: RunResult,
        carry_out: Callable[[Plan], None],
    ) -> tuple[Plan, RunResult]:
        """Plans what leaves and carries it out, now that the contents of all files are stored."""
        base = latest(self.root)
        place = replace(place, run=secrets.token_hex(8))
        ledger.empty()
        lost = fill_ledger(ledger, place, base, self.damaged)
        rules = self.rules._replace(verify=False, retry=False, reread=False)
        with Heart(place) as heart:
            plan = self._plan(ledger, place, base, rules, lost=lost)
            result = self._carry_out(plan, base, carry_out, heart)
        # What the first plan computed, the second one found as known.
        return plan, msgspec.structs.replace(
            result,
            embedded=first.embedded,
            reused=result.reused - (first.embedded if result.committed else 0),
            unread=first.unread,
            seconds=first.seconds,
        )

    def _warn_of_unread(self, result: RunResult) -> None:
        if result.unread:
            reasons = ", ".join(f"{name} {count:,}" for name, count in result.unread.items())
            unread = counted(sum(result.unread.values()), "file")
            self.warn(
                f"{unread} could not be read ({reasons}); what is stored of them stays, as their "
                "sizes and times are unchanged. Run this again"
            )

    def _warn_of_absent(self, ledger: Ledger, result: RunResult) -> None:
        """Warns of the rows that stay although their files or roots are gone."""
        if self.max_removed_fraction is None:
            return
        if result.held:
            self.warn(
                f"{result.held:,} of {result.covered:,} stored images are not there any more, "
                f"which is more than --max-removed-fraction {self.max_removed_fraction:g} allows: "
                "none was taken out, what is new was added. Is a disk not mounted? If they are "
                "meant to leave, run this again with --max-removed-fraction 1"
            )
        absent = ledger.absent_rows()
        if absent:
            roots = ", ".join([*absent][:_NAMED_ROOTS]) + ", ..." * (len(absent) > _NAMED_ROOTS)
            self.warn(
                f"the store keeps {counted(sum(absent.values()), 'image')} of folders that are not "
                f"there any more ({roots}); `beam-flowers forget {self.root} --missing` takes out "
                "those whose files are not there either"
            )

    def _warn_of_engines(self, section: Section) -> None:
        """Says that the vectors of a section come from several engines, if they do."""
        rows: Counter[str] = Counter()
        for part in section.rows:
            rows[part.engine or ""] += part.rows
        del rows[""]  # Parts from before this record do not say.
        if len(rows) > 1:
            counts = " and ".join(f"{count:,} of {name}" for name, count in sorted(rows.items()))
            self.warn(
                f"{self.root} mixes vectors of several engines ({counts}): they differ in their "
                "last bits, and so may a model that is trained on them. If the bits matter, give "
                "--engine, and embed into a new store"
            )

    def _carry_out(
        self, plan: Plan, base: Manifest, carry_out: Callable[[Plan], None], heart: Heart
    ) -> RunResult:
        result = RunResult.of_nothing(plan)
        parts = (*committed(base, plan.place).parts, *plan.section.parts)
        is_empty = self.leaves_out and not plan.units and not parts
        if not is_empty and not is_done(plan, base):
            heart.start()
            try:
                carry_out(replace(plan, made=dict(self.made)))
                result = read_result(plan.place)
            except Exception:
                # Its files may have gone: this machine slept, and another run took its work up.
                if is_withdrawn_by_another(plan.place):
                    return NOT_COMMITTED
                raise
            for root, name in result.damaged:
                self._note_damage(root, name)
            if result.committed:
                self.replaced += _bytes_replaced(plan, base)
        return result

    def _note_damage(self, root: str, name: str) -> None:
        """Lets the next try go without a part."""
        if (root, name) in self.damaged:
            raise StoreError(f"{root}: the part {name} is needed, and damaged; run this again")
        self.damaged.add((root, name))

    def _warn_of_losses(self, place: Place, lost: Sequence[Part]) -> None:
        """Says which rows may be lost: of a part that is gone nobody knows whose they were."""
        for part in lost:
            uri = place.published(part.name)
            what = "damaged" if (place.root, part.name) in self.damaged else "gone"
            if self.rules.exact:
                self.warn(f"{uri} is {what}; its rows were made again")
                continue
            self.lost += 0 if part.is_rejects else part.rows
            self.warn(
                f"{uri} is {what}: of its {part.rows} rows those of images that were listed now "
                f"were made again, any others are lost; see `beam-flowers fsck {place.root}`"
            )

    def _other_sections(self, place: Place) -> list[tuple[Place, Section]]:
        """Returns the sections of `others` that hold the same backbone's vectors."""
        found = []
        for root in self.others:
            other = Place(root, place.section, place.fingerprint)
            section = committed(latest(root), other)
            parts = (part for part in section.parts if (root, part.name) not in self.damaged)
            found.append((other, replace(section, parts=tuple(parts))))
        return found

    def _leave_out(self, ledger: Ledger, others: Sequence[tuple[Place, Section]]) -> None:
        # Files that were rejected there are tried again where the user asks for it.
        ledger.leave_out(
            row
            for other, section in others
            for part in (section.rows if self.rules.retry else section.parts)
            for row in self._rows_there(other, part.name)
            if not (row.unread or (row.outdated and row.error_class))
        )

    def _rows_there(self, place: Place, name: str) -> Iterator[StoredRow]:
        """Yields the rows of a part of another table, and nothing of a lost part."""
        try:
            yield from stored_rows(place, name)
        except PartLostError:
            self.warn(f"{place.published(name)} is gone; what of it is listed is made again")

    def warn_of_collisions(self, labels: Iterable[str]) -> None:
        """Names the labels that become one when they are normalised."""
        for names in collisions(labels):
            self.warn(f"labels that differ in writing only: {', '.join(map(repr, names))}")

    def _warn_of_labels(self, ledger: Ledger, place: Place, plan: Plan) -> None:
        self.warn_of_collisions(ledger.label_names())
        # A run that changes no labels has none to compare: those of scored images say nothing.
        if not isinstance(self.row_kind, StoreRows) or not self.rules.relabel:
            return
        now = {p.name for p in committed(latest(self.root), place).rows}
        before = {p.name for p in plan.section.rows}
        ledger.keep_parts(now)
        for name in sorted(now - before):
            ledger.add_part(name, stored_rows(place, name), False, True)
        for uri, label, other, other_label in ledger.shared_contents():
            self.warn(
                f"the same image has two labels: {uri} is {label!r}, {other} is {other_label!r}"
            )

    def _summary(self, result: RunResult, earlier: int) -> EmbedSummary:
        # What an earlier try computed is found as known by the one that was committed.
        earlier = min(earlier, result.reused)
        place = Place(self.root, self.section, self.described.fingerprint)
        section = committed(latest(self.root), place)
        self._warn_of_engines(section)
        return EmbedSummary(
            embedded=result.embedded + earlier,
            reused=result.reused - earlier,
            rejected=result.rejected,
            hidden=result.hidden,
            total=result.listed,
            failures=result.failures,
            dataset_hash=section.dataset_hash,
            reasons=result.reasons,
            seconds=result.seconds,
            lost=self.lost,
            held=result.held,
            unread=result.unread,
            replaced=self.replaced,
        )


def _bytes_replaced(plan: Plan, base: Manifest) -> int:
    """Adds up the sizes of the parts that a plan replaced; 0 if they are only a few."""
    before = base.sections.get(plan.place.section)
    if before is None:
        return 0
    kept = {part.name for part in (*plan.section.parts, *plan.section.lost)}
    gone = [part for part in before.parts if part.name not in kept]
    place, size = replace(plan.place, fingerprint=before.fingerprint), 0
    for part in gone:
        # Parts that were described before layout 3 have no size in the manifest.
        with contextlib.suppress(FileNotFoundError):
            size += part.bytes or files.stat(place.locate(part.name)).bytes
    rows, all_rows = (sum(part.rows for part in parts) for parts in (gone, before.parts))
    if encoding_in(before) != encoding_in(plan.section):
        return size
    return size if size >= _GREAT_SIZE and rows >= _GREAT_SHARE * all_rows else 0


def backbone_place(table: str, backbone: ResolvedBackbone) -> Place:
    """Returns the place of a backbone's rows in a store, or in its table of scored images."""
    fingerprint = backbone.fingerprint
    return Place(table, section_name(backbone.row.name, fingerprint), fingerprint)


def backbone_run(
    place: Place,
    backbone: ResolvedBackbone,
    encoding: str,
    rules: Rules,
    shards: int | None,
    warn: Say,
    progress: Progress | None,
) -> TableRun:
    """Describes the run that brings a backbone's rows at `place` up to date."""
    name = backbone.row.name
    about = {"name": name, **backbone.about(), "encoding": encoding, "engine": backbone.engine}
    section = Section(backbone.fingerprint, about)
    row_kind = StoreRows(backbone.fingerprint, name, backbone.vectors, encoding, backbone.engine)
    return TableRun(place.root, place.section, section, row_kind, rules, shards, warn, progress)


def embed_images(
    images: Sequence[str],
    store: str,
    backbone: ResolvedBackbone,
    options: RunOptions | None = None,
    relabel: bool = True,
    warn: Say = print,
    encoding: str | None = None,
    progress: Progress | None = None,
    prune: bool = False,
) -> EmbedSummary:
    """Computes the embedding vectors that `store` lacks of the images found in `images`.

    Args:
        images: folders, globs, list files, manifests or images; see `find_images`.
        store: folder of the store; made if absent.
        backbone: from `resolve`.
        options: see `RunOptions`.
        relabel: let this listing change labels that stored rows have.
        warn: takes a line for the user.
        encoding: of the vectors, one of `ENCODINGS`; parts that have another are written again.
            None for what the store has, `split` in a new one.
        progress: gets the state of the run, again and again.
        prune: take all rows of the backbone out whose files are not found in `images`.

    Raises:
        InputError: if an input is missing or nothing in it is an image; with `prune`, if a folder
            in it cannot be listed.
        StoreError: if `store` is no store.
    """
    options = options or RunOptions()
    options.apply()
    store = files.absolute(store)
    require_outer_table(store)
    place = backbone_place(store, backbone)
    encoding = encoding or encoding_in(committed(latest(store), place))
    rules = Rules(prune, options.verify, options.retry_rejects, relabel)
    run = backbone_run(place, backbone, encoding, rules, options.shards, warn, progress)
    # What was only scored before is hashed and needs no network.
    run = replace(
        run,
        others=(scored_root(store),),
        max_removed_fraction=options.max_removed_fraction,
        made=options.made,
    )
    listing = partial(
        list_into, images=images, table=store, options=options, progress=progress, is_all=prune
    )
    row_kind, backbones = run.row_kind, [backbone]
    work = partial(
        run_plan, row_kind=row_kind, backbones=backbones, options=options, progress=progress
    )
    summary = run.bring_up_to_date(listing, work)
    if not summary.rows:
        raise InputError(
            f"none of the {summary.total} files in {', '.join(images)} is a usable image; "
            f"the reasons are in {files.join(store, '__rejects')}"
        )
    # Of a row of the catalogue the recipe is known to be right. Later runs need no second warning.
    is_new = summary.embedded > summary.reused and find_row(backbone.row.name) != backbone.row
    if is_new and (line := doubt(place)):
        warn(line)
    return summary


def run_plan(
    plan: Plan,
    row_kind: RowKind,
    backbones: Sequence[ResolvedBackbone],
    options: RunOptions,
    progress: Progress | None = None,
) -> None:
    """Runs the embed pipeline."""
    with (
        watched(plan, progress, row_kind.rows_each, len(backbones)),
        head_start(plan, backbones, options.pipeline, options.limits),
    ):
        from beam_flowers.transforms.plan import RunPlan
        from beam_flowers.transforms.runner import run_pipeline

        made = RunPlan(plan, row_kind, backbones, options.limits)
        run_pipeline(made, plan.place, options.pipeline)


def read_result(place: Place) -> RunResult:
    """Reads the result of the pipeline's last step, `plan.finish`, which ran on some worker."""
    uri = place.run_file("result.json")
    if not files.exists(uri):
        raise StoreError(
            f"the pipeline ended without its last step, which writes {uri}: it failed, or its "
            "workers see other files than this machine; the runner's log says more"
        )
    result = _RESULT.read(files.read_document(uri, _RESULT), uri)
    if result.problems:
        raise unfit(result.problems)
    if result.lost:
        raise PartLostError(result.lost[0])
    return result


def list_into(
    ledger: Ledger,
    *,
    images: Sequence[str],
    table: str,
    options: RunOptions,
    progress: Progress | None = None,
    is_all: bool = False,
) -> None:
    """Lists `images` into a ledger; with `is_all`, as all that the table shall have.

    Raises:
        InputError: see `list_images`; with `is_all` also if a folder cannot be listed.
    """
    ledger.list_found(list_images(images, table, progress, options.manifest_schemes))
    if is_all and (gap := ledger.gap()):
        raise InputError(
            f"{gap[0]}: {gap[1]}; so nobody can say which images are no longer listed. Make it "
            "readable, or leave --prune away"
        )


def list_images(
    images: Sequence[str],
    table: str,
    progress: Progress | None = None,
    schemes: Sequence[str] = (),
) -> Iterator[Listed]:
    """Yields `find_images` without the files of the table that is written.

    Args:
        images: see `find_images`.
        table: folder of the table.
        progress: counts what is listed.
        schemes: see `RunOptions.manifest_schemes`.

    Raises:
        InputError: as `find_images` does, or if the table lies in a folder to be listed where
            other commands would take it for images; a hidden one may.
    """
    own = files.join(table, "")
    for source in map(files.absolute, images):
        if own.startswith(files.join(source, "")) and not is_hidden(files.relative(own, source)):
            raise InputError(
                f"{table} lies in {source}, whose files are to be read; put it elsewhere"
            )
    listed = (
        element for element in find_images(images, schemes) if not _uri(element).startswith(own)
    )
    return progress.counted(listed) if progress else listed


def _uri(element: Listed) -> str:
    if isinstance(element, Reject):
        return element.image.uri
    return element.root if isinstance(element, RootListed) else element.uri
