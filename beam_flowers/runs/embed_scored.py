"""Vectors of images that are only scored: kept in the store, and no part of its collection."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from beam_flowers import files
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import StoreError
from beam_flowers.runs.embed import RunOptions, Summary, TableRun, Warn, list_images, run_plan
from beam_flowers.runs.progress import Progress
from beam_flowers.store.commits import (
    NEWEST_LAYOUT,
    Section,
    commit,
    encoding_in,
    latest,
    require_outer_table,
    require_table_place,
)
from beam_flowers.store.features import section_name
from beam_flowers.store.ledger import Rules
from beam_flowers.store.names import SCORED
from beam_flowers.store.parts import Place
from beam_flowers.store.plan import Plan, committed
from beam_flowers.store.schema import StoreRows


def scored_table(store: str) -> str:
    """Return the folder of the table of images that were only scored with a store."""
    return files.join(files.absolute(store), SCORED)


def embed_scored(
    images: Sequence[str],
    store: str,
    backbone: ResolvedBackbone,
    options: RunOptions,
    warn: Warn,
    progress: Progress | None = None,
) -> Summary:
    """Compute the vectors of images that the collection of `store` lacks, into `STORE/__scored`.

    Images that the collection has, with the size and time that are listed, are left to it; images
    of which it has the content take the vectors from there.

    Args:
        images: folders, globs, list files, manifests or images; see `find_images`.
        store: folder of the store; made if absent.
        backbone: from `resolve`.
        options: see `RunOptions`.
        warn: takes a line for the user.
        progress: is told how far the run is.

    Raises:
        InputError: if an input is missing or there is nothing to read in it.
        StoreError: if `store` is no store.
    """
    store = files.absolute(store)
    require_outer_table(store)
    require_table_place(store)
    if "" in latest(store).sections:
        raise StoreError(f"{store} is a table of scores; name a feature store, or a new folder")
    name = backbone.row.name
    collection = Place(store, section_name(name, backbone.fingerprint), backbone.fingerprint)
    place = replace(collection, root=scored_table(store))
    known = committed(latest(place.root), place)
    encoding = encoding_in(known if known.parts else committed(latest(store), collection))
    about = {"name": name, **backbone.about(), "encoding": encoding, "engine": backbone.engine}
    run = TableRun(
        place.root,
        place.section,
        Section(backbone.fingerprint, about),
        StoreRows(backbone.fingerprint, name, backbone.vectors, encoding),
        Rules(verify=options.verify, retry=options.retry_rejects, relabel=False),
        options.shards,
        warn,
        progress,
        others=(store,),
        # `--verify` trusts no stored row, those of the collection neither.
        leaves_out=not options.verify,
    )

    def carry_out(plan: Plan) -> None:
        _require_newest_layout(store)
        run_plan(plan, run.kind, [backbone], options.pipeline, progress)

    return run.bring_up_to_date(
        lambda ledger: ledger.list_found(list_images(images, store, progress)), carry_out
    )


def _require_newest_layout(store: str) -> None:
    """Commit the collection as it is where only manifests of an older layout say what it is.

    A program that knows layout 1 only would delete `__scored` by `vacuum`; it refuses layout 2.
    """
    while True:
        base = latest(store)
        if base.version and base.layout == NEWEST_LAYOUT:
            return
        commit(store, replace(base, version=base.version + 1, run=secrets.token_hex(8), counts={}))
