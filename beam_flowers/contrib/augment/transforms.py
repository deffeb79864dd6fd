"""Makes distorted copies in a Beam pipeline: units of a plan become parts and one commit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection

from beam_flowers.backbones.compute import Pending, spent
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.contrib.augment.compute import collect_copies, start_copies
from beam_flowers.contrib.augment.distort import Distortions
from beam_flowers.contrib.augment.ledger import CopyVector
from beam_flowers.contrib.augment.table import AugmentedRows, copies_of, derive_copies
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Reject
from beam_flowers.store.outcomes import Outcome, settle, unit_key
from beam_flowers.store.parts import Place
from beam_flowers.store.plan import Plan
from beam_flowers.store.work_units import Unit, read_unit
from beam_flowers.transforms.dofns import Overlapping, reasons_of, write_rows
from beam_flowers.transforms.plan import CommitPlan, SpreadUnits, step
from beam_flowers.transforms.preflight import Setup, expected_setup, require_seen


class DistortUnits(Overlapping):
    """Computes units of copies, those of one content together, and yields their outcomes."""

    def __init__(
        self, setup: Setup, row_kind: AugmentedRows, limits: Limits, distortions: Distortions
    ) -> None:
        super().__init__(setup)
        self.row_kind = row_kind
        self.limits = limits
        self.distortions = distortions

    def start(self, unit: Unit) -> Pending:
        """Hands the copies of a unit to the threads."""
        copies = copies_of(read_unit(unit))
        require_seen([copy.image for copy in copies])
        return start_copies(copies, load(self.expected.backbones[0]), self.distortions, self.limits)

    def finish(self, started: Pending) -> Outcome:
        """Waits for the tasks of `start` and writes their rows."""
        results = collect_copies(started)
        begun = time.perf_counter()
        made = [result for result in results if isinstance(result, CopyVector)]
        rejects = [result for result in results if isinstance(result, Reject)]
        rows = self.row_kind.of_copies(made) if made else None
        parts = write_rows(self.expected.place, self.row_kind, rows, rejects)
        computed = len({(copy.embedding.sha256, copy.k) for copy in made})
        seconds = spent(started)._replace(write=time.perf_counter() - begun)
        reused = len(made) - computed
        return Outcome(parts, computed, reused, reasons=reasons_of(rejects), seconds=seconds)


@dataclass
class AugmentPlan(beam.PTransform):
    """Carries out a plan of `contrib.augment.table.plan_copies`."""

    plan: Plan
    row_kind: AugmentedRows
    backbone: ResolvedBackbone
    distortions: Distortions
    limits: Limits = field(default_factory=Limits)

    def expand(self, pbegin: PBegin) -> PCollection[dict[str, Any]]:
        """Builds the steps; the result of the commit comes out."""
        plan, beams = self.plan, pbegin.pipeline.options.get_all_options()
        setup = expected_setup(plan.place, beams, [self.backbone] if plan.compute else ())
        distort = DistortUnits(setup, self.row_kind, self.limits, self.distortions)
        computed = (
            pbegin
            | "SpreadCopies" >> SpreadUnits(plan.compute)
            | "DistortUnits" >> beam.ParDo(distort)
        )
        derived = (
            pbegin
            | "SpreadDerived" >> SpreadUnits(plan.derive)
            | "DeriveCopies" >> step(setup, _derive, place=plan.place, row_kind=self.row_kind)
        )
        return (computed, derived) | CommitPlan(plan, setup)


def _derive(unit: Unit, place: Place, row_kind: AugmentedRows) -> Iterator[Outcome]:
    parts = (derive_copies(place, row_kind, unit, read_unit(unit)),)
    yield settle(place, Outcome(parts, unit=unit_key(unit))).outcome
