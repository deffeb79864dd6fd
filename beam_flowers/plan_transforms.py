"""The steps of the two pipelines, embed and score: a plan's units → parts → one commit.

This module only wires; whatever deserves a test of its own is elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection

from beam_flowers import workers
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.recipe import Limits
from beam_flowers.store.parts import Place, RowKind
from beam_flowers.store.plan import Outcome, Plan, Unit, finish


@dataclass
class SpreadUnits(beam.PTransform):
    """Units → the same units, over all workers.

    An explicit key for each: Flink's batch mode may ignore a Reshuffle (beam.md §3).
    """

    units: Sequence[Unit]

    def expand(self, pbegin: PBegin) -> PCollection[Unit]:
        return (
            pbegin
            | "ListUnits" >> beam.Create(list(enumerate(self.units)), reshuffle=False)
            | "GroupByUnit" >> beam.GroupByKey()
            | "TakeUnits" >> beam.FlatMap(_second)
        )


@dataclass
class SettleDoubtful(beam.PTransform):
    """Units of files whose size others have too → (files to embed, outcomes).

    They are hashed first; what the store has already, or another of them, is not computed.
    """

    plan: Plan
    kind: RowKind
    limits: Limits

    def expand(self, units: PCollection[Unit]) -> tuple[PCollection, PCollection]:
        place, rows = self.plan.place, self.plan.unit_rows
        hashed = units | "HashFiles" >> beam.FlatMap(
            workers.hash_unit,
            place=place,
            kind=self.kind,
            partitions=self.plan.sources,
            limits=self.limits,
        ).with_outputs(workers.OUTCOMES, main="hashed")
        settled = (
            hashed.hashed
            | "GroupByDigest" >> beam.GroupByKey()
            | "FindKnown"
            >> beam.FlatMap(workers.settle_partition, place=place, unit_rows=rows).with_outputs(
                workers.MOVED, main="fresh"
            )
        )
        copied = (
            settled[workers.MOVED]
            | "GroupByPart" >> beam.GroupByKey()
            | "CopyRows" >> beam.Map(workers.copy_rows, place=place, kind=self.kind)
        )
        outcomes = (hashed[workers.OUTCOMES], copied) | "Settled" >> beam.Flatten()
        return settled.fresh, outcomes


@dataclass
class RunPlan(beam.PTransform):
    """Carries out a plan: files → parts of the table, then the commit.

    The commit is the last step of the pipeline itself, so that a driver that dies loses nothing.
    """

    plan: Plan
    kind: RowKind
    backbone: ResolvedBackbone
    limits: Limits = field(default_factory=Limits)

    def expand(self, pbegin: PBegin) -> PCollection[dict[str, Any]]:
        plan, outcomes = self.plan, []
        files = [
            pbegin
            | "SpreadFiles" >> SpreadUnits(plan.compute)
            | "ReadUnits" >> beam.Map(workers.read_images)
        ]
        if plan.doubtful:
            doubtful = pbegin | "SpreadDoubtful" >> SpreadUnits(plan.doubtful)
            fresh, settled = doubtful | SettleDoubtful(plan, self.kind, self.limits)
            files.append(fresh)
            outcomes.append(settled)
        if plan.rewrite:
            outcomes.append(
                pbegin
                | "SpreadRewrites" >> SpreadUnits(plan.rewrite)
                | "RewriteParts" >> beam.Map(workers.rewrite_part, place=plan.place, kind=self.kind)
            )
        embed = workers.EmbedUnits(plan.place, self.kind, self.backbone, self.limits)
        outcomes.append(files | "Files" >> beam.Flatten() | "EmbedUnits" >> beam.ParDo(embed))
        return outcomes | "Outcomes" >> beam.Flatten() | CommitPlan(plan)


@dataclass
class CommitPlan(beam.PTransform):
    """Outcomes → the counts of the run, once, after the commit."""

    plan: Plan

    def expand(self, outcomes: PCollection[Outcome]) -> PCollection[dict[str, Any]]:
        # The empty outcome sees to it that a run which writes nothing is committed as well.
        nothing = outcomes.pipeline | "NoOutcome" >> beam.Create([Outcome(())], reshuffle=False)
        return (
            (outcomes, nothing)
            | "AllOutcomes" >> beam.Flatten()
            | "OneKey" >> beam.Map(_keyed)
            | "Gather" >> beam.GroupByKey()
            | "Commit" >> beam.Map(_commit, plan=self.plan)
        )


@dataclass
class ScorePlan(beam.PTransform):
    """Carries out a plan whose rows come from the vectors of a store."""

    plan: Plan
    units: Sequence[Unit]
    source: Place
    kind: RowKind

    def expand(self, pbegin: PBegin) -> PCollection[dict[str, Any]]:
        place = self.plan.place
        scored = (
            pbegin
            | "SpreadParts" >> SpreadUnits(self.units)
            | "ScoreParts"
            >> beam.Map(workers.score_unit, source=self.source, place=place, kind=self.kind)
        )
        outcomes = [scored]
        if self.plan.rewrite:
            outcomes.append(
                pbegin
                | "SpreadRewrites" >> SpreadUnits(self.plan.rewrite)
                | "RewriteParts" >> beam.Map(workers.rewrite_part, place=place, kind=self.kind)
            )
        return outcomes | "Outcomes" >> beam.Flatten() | CommitPlan(self.plan)


def _second(keyed: tuple[int, Iterable[Unit]]) -> Iterator[Unit]:
    yield from keyed[1]


def _keyed(outcome: Outcome) -> tuple[int, Outcome]:
    return 0, outcome


def _commit(keyed: tuple[int, Iterable[Outcome]], plan: Plan) -> dict[str, Any]:
    return finish(plan, keyed[1])
