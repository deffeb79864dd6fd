"""Writes an HTML page about a model, a store or a score table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from beam_flowers import files
from beam_flowers.errors import InputError, InputFieldError
from beam_flowers.evaluation.measures import Scored
from beam_flowers.evaluation.search import find_suspects
from beam_flowers.evaluation.suspects import FOLDS
from beam_flowers.files.typed import MOST_FREE_BYTES, Count, Form
from beam_flowers.head.bundle import Bundle, model_id, read_bundle
from beam_flowers.head.examples import Examples
from beam_flowers.head.store_examples import StoredExamples, read_examples
from beam_flowers.images.outputs import Writing, require_ending
from beam_flowers.pages import model_sections, score_sections, store_sections
from beam_flowers.pages.format import counted, listed, percent, settings
from beam_flowers.pages.page import ENDINGS, Rendered, is_page, render, require_packages
from beam_flowers.pages.sections import Facts, Page, Section, Tile
from beam_flowers.pages.store_sections import sample_rows
from beam_flowers.scoring.read_table import ScoreTable, is_score_folder, read_scores
from beam_flowers.scoring.write_table import SUFFIXES
from beam_flowers.store.commits import latest
from beam_flowers.store.features import scored_root
from beam_flowers.store.parts import Place, read_part
from beam_flowers.workflows.evaluate import EvaluationJob, load, measure_images
from beam_flowers.workflows.progress import Progress
from beam_flowers.workflows.score_stored import is_store, store_roots

THUMBNAILS = 600
MAP_POINTS = 1000


@dataclass(frozen=True)
class ReportJob:
    """Names the source and the options of a report.

    Attributes:
        source: folder of a model, of a store, or a table of scores.
        output: the HTML file.
        store: the store that a model is measured on, or that scores were made from.
        split: one of `evaluation.selection.SIDES`, for a model.
        labels: manifest of corrected labels, as `train` takes it.
        backbone: whose vectors of a store with several.
        summaries_dir: step logs of `train`; the newest run counts, or a run's own folder.
        folds: of the search for wrong labels; 0 leaves it out.
        thumbnails: most images that are shown; 0 for none.
        points: most points of the map; 0 for no map.
        model_id: its beginning, of a table with the scores of several models.
        writing: the terms on which the page is written.
    """

    source: str
    output: str
    store: str | None = None
    split: str = "testing"
    labels: str | None = None
    backbone: str | None = None
    summaries_dir: str | None = None
    folds: int = FOLDS
    thumbnails: int = THUMBNAILS
    points: int = MAP_POINTS
    model_id: str | None = None
    writing: Writing = field(default_factory=Writing)

    def __post_init__(self) -> None:
        for name in ("thumbnails", "points", "folds"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, not {getattr(self, name)!r}")
        require_ending(self.output, ENDINGS, "a report")


def write_report(job: ReportJob, progress: Progress | None = None) -> Rendered:
    """Writes the report; the images that it shows are read, none is changed.

    Args:
        job: what to report on.
        progress: gets each stage.

    Raises:
        OutputError: if something is there that must stay.
        InputError: if the source is none of the three, or a package is missing.
        ModelError: if store and model do not fit.
        StoreError: if the store cannot be read.
    """
    read = (job.source, job.store, job.labels, job.summaries_dir)
    job.writing.reading(*read).check_file(job.output, "a report", is_page)
    require_packages()
    progress = progress or Progress()
    progress.begin("reading")
    source = files.absolute(job.source)
    page = {"model": model_page, "store": store_page, "scores": scores_page}[kind_of(source)](job)
    progress.begin("drawing")
    rendered = render(page, job.thumbnails)
    files.write_atomic(files.absolute(job.output), rendered.html.encode("utf-8", "replace"))
    return rendered


def kind_of(source: str) -> str:
    """Returns `model`, `store` or `scores` for a path.

    Raises:
        InputError: if it is none of them.
    """
    if source.lower().endswith(SUFFIXES) and not files.is_folder(source):
        return "scores"
    if files.exists(files.join(source, "model.json")):
        return "model"
    if is_store(source):
        return "scores" if is_score_folder(source) else "store"
    there = "holds no model, store or table" if files.exists(source) else "is not there"
    raise InputError(
        f"{source!r} {there}; name the folder of a model (train), of a store (embed), or a table "
        "of scores (score)"
    )


def model_page(job: ReportJob) -> Page:
    """Makes the page about a model, measured on a store if one is given."""
    bundle = read_bundle(files.absolute(job.source))
    steps = _steps(job)
    if job.store is None:
        return _unmeasured(job, bundle, steps)
    evaluation = EvaluationJob(
        job.store, job.source, job.output, job.split, job.backbone, job.labels, None, job.folds
    )
    rows = load(evaluation, bundle)
    report, found = measure_images(bundle, rows, evaluation)
    single = found if isinstance(found, Scored) else None
    rejected = _rejects(files.absolute(job.store), bundle.fingerprints)
    sections = [
        *model_sections.evaluation_sections(report, single),
        *_map(job, rows.examples, bundle),
        *steps,
        *store_sections.rejects(rejected),
        Facts("facts", "What was done", "", _model_facts(job, bundle) + _store_facts(job, rows)),
    ]
    tiles = model_sections.tiles(report)
    return Page(
        f"Model of {listed(bundle.labels, 5)}",
        model_sections.lead(report),
        [*tiles, *_rejects_tile(rejected)],
        report["measured"]["warnings"],
        sections,
        _contents(rows.examples),
    )


def store_page(job: ReportJob) -> Page:
    """Makes the page about a store."""
    _refuse(job, "a store", "store")
    rows = read_examples(files.absolute(job.source), job.backbone)
    rejected = _rejects(files.absolute(job.source), rows.fingerprint.split("+"))
    labels = rows.examples.labels
    suspects = find_suspects(rows.examples, job.folds)
    sections: list[Section] = [] if suspects is None else [model_sections.suspects(suspects)]
    sections += [
        store_sections.label_counts(labels),
        *_map(job, rows.examples, None),
        *store_sections.rejects(rejected),
        Facts("facts", "What was done", "", _store_facts(job, rows)),
    ]
    named = {label for label in labels if label is not None}
    tiles = [
        Tile(f"{len(labels):,}", "images", "with a vector", "labels"),
        Tile(f"{len(named):,}", "labels", "", "labels"),
    ]
    if suspects:
        tiles.append(model_sections.suspects_tile(suspects))
    return Page(
        "Feature store",
        f"{counted(len(labels), 'image')} of {counted(len(named), 'label')}, as vectors of "
        f"{rows.backbone}.",
        [*tiles, *_rejects_tile(rejected)],
        rows.warnings,
        sections,
        _contents(rows.examples),
    )


def scores_page(job: ReportJob) -> Page:
    """Makes the page about a score table."""
    table = read_scores(job.source, job.model_id)
    sections = [
        *score_sections.score_sections(table),
        *_scored_map(job, table),
        *store_sections.rejects(table.rejects),
        Facts("facts", "What was done", "", _score_facts(table)),
    ]
    return Page(
        "Labelled collection",
        f"{counted(len(table.uris), 'image')} labelled with "
        f"{listed(sorted(set(table.given)))}. A score is what the model claims, not the share of "
        "right answers; report MODEL --store STORE measures that.",
        score_sections.score_tiles(table, len(table.rejects)),
        [],
        sections,
        dict(zip(table.uris, table.sha256, strict=True)),
    )


def _unmeasured(job: ReportJob, bundle: Bundle, steps: Sequence[Section]) -> Page:
    measured = {side: m for side, m in bundle.metrics.items() if m}
    tiles = [
        Tile(
            percent(found["accuracy"]),
            f"accuracy, {side} side",
            f"95 % interval {percent(found['accuracy_low'])} to {percent(found['accuracy_high'])}, "
            f"{counted(found['count'], 'image')}",
        )
        for side, found in reversed(measured.items())
    ]
    facts = Facts("facts", "What was done", "", _model_facts(job, bundle))
    return Page(
        f"Model of {listed(bundle.labels, 5)}",
        "What the model says of itself. Give --store STORE to see its mistakes.",
        tiles,
        [],
        [*steps, facts],
    )


def _map(job: ReportJob, examples: Examples, bundle: Bundle | None) -> list[Section]:
    rows = sample_rows(len(examples.uris), job.points)
    if len(rows) < 3:
        return []
    given = None
    if bundle and not bundle.head.multi_label:
        scores = bundle.head.scores(examples.vectors[rows])
        given = [bundle.labels[i] for i in scores.argmax(axis=1).tolist()]
    labels = [examples.labels[row] for row in rows.tolist()]
    return [store_sections.vector_map(examples, rows, given, labels)]


def _scored_map(job: ReportJob, table: ScoreTable) -> list[Section]:
    """Maps the scored images that the store has vectors of, by the label given.

    They lie in its collection or in its table of images that were only scored.
    """
    if job.store is None:
        return []
    given = dict(zip(table.sha256, table.given, strict=True))
    store = files.absolute(job.store)
    tables = [root for root in (store, scored_root(store)) if latest(root).sections] or [store]
    known: dict[str, tuple[Examples, int]] = {}
    for root in tables:
        examples = read_examples(root, job.backbone).examples
        pairs = enumerate(zip(examples.uris, examples.sha256, strict=True))
        known |= {uri: (examples, i) for i, (uri, sha) in pairs if sha in given}
    if not known:
        raise InputError(
            f"the store {job.store!r} has none of the scored images, such as {table.uris[0]!r}; "
            "leave out --store, or name the store that they were scored from"
        )
    rows = [known[uri] for uri in sorted(known)]
    chosen = [rows[row] for row in sample_rows(len(known), job.points).tolist()]
    sample = Examples(
        [examples.uris[i] for examples, i in chosen],
        [examples.sha256[i] for examples, i in chosen],
        [given[examples.sha256[i]] for examples, i in chosen],
        [None] * len(chosen),
        np.stack([examples.vectors[i] for examples, i in chosen]),
    )
    every = np.arange(len(chosen), dtype=np.intp)
    drawn = store_sections.vector_map(sample, every, None, sample.labels, total=len(known))
    return [drawn] if len(chosen) > 2 else []


class _Step(msgspec.Struct):
    """Types of a line of the step log, see `Step`; numbers that are not finite are None."""

    step: Count
    train_accuracy: float
    validation_accuracy: float | None
    cross_entropy: float | None
    validation_cross_entropy: float | None = None


_STEP = Form(_Step, InputFieldError, "it is no step log of train", most=MOST_FREE_BYTES)


def _steps(job: ReportJob) -> list[Section]:
    """Returns the curves of the newest run below the folder of step logs."""
    if job.summaries_dir is None:
        return []
    folder = files.absolute(job.summaries_dir)
    runs = [folder]
    if files.is_folder(folder):
        runs += sorted(e.uri for e in files.list_folder(folder) if e.name.startswith("run-"))
    logs = [log for run in runs if files.exists(log := files.join(run, "steps.jsonl"))]
    if not logs:
        raise InputError(
            f"{job.summaries_dir!r} has no steps.jsonl; name the folder that train "
            "--summaries-dir wrote to"
        )
    lines = files.read_document(logs[-1], _STEP).splitlines()
    steps = [_STEP.read(line, logs[-1], f"line {n}") for n, line in enumerate(lines, start=1)]
    curves = [msgspec.structs.asdict(step) for step in steps]
    return [store_sections.step_curves(curves, logs[-1])] if steps else []


def _rejects(store: str, fingerprints: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the store's rejects, each file once."""
    found: dict[str, dict[str, Any]] = {}
    for key, section in latest(store).sections.items():
        place = Place(store, key, section.fingerprint)
        for part in section.rejects if section.fingerprint in fingerprints else ():
            rows = read_part(place, part, ["uri", "error_class", "message"])
            found |= {row["uri"]: row for row in rows.to_pylist()}
    return [found[uri] for uri in sorted(found)]


def _rejects_tile(rejected: Sequence[object]) -> list[Tile]:
    return [Tile(f"{len(rejected):,}", "files rejected", "", "rejects")] if rejected else []


def _contents(examples: Examples) -> dict[str, str]:
    return dict(zip(examples.uris, examples.sha256, strict=True))


def _refuse(job: ReportJob, subject: str, *names: str) -> None:
    for name in names:
        if getattr(job, name) is not None:
            raise InputError(
                f"--{name.replace('_', '-')} says nothing about {subject}; leave it out"
            )


def _model_facts(job: ReportJob, bundle: Bundle) -> list[tuple[str, str]]:
    facts: list[tuple[str, Any]] = [
        ("Model", files.absolute(job.source)),
        ("Model id", model_id(bundle)),
        ("Labels", listed(bundle.labels)),
        ("Backbone", bundle.backbone),
        ("Recipe", settings(bundle.recipe)),
        ("Split", settings({**bundle.split, "seed": bundle.seed})),
        ("Trained on", f"dataset hash {bundle.dataset_hash}"),
        ("Made with", settings(dict(sorted(bundle.versions.items())))),
    ]
    return [(name, str(value)) for name, value in facts]


def _store_facts(job: ReportJob, stored: StoredExamples) -> list[tuple[str, str]]:
    store = files.absolute(job.store or job.source)
    facts = [
        ("Store", store),
        ("Images", f"{len(stored.examples.uris):,} with vectors of {stored.backbone}"),
        ("Roots", listed(store_roots(store))),
        ("Fingerprint", stored.fingerprint),
        ("Dataset hash", stored.dataset_hash),
    ]
    facts = [(name, value) for name, value in facts if value]
    return facts if job.labels is None else [*facts, ("Corrected labels", job.labels)]


def _score_facts(table: ScoreTable) -> list[tuple[str, str]]:
    return [
        ("Table", table.where),
        ("Images", f"{len(table.uris):,}"),
        ("Labels of the model", listed(table.names)),
        ("Model id", table.model_id),
        ("Files rejected", f"{len(table.rejects):,}"),
    ]
