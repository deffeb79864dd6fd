"""Makes distorted copies in a Beam pipeline: units of a plan become parts and one commit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import PBegin, PCollection

from beam_flowers.backbones.compute import Done, Engine, Pending, pool, read_content, spent
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.contrib.augment.distort import Distortions, canvas_recipe, distort
from beam_flowers.contrib.augment.ledger import Copy, CopyVector
from beam_flowers.contrib.augment.table import AugmentedRows, copies_of, derive_copies
from beam_flowers.errors import ImageError
from beam_flowers.images.recipe import Limits, PixelRecipe
from beam_flowers.records import DecodedImage, Embedding, Image, Reject, Seconds
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
        engine = load(self.expected.backbones[0])
        # One task for each content: its image is read and decoded once.
        return [
            pool().submit_counted(_compute, list(group), engine, self.distortions, self.limits)
            for _, group in groupby(copies, key=lambda copy: copy.sha256)
        ]

    def finish(self, started: Pending) -> Outcome:
        """Waits for the tasks of `start` and writes their rows."""
        results = [result for future in started for result in future.result().outcomes]
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


def _compute(
    copies: Sequence[Copy], engine: Engine, distortions: Distortions, limits: Limits
) -> Done:
    """Computes all copies of one content."""
    begun = time.perf_counter()
    canvas = _open(copies, canvas_recipe(engine.recipe, distortions), limits)
    if isinstance(canvas, Reject):
        rejects = [_rejected(copy, *canvas[1:4]) for copy in copies]
        return Done(rejects, Seconds(time.perf_counter() - begun))
    sha, numbers = copies[0].sha256, sorted({copy.k for copy in copies})
    pixels = [distort(canvas, engine.recipe, distortions, sha, k) for k in numbers]
    opened = time.perf_counter()
    vectors = dict(zip(numbers, engine.embed(np.stack(pixels)), strict=True))
    seconds = Seconds(opened - begun, time.perf_counter() - opened)
    size = (canvas.width, canvas.height, canvas.format)
    results = [
        CopyVector(Embedding(copy.image, sha, *size, vectors[copy.k]), copy.k)
        if np.isfinite(vectors[copy.k]).all()
        else _rejected(copy, "embed", "NotFinite", "the network gives NaN or infinity")
        for copy in copies
    ]
    return Done(results, seconds)


def _open(copies: Sequence[Copy], recipe: PixelRecipe, limits: Limits) -> DecodedImage | Reject:
    """Decodes an image from the first of its files that still has its content."""
    rejects = []
    for image in dict.fromkeys(copy.image for copy in copies):
        opened = _open_one(image, copies[0].sha256, recipe, limits)
        if isinstance(opened, DecodedImage):
            return opened
        rejects.append(opened)
    return rejects[0]


def _open_one(
    image: Image, sha256: str, recipe: PixelRecipe, limits: Limits
) -> DecodedImage | Reject:
    content = read_content(image, limits)
    if isinstance(content, Reject):
        return content
    _, data, digest = content
    if digest != sha256:
        return Reject(image, "read", "Changed", "the file was changed since it was embedded")
    try:
        return decode_apart(data, recipe, limits, whole=True)
    except ImageError as error:
        return Reject(image, error.stage, error.error_class, error.message)


def _rejected(copy: Copy, stage: str, error_class: str, message: str) -> Reject:
    return Reject(copy.image, stage, error_class, f"copy {copy.k}: {message}", copy.sha256)
