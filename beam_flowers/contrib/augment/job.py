"""Computes the vectors of distorted copies of a store's labelled images (`embed --augment`)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from beam_flowers import files
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.contrib.augment.distort import Augmentation, Distortions, in_words
from beam_flowers.contrib.augment.ledger import CopyLedger
from beam_flowers.contrib.augment.table import (
    AugmentedRows,
    augmented_root,
    describe_copies,
    fill_copies,
    labelled_images,
    plan_copies,
)
from beam_flowers.errors import InputError, StoreError
from beam_flowers.records import Say
from beam_flowers.store.commits import (
    Manifest,
    Section,
    committed,
    encoding_in,
    latest,
    require_table_place,
)
from beam_flowers.store.features import section_name
from beam_flowers.store.lease import Heart, adopt_work, is_withdrawn_by_another
from beam_flowers.store.names import REJECTS
from beam_flowers.store.parts import Place
from beam_flowers.store.plan import Plan, is_done
from beam_flowers.store.table import until_committed
from beam_flowers.workflows.embed import NOT_COMMITTED, RunOptions, RunResult, read_result
from beam_flowers.workflows.progress import Progress, watched


@dataclass(frozen=True)
class AugmentSummary:
    """Counts of one run: `computed + reused + rejected = copies x images` rows.

    Attributes:
        images: number of labelled images in the store.
        copies: number of copies of each image.
        computed: number of vectors computed in this run.
        reused: rows with stored vectors, or with those of a file of the same bytes.
        rejected: copies of files that were changed or lost since they were embedded.
    """

    images: int
    copies: int
    computed: int
    reused: int
    rejected: int

    def __str__(self) -> str:
        return (
            f"{self.copies} distorted copies of {self.images} labelled images: computed "
            f"{self.computed}, reused {self.reused}, rejected {self.rejected}"
        )


def augment_store(
    store: str,
    backbone: ResolvedBackbone,
    augmentation: Augmentation,
    options: RunOptions | None = None,
    *,
    warn: Say = print,
    progress: Progress | None = None,
) -> AugmentSummary:
    """Brings the distorted copies of a store's labelled images up to date.

    Their rows are in a table of their own, `STORE/__augmented`. Rows of the same distortions stay.
    Rows of other distortions, of higher copy numbers or of images that left the store go.

    Args:
        store: folder of the store.
        backbone: the backbone; the store must have the images' own vectors of it.
        augmentation: number and distortions of the copies.
        options: see `RunOptions`; a lost copy is always tried again.
        warn: called with a line for the user.
        progress: called with the state of the run.

    Raises:
        InputError: if no image of the store has a label.
        StoreError: if there is no such store, or it has no vectors of the backbone.
    """
    options = options or RunOptions()
    options.apply()
    run = _Run(files.absolute(store), backbone, augmentation, options, warn, progress)
    require_table_place(run.table)
    result = until_committed(run.table, run.attempt)
    # What earlier attempts of this run computed, the last one found as reused.
    earlier = min(sum(run.computed), result.reused)
    made = result.embedded + result.reused + result.rejected
    if made != result.listed:
        raise StoreError(
            f"{run.table} has {made} copies and rejects, not {result.listed}; run this again"
        )
    if result.rejected:
        warn(
            f"{result.rejected} copies could not be made: their files were changed or lost since"
            f" they were embedded; see {files.join(run.table, REJECTS)}"
        )
    return AugmentSummary(
        result.listed // augmentation.copies,
        augmentation.copies,
        result.embedded + earlier,
        result.reused - earlier,
        result.rejected,
    )


@dataclass(frozen=True)
class _Run:
    store: str
    backbone: ResolvedBackbone
    augmentation: Augmentation
    options: RunOptions
    warn: Say
    progress: Progress | None
    computed: list[int] = field(default_factory=list)
    """Numbers of vectors that attempts computed which lost a race."""

    @property
    def table(self) -> str:
        return augmented_root(self.store)

    def attempt(self, base: Manifest) -> RunResult | None:
        """Brings the copies up to date with the newest version of the store."""
        name = self.backbone.row.name
        images = Place(
            self.store, section_name(name, self.backbone.fingerprint), self.backbone.fingerprint
        )
        plain = committed(latest(self.store), images)
        if not plain.rows:
            raise StoreError(f"{self.store} has no vectors of {name}; embed the images first")
        section = describe_copies(plain, self.augmentation)
        place = Place(self.table, images.section, section.fingerprint, secrets.token_hex(8))
        row_kind = AugmentedRows(
            section.fingerprint, name, self.backbone.vectors, encoding_in(plain)
        )
        with Heart(place) as heart, closing(CopyLedger()) as ledger:
            ledger.add_images(labelled_images(images, plain))
            if not ledger.images():
                raise InputError(
                    f"no image in {self.store} has a label, and only labelled ones are augmented:"
                    " put the images of each class into a folder of their own, or leave the"
                    " augmentation out"
                )
            if not adopt_work(place, base):
                return None
            self._warn_of_losses(base, place, fill_copies(ledger, place, base, row_kind))
            plan = plan_copies(ledger, place, base, row_kind, section, self.options.shards)
            result = self._carry_out(plan, row_kind, base, heart)
        if result.committed:
            return result
        self.computed.append(result.embedded)
        return None

    def _warn_of_losses(self, base: Manifest, place: Place, lost: Sequence[str]) -> None:
        for name in lost:
            self.warn(f"{place.published(name)} is gone; its copies are made again")
        old = base.sections.get(place.section, Section(place.fingerprint, {}))
        if old.fingerprint != place.fingerprint:
            self.warn(
                f"the copies in {files.join(self.table, place.section)} were made with other "
                f"distortions, {in_words(old.about.get('distortions', {}))}, and are replaced"
            )

    def _carry_out(
        self, plan: Plan, row_kind: AugmentedRows, base: Manifest, heart: Heart
    ) -> RunResult:
        if is_done(plan, base):
            return RunResult.of_nothing(plan)
        heart.start()
        distortions: Distortions = self.augmentation.distortions
        with watched(plan, self.progress):
            # Beam takes seconds to import, which a run without work need not pay.
            from beam_flowers.contrib.augment.transforms import AugmentPlan
            from beam_flowers.transforms.runner import run_pipeline

            made = AugmentPlan(plan, row_kind, self.backbone, distortions, self.options.limits)
            try:
                run_pipeline(made, plan.place, self.options.pipeline)
                return read_result(plan.place)
            except Exception:
                if is_withdrawn_by_another(plan.place):
                    return NOT_COMMITTED
                raise
