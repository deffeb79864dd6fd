"""The vectors of several backbones side by side, as heads trained on `a+b` take them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from beam_flowers.backbones.compute import Pending, collect, spent, start
from beam_flowers.backbones.decoders import warm_up
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.recipe import Limits
from beam_flowers.records import READ, Image, Reject, Result, Seconds, added

Backbones = ResolvedBackbone | Sequence[ResolvedBackbone]


def several(backbones: Backbones) -> tuple[ResolvedBackbone, ...]:
    """One backbone or several, as a tuple."""
    return (backbones,) if isinstance(backbones, ResolvedBackbone) else tuple(backbones)


_Work = tuple[tuple[Image, ...], tuple[ResolvedBackbone, ...], Limits]
_early: dict[_Work, list[Pending]] = {}
_handing_out = threading.Lock()


def start_each(
    images: Sequence[Image], backbones: Sequence[ResolvedBackbone], limits: Limits
) -> list[Pending]:
    """Hands the files to the pool, once for each backbone: they differ in the pixels they want."""
    with _handing_out:
        # What was started early is given out once: a bundle that is repeated computes again.
        early = _early.pop((tuple(images), tuple(backbones), limits), None) if _early else None
    return early or _start(images, backbones, limits)


def start_early(
    units: Iterable[Sequence[Image]], backbones: Sequence[ResolvedBackbone], limits: Limits
) -> None:
    """`start_each` of units before the one who will ask for them is ready to; in this process
    alone. Who asks meanwhile waits, so that nothing is computed twice."""
    with _handing_out:
        for images in units:
            _early[tuple(images), tuple(backbones), limits] = _start(images, backbones, limits)


def forget_early() -> None:
    """Lets go of what was started early and nobody has asked for."""
    _early.clear()


def _start(
    images: Sequence[Image], backbones: Sequence[ResolvedBackbone], limits: Limits
) -> list[Pending]:
    # It starts while the network is loaded.
    warm_up()
    return [start(images, load(backbone), limits) for backbone in backbones]


def collect_joined(pending: Sequence[Pending]) -> list[Result]:
    """Waits for `start_each`'s work: one outcome a file, in their order."""
    return list(side_by_side([collect(own) for own in pending]))


def spent_joined(pending: Sequence[Pending]) -> Seconds:
    """How long `start_each`'s work took, once it is done."""
    return added(spent(own) for own in pending)


def side_by_side(blocks: Sequence[Sequence[Result]]) -> Iterator[Result]:
    """Joins what several backbones gave of the same pictures.

    Args:
        blocks: of each backbone one result a picture, in one order.

    Yields:
        For each picture its vectors one after the other, float32 [D1 + D2 + ...], or the first
        reason why it lacks one.
    """
    if len(blocks) == 1:
        yield from blocks[0]
        return
    for results in zip(*blocks, strict=True):
        yield _join(results)


def _join(results: Sequence[Result]) -> Result:
    found = []
    for result in results:
        if isinstance(result, Reject):
            return result
        found.append(result)
    first = found[0]
    if any(other.sha256 != first.sha256 for other in found):
        message = "the file was changed while it was read; run it again"
        return Reject(first.image, READ, "Changed", message)
    return first._replace(vector=np.concatenate([b.vector for b in found]))
