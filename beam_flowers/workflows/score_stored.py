"""Labels the vectors of a store, without reading an image.

Vectors of several backbones, which some heads take side by side, are joined by uri and content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from beam_flowers import files
from beam_flowers.errors import ModelError, PartLostError
from beam_flowers.head.bundle import Bundle
from beam_flowers.records import Image, Reject
from beam_flowers.store.commits import Manifest, Section, latest
from beam_flowers.store.features import open_store, require_images, scored_root
from beam_flowers.store.ledger import Ledger
from beam_flowers.store.names import COMMITS
from beam_flowers.store.parts import Place, read_part
from beam_flowers.store.plan import Plan, stored_rows
from beam_flowers.store.whole import plan_whole, stored_images, stored_labels
from beam_flowers.workflows.embed import EmbedSummary, RunOptions, TableRun, list_images
from beam_flowers.workflows.progress import watched

Source = tuple[Place, Section]


def is_store(path: str) -> bool:
    """Tells if `path` is a store."""
    return files.is_folder(files.join(files.absolute(path), COMMITS))


def store_roots(store: str) -> list[str]:
    """Roots of the images in a store."""
    sections = open_store(files.absolute(store)).sections.values()
    return sorted({root for section in sections for root in section.roots})


def sections_of(table: str, manifest: Manifest) -> dict[str, Source]:
    """Returns the sections of a table by their fingerprints."""
    return {
        section.fingerprint: (Place(table, key, section.fingerprint), section)
        for key, section in manifest.sections.items()
    }


def model_sections(store: str, bundle: Bundle) -> list[Source]:
    """Returns the store's sections that the model takes vectors of, by backbone.

    Raises:
        ModelError: if the store lacks some; both sides are named.
    """
    manifest = open_store(store)
    require_images(store, manifest)
    found = sections_of(store, manifest)
    missing = [name for name in bundle.fingerprints if name not in found]
    if missing:
        held = ", ".join(key.partition("=")[2] for key in manifest.sections)
        raise ModelError(
            f"the model needs vectors of {bundle.backbone} with fingerprint {missing[0][:8]}, but "
            f"{store} holds {held}; run `beam-flowers embed` with that backbone, or train a model "
            "on this store"
        )
    return [found[name] for name in bundle.fingerprints]


def score_stored(
    table: TableRun,
    store: str,
    images: Sequence[str] | None,
    bundle: Bundle,
    options: RunOptions,
) -> EmbedSummary:
    """Scores stored vectors: of all rows of the collection, or of the images that are listed.

    Listed images are looked for in the collection, where they have the size and time that are
    listed, and else in the table of scored images. What was rejected there is rejected here for
    the same reason; an image that lacks the vector of one of several backbones, too.
    """
    store = files.absolute(store)
    # What was rejected may be in the store by now; to look there costs nothing.
    # No file is read, so that the rules of decoding say nothing.
    rules = table.rules._replace(retry=True, reread=False)
    table = replace(table, rules=rules, reads=[store, scored_root(store)])
    work = _Work(table, store, tuple(images or ()), bundle, options)
    is_whole = images is None and len(bundle.fingerprints) == 1
    return table.bring_up_to_date(
        work.list_into, work.carry_out, work.plan_whole if is_whole else None
    )


@dataclass
class _Work:
    """Lists, plans and scores stored rows for a run.

    Attributes:
        table: the score table.
        store: folder of the store.
        images: to score; none for all rows of the collection.
        bundle: the model.
        options: see `RunOptions`.
        sources: tables that have the vectors, best first, for each backbone of the model.
    """

    table: TableRun
    store: str
    images: Sequence[str]
    bundle: Bundle
    options: RunOptions
    sources: list[list[Source]] = field(default_factory=list)

    def list_into(self, ledger: Ledger) -> None:
        """Lists the images and the rows that have their vectors."""
        self._look()
        table, places = self.table, self._places()
        if self.images:
            schemes = self.options.manifest_schemes
            listed = list_images(self.images, table.root, None, schemes)
        else:
            listed = _stored(self.sources)
        ledger.list_found(table.progress.counted(listed) if table.progress else listed)
        for number, tables in enumerate(self.sources):
            for place, section in tables:
                index = places.index(place)
                for part in section.rows:
                    rows = stored_rows(place, part.name)
                    try:
                        ledger.add_source(number, [(f"{index}/{part.name}", rows)])
                    except PartLostError:
                        # Listed images of a lost part were read again for the table of scored ones.
                        if not self.images:
                            raise
            # The first reason for a file counts: that of the table which read it last.
            for place, section in reversed(tables):
                ledger.add_reasons(_rejects(place, section))
        if self.images:
            ledger.keep_current_sources()
        ledger.reject_without_source()

    def plan_whole(self, place: Place, base: Manifest) -> Plan:
        """Plans all rows of the collection as they are, without a join."""
        self._look()
        (((source, stored),),) = self.sources
        self.table.warn_of_collisions(stored_labels(source, stored))
        if self.table.on_listed:
            self.table.on_listed(stored_images(source, stored))
        return plan_whole(place, base, self.table.described, source, stored)

    def carry_out(self, plan: Plan) -> None:
        """Runs the pipeline that scores."""
        table = self.table
        with watched(plan, table.progress, table.row_kind.rows_each):
            from beam_flowers.transforms.plan import ScorePlan
            from beam_flowers.transforms.runner import run_pipeline

            made = ScorePlan(plan, self._places(), table.row_kind)
            run_pipeline(made, plan.place, self.options.pipeline)

    def _look(self) -> None:
        # At each attempt, as another writer may have replaced parts since the last one.
        if self.images:
            self.sources = _sources_of_listed(self.store, self.bundle, self.options.verify)
        else:
            self.sources = [[source] for source in model_sections(self.store, self.bundle)]

    def _places(self) -> list[Place]:
        return [place for tables in self.sources for place, _ in tables]


def _sources_of_listed(store: str, bundle: Bundle, verify: bool) -> list[list[Source]]:
    """Returns for each backbone of the model the tables that have its vectors, best first.

    Under `verify` that is the table of scored images alone: all that is listed was read for it.
    """
    scored = scored_root(store)
    tables = [(root, latest(root)) for root in ([] if verify else [store]) + [scored]]
    found = [sections_of(root, manifest) for root, manifest in tables]
    return [[by[name] for by in found if name in by] for name in bundle.fingerprints]


def _stored(sources: Sequence[Sequence[Source]]) -> Iterator[Image]:
    """Yields the store's files; one in several sections as the first has it."""
    for number, ((place, section),) in enumerate(sources):
        for part in section.parts:
            for row in stored_rows(place, part.name):
                yield row.image._replace(label=None, split=None) if number else row.image


def _rejects(place: Place, section: Section) -> Iterator[Reject]:
    for part in section.rejects:
        rows = []
        with suppress(PartLostError):
            rows = read_part(place, part).to_pylist()
        for row in rows:
            image = Image(row["uri"], row["root"], row["relative_path"])
            yield Reject(image, *(row[n] for n in ("stage", "error_class", "message", "sha256")))
