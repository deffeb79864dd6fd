"""Vectors of images that are only scored: kept in the store, and no part of its collection."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from beam_flowers import files
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import StoreError
from beam_flowers.records import Say
from beam_flowers.store.commits import (
    NEWEST_LAYOUT,
    commit,
    committed,
    encoding_in,
    latest,
    require_outer_table,
    require_table_place,
)
from beam_flowers.store.features import scored_root
from beam_flowers.store.ledger import Rules
from beam_flowers.store.plan import Plan
from beam_flowers.workflows.embed import (
    EmbedSummary,
    RunOptions,
    TableRun,
    backbone_place,
    backbone_run,
    list_into,
    run_plan,
)
from beam_flowers.workflows.progress import Progress


def embed_scored(
    images: Sequence[str],
    store: str,
    backbone: ResolvedBackbone,
    options: RunOptions,
    warn: Say,
    progress: Progress | None = None,
) -> EmbedSummary:
    """Computes the vectors of images that the collection of `store` lacks, into `STORE/__scored`.

    Images that the collection has, with the size and time that are listed, are left to it; images
    of which it has the content take the vectors from there.

    Args:
        images: folders, globs, list files, manifests or images; see `find_images`.
        store: folder of the store; made if absent.
        backbone: from `resolve`.
        options: see `RunOptions`.
        warn: takes a line for the user.
        progress: gets the state of the run, again and again.

    Raises:
        InputError: if an input is missing or there is nothing to read in it.
        StoreError: if `store` is no store.
    """
    store = files.absolute(store)
    require_outer_table(store)
    require_table_place(store)
    if "" in latest(store).sections:
        raise StoreError(f"{store} is a table of scores; name a feature store, or a new folder")
    place = backbone_place(scored_root(store), backbone)
    known = committed(latest(place.root), place)
    collection = committed(latest(store), backbone_place(store, backbone))
    encoding = encoding_in(known if known.parts else collection)
    rules = Rules(verify=options.verify, retry=options.retry_rejects, relabel=False)
    run = backbone_run(place, backbone, encoding, rules, options.shards, warn, progress)
    # `--verify` trusts no stored row, those of the collection neither.
    run = replace(run, others=(store,), leaves_out=not options.verify, made=options.made)

    return run.bring_up_to_date(
        partial(list_into, images=images, table=store, options=options, progress=progress),
        partial(_carry_out, run=run, store=store, backbone=backbone, options=options),
    )


def _carry_out(
    plan: Plan, *, run: TableRun, store: str, backbone: ResolvedBackbone, options: RunOptions
) -> None:
    _require_newest_layout(store)
    run_plan(plan, run.row_kind, [backbone], options, run.progress)


def _require_newest_layout(store: str) -> None:
    """Commits the collection once more if its manifests have an older layout.

    A program that knows layout 1 only would delete `__scored` by `vacuum`; it refuses layout 2.
    """
    while True:
        base = latest(store)
        if base.version and base.layout == NEWEST_LAYOUT:
            return
        commit(store, replace(base, version=base.version + 1, run=secrets.token_hex(8), counts={}))
