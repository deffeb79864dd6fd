"""Gives Beam YAML our transforms: from rows to rows, with settings as plain values.

A pipeline names those it uses below `providers:`, with `type: python`. `error_handling` is that of
Beam YAML: with `{output: NAME}` the files that give no row come out as NAME, see `RejectRow`;
without it the first of them ends the pipeline.
"""

# Beam takes the types of settings at run time: no `annotations` from the future here.

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection

from beam_flowers import files, transforms
from beam_flowers.backbones.found_recipe import KnownRecipe
from beam_flowers.backbones.resolve import ResolvedBackbone, resolve
from beam_flowers.errors import InputError
from beam_flowers.head.backbones import recipes_of_model
from beam_flowers.head.bundle import Bundle, read_bundle
from beam_flowers.records import Reject
from beam_flowers.scoring.decision import AcceptanceRule
from beam_flowers.scoring.ranking import TOP_K
from beam_flowers.store.parts import read_part
from beam_flowers.store.schema import embeddings_of
from beam_flowers.transforms import streaming
from beam_flowers.transforms.read_write import ListParts, StoredPart
from beam_flowers.transforms.yaml_rows import (
    CountRow,
    EmbeddingRow,
    ImageRow,
    RejectRow,
    ScoreRow,
    embedding_of,
    embedding_row,
    image_of,
    image_row,
    reject_row,
    score_row,
)

T = TypeVar("T")
ErrorHandling = Mapping[str, Any] | None
WithErrors: TypeAlias = PCollection[T] | dict[str, PCollection[Any]]
"""Rows; or the outputs, by their names, where errors have one of their own.

Quoted in annotations: Beam takes a type that it reads there for one element's, and warns."""

BACKBONE = "efficientnet-lite0"
GOOD = "good"
"""Beam YAML's own name for the output beside the errors."""


@dataclass
class FindImages(beam.PTransform):
    """Lists images.

    Args:
        sources: folders, quoted globs, lists, manifests or images.
        error_handling: where files go that the listing rejects.
        manifest_schemes: such as `s3`, that rows of manifests and lists may name besides local
            files and the scheme of the manifest.
    """

    sources: Sequence[str]
    error_handling: ErrorHandling = None
    manifest_schemes: Sequence[str] = ()

    # Beam YAML refuses a step without an input unless the step says this.
    _yaml_requires_inputs = False

    def expand(self, pbegin: PBegin) -> "WithErrors[ImageRow]":
        sources = [self.sources] if isinstance(self.sources, str) else self.sources
        schemes = self.manifest_schemes
        schemes = [schemes] if isinstance(schemes, str) else schemes
        found = pbegin | transforms.FindImages(sources, schemes)
        rows = found.images | "Rows" >> beam.Map(image_row).with_output_types(ImageRow)
        return with_errors(rows, found.rejects, self.error_handling)


@dataclass
class WatchImages(beam.PTransform):
    """Lists the images of a folder and those that arrive in it, as long as the pipeline runs.

    Args:
        folder: an existing folder.
        interval: seconds between two looks.
    """

    folder: str
    interval: float = 10.0

    _yaml_requires_inputs = False

    def expand(self, pbegin: PBegin) -> PCollection[ImageRow]:
        found = pbegin | streaming.WatchImages(self.folder, self.interval)
        return found | "Rows" >> beam.Map(image_row).with_output_types(ImageRow)


@dataclass
class ReadStore(beam.PTransform):
    """Reads the vectors of a store.

    Args:
        store: its folder.
        backbone: name of the backbone; may be left out where the store has only one.
    """

    store: str
    backbone: str | None = None

    _yaml_requires_inputs = False

    def expand(self, pbegin: PBegin) -> PCollection[EmbeddingRow]:
        parts = pbegin | ListParts(self.store, self.backbone)
        return parts | "Rows" >> beam.FlatMap(_stored_rows).with_output_types(EmbeddingRow)


@dataclass
class ComputeEmbeddings(beam.PTransform):
    """Computes the vectors of images, which come as rows with at least the field `uri`.

    Args:
        backbone: name, path or handle; or a mapping of the arguments of `beam_flowers.resolve`.
        error_handling: where images go that give no vector.
    """

    backbone: Any = BACKBONE
    error_handling: ErrorHandling = None

    def expand(self, rows: PCollection[Any]) -> "WithErrors[EmbeddingRow]":
        backbone = resolved(self.backbone)
        computed = rows | "Images" >> beam.Map(image_of) | transforms.ComputeEmbeddings(backbone)
        make = beam.Map(embedding_row, fingerprint=backbone.fingerprint)
        vectors = computed.embeddings | "Rows" >> make.with_output_types(EmbeddingRow)
        return with_errors(vectors, computed.rejects, self.error_handling)


@dataclass
class WriteStore(beam.PTransform):
    """Writes vectors into a feature store, in one commit; gives a row with their number.

    Args:
        store: its folder.
        backbone: the one that the vectors were computed with, as `ComputeEmbeddings` takes it.
    """

    store: str
    backbone: Any = BACKBONE

    def expand(self, rows: PCollection[Any]) -> PCollection[CountRow]:
        backbone = resolved(self.backbone)
        vectors = rows | "Vectors" >> beam.Map(embedding_of, fingerprint=backbone.fingerprint)
        written = vectors | transforms.WriteStore(self.store, backbone)
        return written | "Count" >> beam.Map(CountRow).with_output_types(CountRow)


@dataclass
class _Labelling(beam.PTransform):
    model: str | Sequence[str]
    top_k: int = TOP_K
    threshold: float | None = None
    min_margin: float | None = None
    target_precision: float | None = None

    def models(self) -> list[Bundle]:
        folders = [self.model] if isinstance(self.model, str) else self.model
        return [read_bundle(files.absolute(folder)) for folder in folders]

    def rule(self) -> AcceptanceRule:
        return AcceptanceRule(self.threshold, self.min_margin, self.target_precision)


@dataclass
class ScoreEmbeddings(_Labelling):
    """Labels vectors that `ComputeEmbeddings` or `ReadStore` gave.

    Args:
        model: folder of the model; or several of one backbone.
        top_k: labels a row.
        threshold: say `unknown` where the best score is below it.
        min_margin: say `unknown` where the best score exceeds the second by less.
        target_precision: choose the threshold from which on this share of the labels is right.
    """

    def expand(self, rows: PCollection[Any]) -> PCollection[ScoreRow]:
        models = self.models()
        vectors = rows | "Vectors" >> beam.Map(embedding_of, fingerprint=models[0].fingerprint)
        scores = vectors | transforms.ScoreEmbeddings(models, self.top_k, self.rule())
        return scores | "Rows" >> beam.Map(score_row).with_output_types(ScoreRow)


@dataclass
class ScoreImages(_Labelling):
    """Labels images, which come as rows with at least the field `uri`.

    Args:
        backbone: where it is not found by its name: as `ComputeEmbeddings` takes it.
        error_handling: where images go that get no label.
        model: this and the other settings as those of `ScoreEmbeddings`.
    """

    backbone: Any = None
    error_handling: ErrorHandling = None

    def expand(self, rows: PCollection[Any]) -> "WithErrors[ScoreRow]":
        models = self.models()
        known = [recipe for model in models for recipe in recipes_of_model(model)]
        networks = resolved(self.backbone, known) if self.backbone else None
        scoring = transforms.ScoreImages(models, networks, self.top_k, self.rule())
        scored = rows | "Images" >> beam.Map(image_of) | scoring
        labels = scored.scores | "Rows" >> beam.Map(score_row).with_output_types(ScoreRow)
        return with_errors(labels, scored.rejects, self.error_handling)


def resolved(
    backbone: str | Mapping[str, Any], known: Sequence[KnownRecipe] = ()
) -> ResolvedBackbone:
    """Returns the backbone that a setting names, with one of the recipes that are known."""
    given = {"name": backbone} if isinstance(backbone, str) else backbone
    return resolve(**{"known": known, **given})


def with_errors(
    rows: PCollection[T], rejects: PCollection[Reject], error_handling: ErrorHandling
) -> WithErrors[T]:
    """Returns rows and rejects as Beam YAML wants them; without `error_handling` a reject raises.

    Raises:
        InputError: `error_handling` has another setting than `output`.
    """
    if error_handling is None:
        rejects | "NoErrors" >> beam.Map(_refuse)
        return rows
    others = sorted(set(error_handling) - {"output"})
    if others or not error_handling.get("output"):
        raise InputError(f"error_handling takes `output: NAME` and nothing else: {others}")
    errors = rejects | "Errors" >> beam.Map(reject_row).with_output_types(RejectRow)
    return {GOOD: rows, error_handling["output"]: errors}


def _refuse(reject: Reject) -> None:
    raise InputError(
        f"{reject.image.uri!r} gives no row: {reject.error_class} ({reject.stage}), "
        f"{reject.message}. With `error_handling: {{output: rejects}}` the step goes on, and "
        "such files come out as its output `rejects`"
    )


def _stored_rows(part: StoredPart) -> Iterator[EmbeddingRow]:
    for embedding in embeddings_of(read_part(part.place, part.name)):
        yield embedding_row(embedding, part.place.fingerprint)
