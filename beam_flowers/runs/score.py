"""`score`: pictures or stored vectors → a table of labels."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers import files
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import InputError, ModelError
from beam_flowers.head.bundle import Bundle, require_backbone
from beam_flowers.records import Image, Reject
from beam_flowers.runs.embed import (
    RunOptions,
    Summary,
    TableRun,
    Warn,
    embed_images,
    list_images,
    run_plan,
)
from beam_flowers.runs.score_joined import score_joined
from beam_flowers.scores.output import rejects_name, scores_of, suffix, write_table
from beam_flowers.scores.ranking import TOP_K, ScoreRows
from beam_flowers.store.commits import COMMITS, Section, latest
from beam_flowers.store.features import open_store
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
from beam_flowers.store.schema import rejects_table


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
        """Folder of the parts; where the output is one file it is beside that, and gone in the end.

        Hidden then, since the output may lie among the pictures.
        """
        output = files.absolute(self.output)
        if suffix(output) is None:
            return output
        return files.join(files.parent(output), f".{output.rpartition('/')[2]}.partial")


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
    warn = functools.cache(warn)  # `--store` makes two runs over the same files.
    options.check()
    _check(job)
    if len(bundle.fingerprints) > 1:
        from_store = is_store(job.images[0])
        store, listed = (job.images[0], None) if from_store else (job.store, job.images)
        return score_joined(store, listed, job.output, bundle, job.top_k)
    kind = ScoreRows.of(bundle, job.top_k)
    summary = _score(job, _table_run(job, kind, bundle, options, warn), bundle, backbone, options)
    if suffix(job.output):
        _write_files(files.absolute(job.output), job.table, kind)
    if not summary.rows:
        raise InputError(
            f"none of the {summary.total} files in {', '.join(job.images)} is a usable picture; "
            "the reject table names the reasons"
        )
    return summary


def _table_run(
    job: Job, kind: ScoreRows, bundle: Bundle, options: RunOptions, warn: Warn
) -> TableRun:
    about = {"model_id": kind.model_id, "backbone": bundle.backbone, "top_k": job.top_k}
    rules = Rules(exact=True, verify=options.verify, retry=options.retry_rejects, relabel=False)
    section = Section(kind.fingerprint, about)
    return TableRun(job.table, "", section, kind, rules, options.shards, warn)


def _score(
    job: Job,
    table: TableRun,
    bundle: Bundle,
    backbone: ResolvedBackbone | None,
    options: RunOptions,
) -> Summary:
    if is_store(job.images[0]):
        return _from_store(table, job.images[0], None, bundle, options)
    network = _needed(backbone, bundle)
    if job.store:
        embedded = embed_images(job.images, job.store, network, options, False, table.warn)
        scored = _from_store(table, job.store, job.images, bundle, options)
        computed = min(embedded.embedded, scored.rows)
        return replace(scored, embedded=computed, reused=scored.rows - computed)
    return table.bring_up_to_date(
        lambda ledger: ledger.list_found(list_images(job.images, table.root)),
        lambda plan, _: run_plan(plan, table.kind, network, options.pipeline),
    )


def _needed(backbone: ResolvedBackbone | None, bundle: Bundle) -> ResolvedBackbone:
    if backbone is None:
        raise InputError("pictures can only be scored with the backbone of the model")
    name, pixels = backbone.row.name, backbone.about()["pixels"]
    require_backbone(bundle, name, backbone.fingerprint, pixels)
    return backbone


def _check(job: Job) -> None:
    output = files.absolute(job.output)
    if suffix(output) and files.is_folder(output):
        raise InputError(f"the output {output!r} is a folder; give another name, or delete it")
    try:
        files.make_folder(files.parent(job.table))
    except OSError as error:
        raise InputError(f"the output {job.output!r} cannot be written: {error}") from error
    stores = [image for image in job.images if is_store(image)]
    if stores and (len(job.images) > 1 or job.store):
        raise InputError(
            f"{stores[0]!r} is a store: score it alone, without other pictures and without --store"
        )


def model_section(store: str, bundle: Bundle) -> tuple[Place, Section]:
    """The store's vectors that the model was trained on the like of.

    Raises:
        ModelError: if the store has none; both sides are named.
    """
    manifest = open_store(store)
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
    # What was rejected may be in the store by now; to look there costs nothing.
    table = replace(table, rules=table.rules._replace(retry=True))

    def list_into(ledger: Ledger) -> None:
        for part in section.rows:
            ledger.add_source(part.name, stored_rows(source, part.name))
        listing = list_images(images, table.root) if images else _stored(source, section)
        ledger.list_found(listing)

    def carry_out(plan: Plan, ledger: Ledger) -> None:
        from beam_flowers.plan_transforms import ScorePlan
        from beam_flowers.runs.beam import run_pipeline

        plan, units = _score_plan(plan, ledger, source, section)
        run_pipeline(ScorePlan(plan, units, source, table.kind), options.pipeline)

    return table.bring_up_to_date(list_into, carry_out)


def _stored(source: Place, section: Section) -> Iterator[Found]:
    for part in section.parts:
        yield from (row.image for row in stored_rows(source, part.name))


def _score_plan(
    plan: Plan, ledger: Ledger, source: Place, section: Section
) -> tuple[Plan, list[Unit]]:
    """Units by the store's parts, and the store's own rejects taken over."""
    writer = UnitWriter(plan.place.run_file("scores.parquet"))
    units = [writer.add(stored_table(rows), part) for part, rows in ledger.source_units()]
    writer.close()
    rejects = list(_rejects(list(ledger.without_source()), source, section))
    parts = [write_part(plan.place, RejectRows(), rows) for rows in rejects if len(rows)]
    counts = add_counts(plan.counts, [Outcome(tuple(parts))])
    kept = replace(plan.section, parts=(*plan.section.parts, *parts))
    return replace(plan, section=kept, counts=counts), units


def _rejects(images: Sequence[Image], source: Place, section: Section) -> Iterator[pa.Table]:
    """The store's rejects of these files."""
    uris = pa.array([image.uri for image in images], pa.string())
    known: set[str] = set()
    for part in section.rejects:
        rows = read_part(source, part.name)
        yield rows.filter(pc.is_in(rows["uri"], value_set=uris))
        known.update(rows["uri"].to_pylist())
    message = "the file came while the run was under way; run it again"
    yield rejects_table(
        [Reject(image, "find", "NotInStore", message) for image in images if image.uri not in known]
    )


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
