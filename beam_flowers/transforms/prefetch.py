"""Computes the first units while Beam is imported and the pipeline is built.

That takes one core a second or more, in which the others were idle: a tenth of the time of two
thousand images with a fast backbone (benchmarks/RESULTS.md, P9).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.images.recipe import Limits
from beam_flowers.store.plan import Plan
from beam_flowers.store.schema import images_of
from beam_flowers.store.work_units import Unit, read_unit

_UNITS = 2


@contextlib.contextmanager
def head_start(
    plan: Plan,
    backbones: Sequence[ResolvedBackbone],
    options: Sequence[str],
    limits: Limits,
) -> Iterator[None]:
    """Starts a plan's first units, where they will be computed in this process.

    TensorFlow is not imported here: beside another import that may block for ever.
    """
    from beam_flowers.backbones.joined import forget_early

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
            forget_early()


def _start(units: Sequence[Unit], backbones: Sequence[ResolvedBackbone], limits: Limits) -> None:
    from beam_flowers.backbones.joined import start_early
    from beam_flowers.backbones.openvino_engine import is_kept

    # Whatever is wrong, the pipeline finds it again and tells.
    with contextlib.suppress(Exception):
        if all(map(is_kept, backbones)):
            start_early([images_of(read_unit(unit)) for unit in units], backbones, limits)
