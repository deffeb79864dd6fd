"""Computes the embeddings of several backbones side by side, for heads trained on `a+b`."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from beam_flowers.backbones.compute import Pending, collect, spent, start
from beam_flowers.backbones.decoders import warm_up
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.recipe import Limits
from beam_flowers.records import READ, Bottleneck, Image, Reject, Seconds, added

Result = Bottleneck | Reject
Backbones = ResolvedBackbone | Sequence[ResolvedBackbone]


def several(backbones: Backbones) -> tuple[ResolvedBackbone, ...]:
    """Returns one backbone or several as a tuple."""
    return (backbones,) if isinstance(backbones, ResolvedBackbone) else tuple(backbones)


_Work = tuple[tuple[Image, ...], tuple[ResolvedBackbone, ...], Limits]
_early: dict[_Work, list[Pending]] = {}
_handing_out = threading.Lock()


def start_each(
    images: Sequence[Image], backbones: Sequence[ResolvedBackbone], limits: Limits
) -> list[Pending]:
    """Hands the files to the pool once for each backbone, as their pixels differ."""
    with _handing_out:
        # Early work is given out once: a repeated bundle computes again.
        early = _early.pop((tuple(images), tuple(backbones), limits), None) if _early else None
    return early or _start(images, backbones, limits)


def start_early(
    units: Iterable[Sequence[Image]], backbones: Sequence[ResolvedBackbone], limits: Limits
) -> None:
    """Starts units in this process before the pipeline asks for them.

    `start_each` waits until all are started, so that nothing is computed twice.
    """
    with _handing_out:
        for images in units:
            _early[tuple(images), tuple(backbones), limits] = _start(images, backbones, limits)


def forget_early() -> None:
    """Forgets early work that the pipeline has not asked for."""
    _early.clear()


def _start(
    images: Sequence[Image], backbones: Sequence[ResolvedBackbone], limits: Limits
) -> list[Pending]:
    # The decoder process starts while the backbone is loaded.
    warm_up()
    return [start(images, load(backbone), limits) for backbone in backbones]


def collect_joined(pending: Sequence[Pending]) -> list[Result]:
    """Waits for the tasks of `start_each`; returns one outcome a file, in their order."""
    return list(side_by_side([collect(tasks) for tasks in pending]))


def spent_joined(pending: Sequence[Pending]) -> Seconds:
    """Returns the time of the finished tasks of `start_each`."""
    return added(spent(tasks) for tasks in pending)


def side_by_side(blocks: Sequence[Sequence[Result]]) -> Iterator[Result]:
    """Joins the results of several backbones for the same images.

    Args:
        blocks: for each backbone one result an image, in the same order.

    Yields:
        For each image its concatenated vectors, float32 [D1 + D2 + ...], or its first reject.
    """
    if len(blocks) == 1:
        yield from blocks[0]
        return
    for results in zip(*blocks, strict=True):
        yield _join(results)


def _join(results: Sequence[Result]) -> Result:
    embedded = []
    for result in results:
        if isinstance(result, Reject):
            return result
        embedded.append(result)
    first = embedded[0]
    if any(other.sha256 != first.sha256 for other in embedded):
        message = "the file was changed while it was read; run it again"
        return Reject(first.image, READ, "Changed", message)
    return first._replace(vector=np.concatenate([b.vector for b in embedded]))
