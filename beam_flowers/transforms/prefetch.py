"""Computes the first units while Beam is imported and the pipeline is built.

That takes one core a second or more, in which the others were idle: a tenth of the time of two
thousand images with a fast backbone (benchmarks/RESULTS.md, P9).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Image
from beam_flowers.store.plan import Plan
from beam_flowers.store.schema import images_of
from beam_flowers.store.work_units import Unit, read_unit

if TYPE_CHECKING:
    from beam_flowers.backbones.joined import Started

_UNITS = 2


class Prefetched:
    """Holds work that this process started before the pipeline asks for it."""

    def __init__(self) -> None:
        self._work: dict[_Work, Started] = {}
        self._lock = threading.Lock()

    def start(
        self,
        units: Iterable[Sequence[Image]],
        backbones: Sequence[ResolvedBackbone],
        limits: Limits,
    ) -> None:
        """Starts the images of each unit."""
        # A run that has nothing to do goes without Pillow.
        from beam_flowers.backbones.joined import start_each

        # `take` waits for all of them, so that nothing is computed twice.
        with self._lock:
            for images in units:
                work = tuple(images), tuple(backbones), limits
                self._work[work] = start_each(images, backbones, limits)

    def take(
        self, images: Sequence[Image], backbones: Sequence[ResolvedBackbone], limits: Limits
    ) -> Started | None:
        """Returns the started work of a unit, once: a bundle that is repeated computes again."""
        with self._lock:
            if not self._work:
                return None
            return self._work.pop((tuple(images), tuple(backbones), limits), None)

    def clear(self) -> None:
        """Forgets the work that was not taken."""
        self._work.clear()


_Work = tuple[tuple[Image, ...], tuple[ResolvedBackbone, ...], Limits]

PREFETCHED = Prefetched()
"""The work of this process. The steps of a pipeline are pickled, so that `head_start` cannot hand
it to them."""


@contextlib.contextmanager
def head_start(
    plan: Plan, backbones: Sequence[ResolvedBackbone], options: Sequence[str], limits: Limits
) -> Iterator[None]:
    """Starts a plan's first units, where they will be computed in this process.

    TensorFlow is not imported here: beside another import that may block for ever.
    """
    # With options the pipeline may run elsewhere, where this work would be of no use.
    thread = None
    if not options and plan.compute and all(b.engine == "openvino" for b in backbones):
        units = plan.compute[:_UNITS]
        thread = threading.Thread(target=_start, args=(units, backbones, limits), name="head start")
        thread.start()
    try:
        yield
    finally:
        if thread:
            thread.join()
            PREFETCHED.clear()


def _start(units: Sequence[Unit], backbones: Sequence[ResolvedBackbone], limits: Limits) -> None:
    from beam_flowers.backbones.openvino_engine import starts_alone

    # Whatever is wrong, the pipeline finds it again and tells.
    with contextlib.suppress(Exception):
        if all(map(starts_alone, backbones)):
            PREFETCHED.start([images_of(read_unit(unit)) for unit in units], backbones, limits)
