"""Transforms that label vectors and images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import apache_beam as beam
from apache_beam.pvalue import PCollection

from beam_flowers.backbones.joined import Backbones, several
from beam_flowers.head.backbones import backbones_of, require_backbones
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Embedding, Reject, Score
from beam_flowers.scoring.decision import AcceptanceRule
from beam_flowers.scoring.ranking import TOP_K, Models, bundles_of
from beam_flowers.scoring.table import ScoreLayout, ScoreRows
from beam_flowers.transforms.compute import ComputeEmbeddings
from beam_flowers.transforms.find import Source


@dataclass
class ScoreEmbeddings(beam.PTransform):
    """Gives each vector a `Score` by each model.

    Attributes:
        models: the model, or several of one backbone.
        top_k: labels a score.
        rule: when a label is given.
    """

    models: Models
    top_k: int = TOP_K
    rule: AcceptanceRule | None = None

    def expand(self, embeddings: PCollection[Embedding]) -> PCollection[Score]:
        score_rows = ScoreRows.of(self.models, self.rule, ScoreLayout(self.top_k))
        return embeddings | "Score" >> beam.FlatMap(_score, score_rows=score_rows)


class ScoredImages(NamedTuple):
    """Holds the outputs of `ScoreImages`."""

    scores: PCollection[Score]
    rejects: PCollection[Reject]


@dataclass
class ScoreImages(beam.PTransform):
    """Gives each image a `Score` by each model, or a `Reject`.

    Takes what `ComputeEmbeddings` takes.

    Attributes:
        models: the model, or several of one backbone.
        backbone: the one that they were trained on, or those whose vectors they take side by
            side; by default, what this machine has under their names.
        top_k: labels a score.
        rule: when a label is given.
        limits: of what is read.
    """

    models: Models
    backbone: Backbones | None = None
    top_k: int = TOP_K
    rule: AcceptanceRule | None = None
    limits: Limits = field(default_factory=Limits)

    def expand(self, images: PCollection[Source]) -> ScoredImages:
        bundle = bundles_of(self.models)[0]
        networks = several(self.backbone) if self.backbone else backbones_of(bundle)
        require_backbones(networks, bundle)
        computed = images | "Compute" >> ComputeEmbeddings(networks, self.limits)
        scoring = ScoreEmbeddings(self.models, self.top_k, self.rule)
        scores = computed.embeddings | "Label" >> scoring
        return ScoredImages(scores, computed.rejects)


def _score(embedding: Embedding, score_rows: ScoreRows) -> Iterator[Score]:
    yield from score_rows.scores([embedding])
