"""Computes the embeddings of several backbones side by side, for heads trained on `a+b`."""

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
        blocks = [collect(tasks) for tasks in self.tasks]
        return blocks[0] if len(blocks) == 1 else list(side_by_side(blocks))

    def seconds(self) -> Seconds:
        """Returns how long the tasks took, once they are done."""
        return added(spent(tasks) for tasks in self.tasks)


def start_each(
    images: Sequence[Image], backbones: Sequence[ResolvedBackbone], limits: Limits
) -> Started:
    """Hands the files to the pool once for each backbone, as their pixels differ."""
    # The decoder process starts while the backbone is loaded.
    warm_up()
    return Started(tuple(start(images, load(backbone), limits) for backbone in backbones))


def side_by_side(blocks: Sequence[Sequence[Result]]) -> Iterator[Result]:
    """Joins the results of several backbones for the same images.

    Args:
        blocks: for each backbone one result an image, in the same order.

    Yields:
        For each image its concatenated vectors, float32 [D1 + D2 + ...], or its first reject.
    """
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
