"""Wires the two pipelines, embed and score: a plan's units become parts and one commit.

The functions of the steps are in other modules, where they have tests of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection

from beam_flowers import files
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.recipe import Limits
from beam_flowers.scoring.table import ScoreRows
from beam_flowers.store.names import COMMITS
from beam_flowers.store.outcomes import Outcome
from beam_flowers.store.parts import Place, RowKind
from beam_flowers.store.plan import Plan, finish
from beam_flowers.store.work_units import Unit
from beam_flowers.transforms import dofns
from beam_flowers.transforms.preflight import Setup, expected_setup

K = TypeVar("K", bound=RowKind)


@dataclass
class SpreadUnits(beam.PTransform):
    """Units → the same units, over all workers.

    An explicit key for each, since some runners ignore a Reshuffle; and a Reshuffle, since keys
    are dealt out by their hashes, as unevenly as by chance, where Flink's Reshuffle deals evenly
    (two TaskManagers, 66 units: 902 and 598 images without it, 759 and 741 with it).
    """

    units: Sequence[Unit]

    def expand(self, pbegin: PBegin) -> PCollection[Unit]:
        return (
            pbegin
            | "Once" >> beam.Impulse()
            | "ListUnits" >> beam.ParDo(_Listed(list(enumerate(self.units))))
            | "GroupByUnit" >> beam.GroupByKey()
            | "TakeUnits" >> beam.FlatMap(_second)
            | "Rebalance" >> beam.Reshuffle()
        )


@dataclass
class SettleDoubtful(beam.PTransform):
    """Units of files whose size others have too → (files to embed, outcomes).

    They are hashed first; what the store has already, or another of them, is not computed.
    """

    plan: Plan
    row_kind: RowKind
    limits: Limits
    setup: Setup

    def expand(self, units: PCollection[Unit]) -> tuple[PCollection, PCollection]:
        place = self.plan.place
        hash_files = dofns.Step(
            self.setup,
            dofns.hash_unit,
            dofns.OUTCOMES,
            place=place,
            row_kind=self.row_kind,
            partitions=self.plan.sources,
            limits=self.limits,
        )
        hashed = units | "HashFiles" >> beam.ParDo(hash_files).with_outputs(
            dofns.OUTCOMES, main="hashed"
        )
        find_known = dofns.Step(
            self.setup, dofns.settle_partition, place=place, unit_rows=self.plan.unit_rows
        )
        # By ranges of digests, so that copies from several units meet on one worker.
        settled = (
            hashed.hashed
            | "GroupByDigest" >> beam.GroupByKey()
            | "FindKnown" >> beam.ParDo(find_known).with_outputs(dofns.MOVED, main="fresh")
        )
        # By the part that has their vectors, so that each part is read once.
        copied = (
            settled[dofns.MOVED]
            | "GroupByPart" >> beam.GroupByKey()
            | "CopyRows"
            >> step(
                self.setup,
                dofns.copy_rows,
                place=place,
                row_kind=self.row_kind,
                others=self.plan.others,
            )
        )
        outcomes = (hashed[dofns.OUTCOMES], copied) | "Settled" >> beam.Flatten()
        return settled.fresh, outcomes


@dataclass
class RunPlan(beam.PTransform):
    """Carries out a plan: files → parts of the table, then the commit.

    The vectors of several backbones stand side by side, as one.
    The commit is the last step of the pipeline itself, so that a driver that dies loses nothing.
    """

    plan: Plan
    row_kind: RowKind
    backbones: Sequence[ResolvedBackbone]
    limits: Limits = field(default_factory=Limits)

    def expand(self, pbegin: PBegin) -> PCollection[dict[str, Any]]:
        plan, beams = self.plan, pbegin.pipeline.options.get_all_options()
        setup = expected_setup(
            plan.place, beams, self.backbones if plan.compute or plan.doubtful else ()
        )
        row_kind = _as_sent(self.row_kind, plan.place)
        units = pbegin | "SpreadFiles" >> SpreadUnits(plan.compute)
        # A branch costs a tenth of a second to build, in this process as on a cluster's driver.
        outcomes = []
        if plan.rewrite:
            outcomes.append(pbegin | "Rewrite" >> RewriteParts(plan, row_kind, setup))
        if plan.doubtful:
            doubtful = pbegin | "SpreadDoubtful" >> SpreadUnits(plan.doubtful)
            fresh, settled = doubtful | SettleDoubtful(plan, row_kind, self.limits, setup)
            # The job servers of Flink and Spark run a Reshuffle themselves. Their fuser, Java's
            # GreedyPipelineFuser, refuses a Flatten of its output and a ParDo's: "PCollectionNodes
            # ... were consumed but never produced". Behind a ParDo of its own it is like the other.
            units = units | "PassUnits" >> beam.FlatMap(_itself)
            units = (units, fresh) | "Files" >> beam.Flatten()
            outcomes.append(settled)
        embed = dofns.EmbedUnits(setup, row_kind, self.limits)
        outcomes.append(units | "EmbedUnits" >> beam.ParDo(embed))
        return tuple(outcomes) | CommitPlan(plan, setup)


@dataclass
class CommitPlan(beam.PTransform):
    """Outcomes → the counts of the run, once, after the commit."""

    plan: Plan
    setup: Setup

    def expand(self, outcomes: tuple[PCollection[Outcome], ...]) -> PCollection[dict[str, Any]]:
        # The empty outcome sees to it that a run which writes nothing is committed as well.
        nothing = (
            outcomes[0].pipeline
            | "Once" >> beam.Impulse()
            | "NoOutcome" >> beam.ParDo(_Listed([Outcome(())]))
        )
        return (
            (*outcomes, nothing)
            | "Outcomes" >> beam.Flatten()
            | "OneKey" >> beam.FlatMap(_keyed)
            | "Gather" >> beam.GroupByKey()
            | "Commit" >> step(self.setup, _commit, plan=self.plan)
        )


@dataclass
class RewriteParts(beam.PTransform):
    """Rewrites the parts that lose or change rows; gives their outcomes."""

    plan: Plan
    row_kind: RowKind
    setup: Setup

    def expand(self, pbegin: PBegin) -> PCollection[Outcome]:
        return (
            pbegin
            | "SpreadParts" >> SpreadUnits(self.plan.rewrite)
            | "Rewrite"
            >> step(self.setup, dofns.rewrite_part, place=self.plan.place, row_kind=self.row_kind)
        )


@dataclass
class ScorePlan(beam.PTransform):
    """Carries out a plan whose rows come from the vectors of a store."""

    plan: Plan
    sources: Sequence[Place]
    row_kind: dofns.VectorKind

    def expand(self, pbegin: PBegin) -> PCollection[dict[str, Any]]:
        plan = self.plan
        stores = {files.join(source.root, COMMITS) for source in self.sources}
        beams = pbegin.pipeline.options.get_all_options()
        setup = expected_setup(plan.place, beams, readable=sorted(stores))
        row_kind = _as_sent(self.row_kind, plan.place)
        score = beam.ParDo(dofns.ScoreUnits(setup, row_kind, self.sources))
        outcomes = [pbegin | "SpreadParts" >> SpreadUnits(plan.derive) | "ScoreParts" >> score]
        if plan.rewrite:
            outcomes.append(pbegin | "Rewrite" >> RewriteParts(plan, row_kind, setup))
        return tuple(outcomes) | CommitPlan(plan, setup)


def _as_sent(row_kind: K, place: Place) -> K | ScoreRows:
    """Returns the kind of rows as steps take it: the models of a score table go by a file."""
    return row_kind.filed(place.run_file("models")) if isinstance(row_kind, ScoreRows) else row_kind


def step(setup: Setup, function: Callable[..., Iterable[Any]], **arguments: Any) -> beam.PTransform:
    """Applies `function` to elements, on workers that fit the driver; see `dofns.Step`."""
    return beam.ParDo(dofns.Step(setup, function, **arguments))


class _Listed(beam.DoFn):
    """Elements that are pickled with the step itself: `beam.Create` without functions by value."""

    def __init__(self, elements: Sequence[Any]) -> None:
        self._elements = elements

    def process(self, nothing: bytes) -> Iterator[Any]:
        yield from self._elements


# These are functions for FlatMap and not for Map, which wraps them into a lambda. Beam pickles that
# as bytecode, which workers with another version of Python cannot read, not even to say so.
def _second(keyed: tuple[int, Iterable[Unit]]) -> Iterator[Unit]:
    yield from keyed[1]


def _itself(unit: Unit) -> Iterator[Unit]:
    yield unit


def _keyed(outcome: Outcome) -> Iterator[tuple[int, Outcome]]:
    yield 0, outcome


def _commit(keyed: tuple[int, Iterable[Outcome]], plan: Plan) -> Iterator[dict[str, Any]]:
    yield finish(plan, keyed[1])
