"""Measures how fast this processor runs a backbone at each precision."""

from __future__ import annotations

import hashlib
import importlib.resources
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from beam_flowers.backbones.compute import read_content
from beam_flowers.backbones.decoders import decode_apart
from beam_flowers.backbones.engine import Engine, load
from beam_flowers.backbones.hardware import Precision
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.errors import BackboneError
from beam_flowers.evaluation.precisions import cosines
from beam_flowers.images.recipe import DEFAULT_LIMITS, PixelRecipe
from beam_flowers.records import Image, Reject

_ROUNDS = 5
_SECONDS = 0.4
"""CPU time of one round of one precision."""


@dataclass(frozen=True)
class Measured:
    """Holds the cost of one precision on this processor.

    Attributes:
        precision: type of the products.
        problem: reason why it does not run here; empty if it does.
        milliseconds: CPU time an image, network alone, median of the rounds.
        cosine: mean cosine to the float32 vectors, over photographs of the package.
        vectors: first 12 hex digits of the sha256 of those vectors: equal ones mean equal bits.
    """

    precision: Precision
    problem: str = ""
    milliseconds: float = 0.0
    cosine: float = 1.0
    vectors: str = ""


def measure(backbone: ResolvedBackbone) -> list[Measured]:
    """Measures a backbone at each precision that this processor has, in turns.

    CPU time of this process, so that other work on the machine disturbs little; the rounds of the
    precisions alternate, so that a slow minute meets all of them.

    Args:
        backbone: in any precision; its engine runs all.
    """
    found: list[Measured] = []
    engines: dict[Precision, Engine] = {}
    for precision in get_args(Precision):
        try:
            engines[precision] = load(backbone.in_precision(precision))
        except BackboneError as error:
            found.append(Measured(precision, str(error)))
    if not engines:
        return found
    pixels = np.stack(list(_photographs(next(iter(engines.values())).recipe)))
    vectors = {precision: engine.embed(pixels) for precision, engine in engines.items()}
    rounds = [{p: _seconds(e, pixels) for p, e in engines.items()} for _ in range(_ROUNDS)]
    for precision in engines:
        own = vectors[precision]
        found.append(
            Measured(
                precision,
                "",
                1000 * float(np.median([one[precision] for one in rounds])),
                cosines(vectors.get("float32", own), own)[0],
                hashlib.sha256(own.tobytes()).hexdigest()[:12],
            )
        )
    return sorted(found, key=lambda one: get_args(Precision).index(one.precision))


def _photographs(recipe: PixelRecipe) -> Iterator[npt.NDArray[np.uint8]]:
    """Yields the pixels of eight photographs of the package, uint8 [height, width, 3]."""
    data = importlib.resources.files("beam_flowers") / "data" / "flowers" / "unseen"
    with importlib.resources.as_file(data) as folder:
        for path in sorted(folder.rglob("*.jpg"))[:8]:
            content = read_content(Image(str(path), str(folder), path.name), DEFAULT_LIMITS)
            assert not isinstance(content, Reject), content
            yield decode_apart(content[1], recipe, DEFAULT_LIMITS).pixels


def _seconds(engine: Engine, pixels: npt.NDArray[np.uint8]) -> float:
    """Returns CPU seconds an image, on this thread."""
    begun, count = time.process_time(), 0
    while (spent := time.process_time() - begun) < _SECONDS:
        engine.embed(pixels)
        count += len(pixels)
    return spent / count
