"""Labels images or a store into a score table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import islice
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers import files
from beam_flowers.backbones.joined import Backbones, several
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import InputError, StoreError
from beam_flowers.head.backbones import require_backbones
from beam_flowers.head.bundle import Bundle
from beam_flowers.records import Say
from beam_flowers.scoring.answer import ScoreAnswer
from beam_flowers.scoring.copying import CopiedImages, Labelled, copy_images
from beam_flowers.scoring.given import FurtherColumns, GivenImages, with_given
from beam_flowers.scoring.ranking import Models, bundles_of
from beam_flowers.scoring.table import LABEL_TEXT, ScoreRows
from beam_flowers.scoring.write_table import (
    rejects_name,
    scores_of,
    suffix,
    write_table,
)
from beam_flowers.store.commits import Section, latest
from beam_flowers.store.ledger import Rules
from beam_flowers.store.parts import Place, RejectRows, read_part
from beam_flowers.store.presence import present
from beam_flowers.store.table import TRIES
from beam_flowers.workflows.embed import EmbedSummary, RunOptions, TableRun, list_into, run_plan
from beam_flowers.workflows.embed_scored import embed_scored
from beam_flowers.workflows.progress import Progress
from beam_flowers.workflows.score_options import (
    ScoreOptions,
    check_outputs,
    clear_deleted,
    make_unfinished,
)
from beam_flowers.workflows.score_stored import is_store, score_stored

T = TypeVar("T")

_MOST_GIVEN = 1_000_000
"""Given labels that are kept in memory for the answer about a folder of parts, some 100 MB."""


@dataclass(frozen=True)
class ScoreSummary(EmbedSummary):
    """Counts the images of a run; the table has a row of each for every model.

    Attributes:
        copied: what `ScoreOptions.copy_to` came to.
        answers: what the whole table says, for each model in the order of their ids.
    """

    copied: CopiedImages | None = None
    answers: tuple[ScoreAnswer, ...] = field(default=(), compare=False)


def score_images(
    job: ScoreOptions,
    models: Models,
    backbones: Backbones | None = None,
    options: RunOptions | None = None,
    warn: Say = print,
    progress: Progress | None = None,
) -> ScoreSummary:
    """Labels a collection into a table.

    Args:
        job: what and where to.
        models: the model, or several of one backbone, which then is run once.
        backbones: the one that the models were trained on, or those whose vectors they take side
            by side, in that order; not needed where `job.images` is a store.
        options: see `RunOptions`.
        warn: takes a line for the user.
        progress: gets the state of the run, again and again.

    Returns:
        What the run did; `reused` rows needed no network.

    Raises:
        ModelError: if vectors and models do not fit, or a model lacks what the rule needs.
        OutputError: if something is there that must stay.
        InputError: if an input is missing or nothing in it is an image.
    """
    options = options or RunOptions()
    warn = cache(warn)  # `--store` makes two runs over the same files.
    options.apply()
    layout = replace(job.layout, formats=options.limits.salvage > 0)
    score_rows = ScoreRows.of(models, job.rule, layout)
    _check(job, score_rows)
    bundle = bundles_of(models)[0]
    networks = several(backbones) if backbones else ()

    further = FurtherColumns.of(job.images)
    if further.names and not suffix(job.output):
        warn(f"the column {further.names[0]} is in tables of one file only, such as scores.csv")

    def attempt() -> ScoreSummary:
        listed = _Listed(is_file=bool(suffix(job.output)))
        table = _table_run(job, score_rows, bundle, options, warn)
        table = replace(table, progress=progress, on_listed=listed.take)
        summary = _score(job, table, bundle, networks, options)
        if progress:
            progress.begin("writing")
        if suffix(job.output):
            _write_files(job, score_rows, listed.given, further)
        copied = _copy(job, score_rows, warn) if job.copy_to else None
        return ScoreSummary(
            **vars(summary), copied=copied, answers=_answers(job, score_rows, listed)
        )

    summary = _until_written(job, attempt) if suffix(job.output) else attempt()
    if not summary.rows:
        raise InputError(
            f"none of the {summary.total} files in {', '.join(job.images)} is a usable image; "
            "the reject table names the reasons"
        )
    return summary


@dataclass
class _Listed:
    """Keeps the labels and paths of listed images; for a folder only of those with a label.

    Attributes:
        is_file: True for a table of one file.
        given: the images; none for a folder if more have a label than `_MOST_GIVEN`.
    """

    is_file: bool
    given: GivenImages = field(default_factory=lambda: GivenImages.of(()))

    def take(self, images: Iterable[tuple[str, str | None, str]]) -> None:
        if self.is_file:
            self.given = GivenImages.of(images)
            return
        labelled = (image for image in images if image[1])
        found = GivenImages.of(islice(labelled, _MOST_GIVEN + 1))
        self.given = found if found.rows.num_rows <= _MOST_GIVEN else GivenImages.of(())


def _answers(job: ScoreOptions, score_rows: ScoreRows, listed: _Listed) -> tuple[ScoreAnswer, ...]:
    """Sums up all rows of the table, by part."""
    found = {}
    for own in score_rows.labellers:
        asked = own.thresholds
        known = () if asked.multi_label else own.labels
        found[own.model_id] = ScoreAnswer(own.model_id, asked.rule, known)
    label = LABEL_TEXT if job.partition_by_label else "label"
    place, section = _own_section(job.table, score_rows)
    for part in section.rows:
        rows = read_part(place, part, ["uri", label, "score", "model_id"])
        rows = rows.rename_columns(["uri", "label", "score", "model_id"])
        for model_id, answer in found.items():
            own_rows = rows.filter(pc.equal(rows["model_id"], model_id))
            has_given = listed.given.rows.num_rows > 0
            given = listed.given.columns_for(own_rows["uri"])[0] if has_given else None
            answer.add(own_rows, given)
    return tuple(found.values())


def _until_written(job: ScoreOptions, attempt: Callable[[], T]) -> T:
    """Makes one file of a hidden table, which goes with the last run that uses it.

    Where nobody knows who else does, as in object stores, another run to the same file may delete
    it under this one's hands: then all is made again.
    """
    for _ in range(TRIES):
        make_unfinished(job.table)
        with present(job.table) as presence:
            try:
                result = attempt()
            except Exception:
                if presence.is_there():
                    raise
                continue
            if presence.leave():
                files.delete_tree(job.table)
            return result
    raise StoreError(
        f"{job.table} was deleted by other runs to {job.output} {TRIES} times; run this alone"
    )


def _table_run(
    job: ScoreOptions, score_rows: ScoreRows, bundle: Bundle, options: RunOptions, warn: Say
) -> TableRun:
    about = {**score_rows.about(), "backbone": bundle.backbone}
    rules = Rules(exact=True, verify=options.verify, retry=options.retry_rejects, relabel=False)
    section = Section(score_rows.fingerprint, about)
    return TableRun(
        job.table, "", section, score_rows, rules, options.shards, warn, made=options.made
    )


def _score(
    job: ScoreOptions,
    table: TableRun,
    bundle: Bundle,
    networks: Sequence[ResolvedBackbone],
    options: RunOptions,
) -> EmbedSummary:
    if is_store(job.images[0]):
        return score_stored(table, job.images[0], None, bundle, options)
    if not networks:
        raise InputError("images can only be scored with the backbone of the model")
    require_backbones(networks, bundle)
    if job.store:
        runs = [
            embed_scored(job.images, job.store, network, options, table.warn, table.progress)
            for network in networks
        ]
        scored = score_stored(table, job.store, job.images, bundle, options)
        computed = min(max(run.embedded for run in runs), scored.rows)
        return replace(scored, embedded=computed, reused=scored.rows - computed)
    row_kind, progress = table.row_kind, table.progress
    work = partial(
        run_plan, row_kind=row_kind, backbones=networks, options=options, progress=progress
    )
    return table.bring_up_to_date(
        partial(list_into, images=job.images, table=table.root, options=options, progress=progress),
        work,
    )


def _check(job: ScoreOptions, score_rows: ScoreRows) -> None:
    check_outputs(job)
    if job.copy_to and score_rows.rows_each > 1:
        raise InputError("images are copied by the labels of one model; give one")
    if suffix(job.output):
        clear_deleted(job.table)
    try:
        files.make_folder(files.parent(job.table))
    except OSError as error:
        raise InputError(f"the output {job.output!r} cannot be written: {error}") from error
    stores = [image for image in job.images if is_store(image)]
    if stores and (len(job.images) > 1 or job.store):
        raise InputError(
            f"{stores[0]!r} is a store: score it alone, without other images and without --store"
        )


def _copy(job: ScoreOptions, score_rows: ScoreRows, warn: Say) -> CopiedImages:
    label = LABEL_TEXT if job.partition_by_label else "label"
    columns = ["uri", "sha256", label]
    if any(labeller.thresholds.multi_label for labeller in score_rows.labellers):
        columns.append("labels")
    place, section = _own_section(job.table, score_rows)
    parts = [read_part(place, part, columns) for part in section.rows]
    rows = pa.concat_tables(parts).sort_by("uri") if parts else pa.table({n: [] for n in columns})
    copied = copy_images(_labelled(rows, label), files.absolute(job.copy_to or ""))
    for uri, reason in copied.failed:
        warn(f"{uri} was not copied: {reason}")
    return copied


def _labelled(rows: pa.Table, label: str) -> Iterator[Labelled]:
    for batch in rows.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            names = row.get("labels") or (row[label],)
            yield Labelled(row["uri"], row["sha256"], tuple(names))


def _write_files(
    job: ScoreOptions, score_rows: ScoreRows, given: GivenImages, further: FurtherColumns
) -> None:
    """Writes the committed parts as one file, and the rejects as another."""
    output = files.absolute(job.output)
    place, section = _own_section(job.table, score_rows)
    rows = [read_part(place, p) for p in section.rows]
    rejects = [read_part(place, p) for p in section.rejects]
    scores = pa.concat_tables(rows) if rows else score_rows.schema().empty_table()
    rejected = pa.concat_tables([RejectRows().table([]), *rejects])
    write_table(output, with_given(scores_of(scores), given, further), job.exact_csv)
    write_table(rejects_name(output), rejected, job.exact_csv)


def _own_section(table: str, score_rows: ScoreRows) -> tuple[Place, Section]:
    """Returns the rows that were committed, unless another run has put others in their place."""
    section = latest(table).sections.get("")
    if section is None or section.fingerprint != score_rows.fingerprint:
        raise StoreError(
            f"{table}: another run wrote scores of other models or other rules there meanwhile; "
            "run this again, and give each run an output of its own"
        )
    return Place(table, "", score_rows.fingerprint), section
