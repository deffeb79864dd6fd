"""Checks that the workers of a runner have all that a run needs."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import cycle, islice
from typing import TYPE_CHECKING

from beam_flowers import files
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import InputError, StoreFieldError, WorkerError
from beam_flowers.files.typed import MOST_FREE_BYTES, Form
from beam_flowers.images.find import find_images
from beam_flowers.records import Image
from beam_flowers.store.commits import require_table_place
from beam_flowers.store.names import WORK
from beam_flowers.store.parts import Place
from beam_flowers.workflows.embed import RunOptions

if TYPE_CHECKING:
    from beam_flowers.transforms.check import Finding

PROBES = 10


def check_workers(
    images: Sequence[str],
    store: str,
    backbone: ResolvedBackbone,
    options: RunOptions | None = None,
) -> list[Finding]:
    """Runs a job of a few images and returns what its workers found, one an image.

    Args:
        images: what they shall be able to read, as `embed` takes it; may be empty.
        store: what they shall be able to write; nothing of the check stays there.
        backbone: whose vectors they shall be able to compute.
        options: `shards` images, 10 by default.

    Raises:
        InputError: `images` has no files.
        WorkerError: no worker answered, or none of them could say what it found.
    """
    from beam_flowers.transforms.check import FINDINGS, CheckWorkers, Finding
    from beam_flowers.transforms.runner import run_pipeline

    options = options or RunOptions()
    options.apply()
    store = files.absolute(store)
    require_table_place(store)
    is_new = not files.exists(store)
    probed = _images(images, options.shards or PROBES)
    place = Place(store, "", backbone.fingerprint, secrets.token_hex(8))
    findings: list[Finding] = []
    try:
        run_pipeline(CheckWorkers(place, backbone, probed), place, options.pipeline)
    except WorkerError:
        if not files.exists(place.run_file(FINDINGS)):
            raise
    finally:
        uri = place.run_file(FINDINGS)
        if files.exists(uri):
            form = Form(list[Finding], StoreFieldError, "run this again", most=MOST_FREE_BYTES)
            findings = form.read(files.read_document(uri, form), uri)
        _leave_nothing(place, is_new)
    if not findings:
        raise WorkerError("the job ended, but its last step did not; the runner's log says more")
    return findings


def _images(images: Sequence[str], count: int) -> list[Image | None]:
    """Returns `count` images, some of each source, repeated if there are fewer."""
    if not images:
        return [None] * count
    found: list[Image | None] = []
    for source in images:
        listed = (found for found in find_images([source]) if isinstance(found, Image))
        found += islice(listed, -(-count // len(images)))
    if not found:
        raise InputError(f"there is no file in {', '.join(images)}")
    return list(islice(cycle(found), count))


def _leave_nothing(place: Place, is_new: bool) -> None:
    files.delete_tree(place.run_file())
    files.remove_empty_folders(files.join(place.root, WORK))
    if is_new:
        files.remove_empty_folders(place.root)
