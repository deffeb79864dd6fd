"""`classify`: the ranked labels of a few pictures, at once, without a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from beam_flowers import files
from beam_flowers.backbones.compute import compute_bottlenecks
from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import ResolvedBackbone
from beam_flowers.head.bundle import Bundle
from beam_flowers.records import Bottleneck, Image, Reject
from beam_flowers.scores.ranking import TOP_K, Ranked, rank


def classify_pictures(
    pictures: Sequence[str], bundle: Bundle, backbone: ResolvedBackbone, top_k: int = TOP_K
) -> list[tuple[Ranked, ...] | Reject]:
    """The `top_k` labels of each picture, best first, or why it has none; in their order."""
    images = [Image(uri, files.parent(uri), uri) for uri in map(files.absolute, pictures)]
    results = compute_bottlenecks(images, load(backbone))
    vectors = [r.vector for r in results if isinstance(r, Bottleneck)]
    ranking = iter(rank(bundle.head, bundle.labels, np.stack(vectors), top_k) if vectors else ())
    return [r if isinstance(r, Reject) else next(ranking) for r in results]
