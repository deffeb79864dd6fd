"""The steps of the pipeline that makes distorted copies: a plan's units → parts → one commit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PBegin, PCollection

from beam_flowers.backbones.compute import Pending, spent
from beam_flowers.backbones.distorted import collect_copies, start_copies
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.distort import Distortions
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Bottleneck, Reject, Seconds
from beam_flowers.store.augmented import AugmentedRows, copies_of, derive_copies
from beam_flowers.store.parts import Place
from beam_flowers.store.plan import Outcome, Plan
from beam_flowers.store.work_units import Unit, read_unit
from beam_flowers.transforms.dofns import EmbedUnits
from beam_flowers.transforms.plan import CommitPlan, SpreadUnits, step
from beam_flowers.transforms.preflight import Setup, expected_setup, require_seen


class DistortUnits(EmbedUnits):
    """Units of copies, those of one content together → outcomes."""

    def __init__(
        self, setup: Setup, kind: AugmentedRows, limits: Limits, distortions: Distortions
    ) -> None:
        super().__init__(setup, kind, limits)
        self.distortions = distortions

    def start(self, unit: Unit) -> Pending:
        """Hands a unit to the threads."""
        copies = copies_of(read_unit(unit))
        require_seen([copy.image for copy in copies])
        return start_copies(copies, load(self.expected.backbones[0]), self.distortions, self.limits)

    def collect(self, started: Pending) -> list[Bottleneck | Reject]:
        """Waits for what `start` returned."""
        return collect_copies(started)

    def spent(self, started: Pending) -> Seconds:
        """How long they took."""
        return spent(started)


@dataclass
class AugmentPlan(beam.PTransform):
    """Carries out a plan of `store.augmented.plan_copies`."""

    plan: Plan
    kind: AugmentedRows
    backbone: ResolvedBackbone
    distortions: Distortions
    limits: Limits = field(default_factory=Limits)

    def expand(self, pbegin: PBegin) -> PCollection[dict[str, Any]]:
        plan, beams = self.plan, pbegin.pipeline.options.get_all_options()
        setup = expected_setup(plan.place, beams, [self.backbone] if plan.compute else ())
        distort = DistortUnits(setup, self.kind, self.limits, self.distortions)
        computed = (
            pbegin
            | "SpreadCopies" >> SpreadUnits(plan.compute)
            | "DistortUnits" >> beam.ParDo(distort)
        )
        derived = (
            pbegin
            | "SpreadDerived" >> SpreadUnits(plan.derive)
            | "DeriveCopies" >> step(setup, _derive, place=plan.place, kind=self.kind)
        )
        return (computed, derived) | CommitPlan(plan, setup)


def _derive(unit: Unit, place: Place, kind: AugmentedRows) -> Iterator[Outcome]:
    yield Outcome((derive_copies(place, kind, unit.source, read_unit(unit)),))
