"""Computes embeddings of several backbones side by side, as heads trained on `a+b` take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from beam_flowers.backbones.compute import Pending, collect, spent, start
from beam_flowers.backbones.decoders import warm_up
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.recipe import Limits
from beam_flowers.records import READ, Image, Reject, Result, Seconds, added

Backbones = ResolvedBackbone | Sequence[ResolvedBackbone]


def several(backbones: Backbones) -> tuple[ResolvedBackbone, ...]:
    """Returns one backbone or several as a tuple."""
    return (backbones,) if isinstance(backbones, ResolvedBackbone) else tuple(backbones)


class Started(NamedTuple):
    """Holds the tasks of some images that are on the threads, of each backbone."""

    tasks: tuple[Pending, ...]

    def results(self) -> list[Result]:
        """Waits for the tasks and returns one result for each image, in their order."""
        blocks = [collect(own) for own in self.tasks]
        return blocks[0] if len(blocks) == 1 else list(side_by_side(blocks))

    def seconds(self) -> Seconds:
        """Returns how long the tasks took, once they are done."""
        return added(spent(own) for own in self.tasks)


def start_each(
    images: Sequence[Image], backbones: Sequence[ResolvedBackbone], limits: Limits
) -> Started:
    """Starts tasks for images, for each backbone, as they differ in the pixels that they take."""
    # It starts while the network is loaded.
    warm_up()
    return Started(tuple(start(images, load(backbone), limits) for backbone in backbones))


def side_by_side(blocks: Sequence[Sequence[Result]]) -> Iterator[Result]:
    """Joins the results of several backbones for the same images.

    Args:
        blocks: of each backbone one result for each image, in one order.

    Yields:
        For each image its embeddings one after the other, float32 [D1 + D2 + ...], or the first
        reason why it lacks one.
    """
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
