"""Measures a model on a store's labelled images and writes a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from beam_flowers import files
from beam_flowers.errors import InputError, ModelError, OutputError
from beam_flowers.evaluation import multi_label
from beam_flowers.evaluation.document import FORMAT, build_report, build_sections, rounded
from beam_flowers.evaluation.measures import Scored, log_scores
from beam_flowers.evaluation.multi_label import Decided, sigmoid_scores
from beam_flowers.evaluation.render import (
    SOFTWARE,
    confusion_csv,
    confusion_png,
    misclassified_csv,
    to_markdown,
)
from beam_flowers.evaluation.search import find_suspects, neighbours
from beam_flowers.evaluation.selection import SIDES, choose_rows
from beam_flowers.evaluation.suspects import FOLDS
from beam_flowers.head.bundle import Bundle, read_bundle
from beam_flowers.head.corrections import correct_labels, read_corrections
from beam_flowers.head.metrics import evaluate
from beam_flowers.head.softmax import Doubles, Head, Sample
from beam_flowers.head.store_examples import StoredExamples, read_examples_of
from beam_flowers.head.thresholds import DEFAULT
from beam_flowers.images.outputs import HEAD, Writing
from beam_flowers.records import OnProgress
from beam_flowers.workflows.progress import Progress

_JSON, _PNG = "evaluation.json", "confusion.png"
_NAMES = (_JSON, "evaluation.md", "confusion.csv", "misclassified.csv", _PNG)


@dataclass(frozen=True)
class EvaluationJob:
    """Names the model, the store and the rows to measure.

    Attributes:
        store: folder of the feature store.
        model: folder of the bundle.
        output: folder to write to.
        split: one of `SIDES`, by the model's own split.
        backbone: what the model must have been trained on; None for any.
        labels: manifest of corrected labels, as `train` takes it.
        neighbours: uri of an image of the store whose neighbours to list.
        folds: of the search for wrong labels; 0 leaves it out.
        seed: of these folds.
        writing: the terms on which the folder is written.
        exact_csv: cells of CSV as they are, also those that a spreadsheet runs as formulas.
    """

    store: str
    model: str
    output: str
    split: str = "testing"
    backbone: str | None = None
    labels: str | None = None
    neighbours: str | None = None
    folds: int = FOLDS
    seed: int = 0
    writing: Writing = field(default_factory=Writing)
    exact_csv: bool = False

    def __post_init__(self) -> None:
        if self.split not in SIDES:
            raise InputError(f"unknown split {self.split!r}; choose one of {SIDES}")
        if self.folds < 0 or self.folds == 1:
            raise InputError(f"folds must be 2 or more, or 0 for none, not {self.folds!r}")
        output = files.absolute(self.output) + "/"
        for name in ("model", "store"):
            folder = files.absolute(getattr(self, name))
            if output.startswith(folder + "/"):
                raise OutputError(
                    f"the output {self.output!r} lies in the {name}; name another one"
                )


@dataclass(frozen=True)
class EvaluatedModel:
    """Holds a finished evaluation.

    Attributes:
        report: what `evaluation.json` holds.
        written: names of the files in the output folder.
        has_plot: False where matplotlib is missing, or the model is multi-label.
    """

    report: dict[str, Any]
    written: tuple[str, ...]
    has_plot: bool


def evaluate_model(job: EvaluationJob, progress: Progress | None = None) -> EvaluatedModel:
    """Measures a model on the stored vectors and writes the report; reads no image.

    `progress` gets the state of the run.

    Raises:
        ModelError: if store and model do not fit.
        StoreError: if the store cannot be read.
        OutputError: if something is there that must stay.
        InputError: if there is nothing to measure on.
        TrainingError: if the store's images cannot be split as the model's were.
    """
    writing = job.writing.reading(job.store, job.model, job.labels)
    is_ours = writing.check_folder(job.output, "an evaluation", _NAMES.__contains__, is_evaluation)
    bundle = read_bundle(files.absolute(job.model))
    progress = progress or Progress()
    progress.begin("reading")
    stored = load(job, bundle, progress.callback("reading"))
    progress.begin("measuring")
    report = measure_images(bundle, stored, job, progress.callback("searching wrong labels"))[0]
    progress.begin("writing")
    pages = {
        _JSON: json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "evaluation.md": to_markdown(report),
        "confusion.csv": confusion_csv(report, exact=job.exact_csv),
        "misclassified.csv": misclassified_csv(report, exact=job.exact_csv),
    }
    output = files.absolute(job.output)
    for name, text in pages.items():
        files.write_atomic(files.join(output, name), text.encode())
    has_plot = _write_plot(files.join(output, _PNG), report, is_ours)
    return EvaluatedModel(report, (*pages, _PNG) if has_plot else tuple(pages), has_plot)


def is_evaluation(folder: str) -> bool:
    """Tells if `evaluate_model` wrote a folder, in this version or an earlier one."""
    head = files.read_bytes(files.join(folder, _JSON), HEAD)
    return head.startswith(f'{{\n "format": "{FORMAT}"'.encode())


def load(
    job: EvaluationJob, bundle: Bundle, on_progress: OnProgress | None = None
) -> StoredExamples:
    """Returns the store's rows of the model's backbone, with corrected labels.

    Raises:
        ModelError: if the store has no such vectors, or the model is of another backbone.
    """
    if job.backbone not in (None, bundle.backbone):
        raise ModelError(
            f"the model was trained on vectors of {bundle.backbone!r}, not of {job.backbone!r}; "
            "leave out --backbone, or name a model for it"
        )
    stored = read_examples_of(files.absolute(job.store), bundle, on_progress)
    return stored if job.labels is None else correct_labels(stored, read_corrections(job.labels))


def measure_images(
    bundle: Bundle,
    stored: StoredExamples,
    job: EvaluationJob,
    on_progress: OnProgress | None = None,
) -> tuple[dict[str, Any], Scored | Decided]:
    """Returns the whole report as JSON, and the scores of each measured image.

    `on_progress` takes how many heads are trained in the search for wrong labels.
    """
    measured, sample, uris = choose_rows(bundle, stored, job.split)
    _check_finite(sample, uris)
    found: Scored | Decided
    if bundle.head.multi_label:
        thresholds = np.array(bundle.thresholds or [DEFAULT] * len(bundle.labels))
        found = _decide(bundle.labels, uris, sample, thresholds, bundle.head)
        entropy = evaluate(bundle.head, sample).cross_entropy
        sections = multi_label.build_sections(found, entropy)
    else:
        scores = log_scores(bundle.head, sample)
        found = Scored(bundle.labels, uris, sample.class_ids, scores)
        sections = build_sections(found)
    report = build_report(bundle, measured, sections)
    report["suspected_label_errors"] = find_suspects(
        replace(stored.examples, separator=bundle.label_separator), job.folds, job.seed, on_progress
    )
    report["neighbours"] = (
        None if job.neighbours is None else neighbours(stored.examples, job.neighbours)
    )
    return rounded(report), found


def _decide(
    labels: tuple[str, ...], uris: list[str], sample: Sample, thresholds: Doubles, head: Head
) -> Decided:
    if sample.membership is None:
        raise ModelError("the multi-label model has no label separator; train it again")
    truth = sample.membership[sample.class_ids] > 0
    return Decided(labels, uris, truth, sigmoid_scores(head, sample), thresholds)


def _check_finite(sample: Sample, uris: list[str]) -> None:
    finite = np.concatenate([np.isfinite(v).all(axis=1) for v, _ in sample.chunks()])
    if bad := np.flatnonzero(~finite).tolist():
        raise InputError(
            f"{len(bad)} vectors hold numbers that are not finite, the first is of"
            f" {uris[bad[0]]!r}; embed these images again"
        )


def _write_plot(uri: str, report: Mapping[str, Any], is_ours: bool) -> bool:
    """Writes the confusion matrix as a PNG; False without matplotlib or without a matrix.

    One of an earlier run would show other numbers than the files beside it: it goes, if
    `is_ours` or the image says that it is ours.
    """
    if not report["model"]["multi_label"]:
        matrix = np.array(report["confusion"]["matrix"], dtype=np.intp)
        title = f"{report['accuracy']['measured_on']}; colour: share of the row"
        try:
            data = confusion_png(matrix, report["model"]["labels"], title)
        except ImportError:
            pass
        else:
            files.write_atomic(uri, data)
            return True
    if is_ours or (files.exists(uri) and SOFTWARE.encode() in files.read_bytes(uri, HEAD)):
        files.delete(uri)
    return False
