"""`score`: pictures or stored vectors → a table of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
from beam_flowers.backbones.resolve import ResolvedBackbone

from beam_flowers import files
from beam_flowers.errors import InputError, ModelError
from beam_flowers.head.bundle import Bundle
from beam_flowers.images.find import find_images
from beam_flowers.runs.embed import RunOptions, Summary, TableRun, Warn, embed_images, run_plan
from beam_flowers.scores.output import rejects_name, scores_of, suffix, write_table
from beam_flowers.scores.ranking import TOP_K, ScoreRows
from beam_flowers.store.commits import COMMITS, Section, latest, open_table
from beam_flowers.store.ledger import Found, Ledger, Rules
from beam_flowers.store.parts import Place, RejectRows, read_part, write_part
from beam_flowers.store.plan import (
    Outcome,
    Plan,
    Unit,
    UnitWriter,
    add_counts,
    stored_rows,
    stored_table,
)


@dataclass(frozen=True)
class Job:
    """What to score and where to.

    Attributes:
        images: folders, globs, list files, manifests or pictures; or one store.
        output: a file (`.parquet`, `.csv`, `.jsonl`) or a folder of Parquet parts.
        store: what it lacks is embedded into it, the rest is taken from it.
        top_k: labels a row.
    """

    images: tuple[str, ...]
    output: str
    store: str | None = None
    top_k: int = TOP_K

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InputError(f"top-k must be 1 or more, not {self.top_k!r}")
        suffix(self.output)

    @property
    def table(self) -> str:
        """Folder of the parts; beside the output, and gone in the end, where that is one file."""
        output = files.absolute(self.output)
        return output if suffix(output) is None else output + ".partial"


def is_store(path: str) -> bool:
    """True if `path` is a feature store."""
    return files.is_folder(files.join(files.absolute(path), COMMITS))


def score_images(
    job: Job,
    bundle: Bundle,
    backbone: ResolvedBackbone | None,
    options: RunOptions | None = None,
    warn: Warn = print,
) -> Summary:
    """Labels a collection into a table.

    Args:
        job: what and where to.
        bundle: the model.
        backbone: the one `bundle` was trained on; not needed where `job.images` is a store.
        options: see `RunOptions`.
        warn: takes a line for the user.

    Returns:
        What the run did; `reused` rows needed no network.

    Raises:
        ModelError: if vectors and model do not fit.
        InputError: if an input is missing or nothing in it is a picture.
    """
    options = options or RunOptions()
    kind = ScoreRows.of(bundle, job.top_k)
    about = {"model_id": kind.model_id, "backbone": bundle.backbone, "top_k": job.top_k}
    rules = Rules(exact=True, verify=options.verify, retry=options.retry_rejects, relabel=False)
    table = TableRun(
        job.table, "", Section(kind.fingerprint, about), kind, rules, options.shards, warn
    )
    if len(job.images) == 1 and is_store(job.images[0]):
        summary = _from_store(table, job.images[0], None, bundle, options)
    elif job.store:
        embedded = embed_images(job.images, job.store, _needed(backbone), options, False, warn)
        scored = _from_store(table, job.store, job.images, bundle, options)
        summary = _with_embedded(scored, embedded.embedded)
    else:
        summary = table.bring_up_to_date(
            lambda ledger: ledger.list_found(find_images(job.images)),
            lambda plan, _: run_plan(plan, kind, _needed(backbone), options.pipeline),
        )
    if suffix(job.output):
        _write_files(files.absolute(job.output), job.table, kind)
    if not summary.rows:
        raise InputError(
            f"none of the {summary.total} files in {', '.join(job.images)} is a usable picture; "
            "the reject table names the reasons"
        )
    return summary


def _needed(backbone: ResolvedBackbone | None) -> ResolvedBackbone:
    if backbone is None:
        raise InputError("pictures can only be scored with the backbone of the model")
    return backbone


def _with_embedded(summary: Summary, embedded: int) -> Summary:
    return replace(summary, embedded=embedded, reused=summary.rows - embedded)


def model_section(store: str, bundle: Bundle) -> tuple[Place, Section]:
    """The store's vectors that the model was trained on the like of.

    Raises:
        ModelError: if the store has none; both sides are named.
    """
    manifest = open_table(store)
    for key, section in manifest.sections.items():
        if section.fingerprint == bundle.fingerprint:
            return Place(store, key, section.fingerprint), section
    held = ", ".join(key.partition("=")[2] for key in manifest.sections)
    raise ModelError(
        f"the model needs vectors of {bundle.backbone} with fingerprint "
        f"{bundle.fingerprint[:8]}, but {store} holds {held}; run `beam-flowers embed` with that "
        "backbone, or train a model on this store"
    )


def _from_store(
    table: TableRun,
    store: str,
    images: Sequence[str] | None,
    bundle: Bundle,
    options: RunOptions,
) -> Summary:
    """Scores stored vectors: of all rows, or of those that `images` lists."""
    source, section = model_section(files.absolute(store), bundle)

    def list_into(ledger: Ledger) -> None:
        for part in section.rows:
            ledger.add_source(part.name, stored_rows(source, part.name))
        ledger.list_found(find_images(images) if images else _stored(source, section))

    def carry_out(plan: Plan, ledger: Ledger) -> None:
        from beam_flowers.plan_transforms import ScorePlan
        from beam_flowers.runs.beam import run_pipeline

        plan, units = _score_plan(plan, ledger, source, section)
        run_pipeline(ScorePlan(plan, units, source, table.kind), options.pipeline)

    return table.bring_up_to_date(list_into, carry_out)


def _stored(source: Place, section: Section) -> Iterator[Found]:
    for part in section.rows:
        yield from (row.image for row in stored_rows(source, part.name))


def _score_plan(
    plan: Plan, ledger: Ledger, source: Place, section: Section
) -> tuple[Plan, list[Unit]]:
    """Units by the store's parts, and the store's own rejects taken over."""
    writer = UnitWriter(plan.place.run_file("scores.parquet"))
    units = [writer.add(stored_table(rows), part) for part, rows in ledger.source_units()]
    writer.close()
    missing = pa.array(sorted(ledger.without_source()), pa.string())
    parts = []
    for part in section.rejects:
        rows = read_part(source, part.name)
        rows = rows.filter(pc.is_in(rows["uri"], value_set=missing))
        if len(rows):
            parts.append(write_part(plan.place, RejectRows(), rows))
    counts = add_counts(plan.counts, [Outcome(tuple(parts))])
    kept = replace(plan.section, parts=(*plan.section.parts, *parts))
    return replace(plan, section=kept, counts=counts), units


def _write_files(output: str, table: str, kind: ScoreRows) -> None:
    """The committed parts as one file, and the rejects as another."""
    section = latest(table).sections[""]
    place = Place(table, "", kind.fingerprint)
    rows = [read_part(place, p.name) for p in section.rows]
    rejects = [read_part(place, p.name) for p in section.rejects]
    scores = pa.concat_tables(rows) if rows else kind.schema().empty_table()
    write_table(output, scores_of(scores))
    write_table(rejects_name(output), pa.concat_tables([RejectRows().table([]), *rejects]))
    files.delete_tree(table)
