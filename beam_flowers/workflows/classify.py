"""Ranks the labels of a few images at once, without a table."""

from __future__ import annotations

from collections.abc import Sequence

from beam_flowers import files
from beam_flowers.backbones.joined import Backbones, several, start_each
from beam_flowers.images.recipe import DEFAULT_LIMITS, Limits
from beam_flowers.records import Embedding, Image, Reject, Result, Score
from beam_flowers.scoring.decision import AcceptanceRule
from beam_flowers.scoring.ranking import TOP_K, Models
from beam_flowers.scoring.table import ScoreLayout, ScoreRows
from beam_flowers.workflows.progress import Progress

_AT_ONCE = 64
"""Images that are handed to the threads between two reports of progress."""


def classify_images(
    images: Sequence[str],
    models: Models,
    backbones: Backbones,
    top_k: int = TOP_K,
    rule: AcceptanceRule | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> list[tuple[Score, ...] | Reject]:
    """Returns for each image, in their order, a `Score` of each model, or its reject.

    Args:
        images: paths or addresses.
        models: the model, or several of one backbone.
        backbones: as in `score_images`.
        top_k: labels an image.
        rule: when a label is given.
        limits: what one image may cost.
        progress: gets the number of images that are done.
    """
    progress = progress or Progress()
    progress.begin("computing", len(images))
    kind = ScoreRows.of(models, rule, ScoreLayout(top_k))
    uris = map(files.absolute, images)
    listed = [Image(uri, files.parent(uri), uri) for uri in uris]
    results: list[Result] = []
    for start in range(0, len(listed), _AT_ONCE):
        some = listed[start : start + _AT_ONCE]
        results += start_each(some, several(backbones), limits).results()
        progress.reach(len(results))
    found = [result for result in results if isinstance(result, Embedding)]
    scores = iter(kind.scores(found) if found else ())
    return [
        result if isinstance(result, Reject) else tuple(next(scores) for _ in kind.labellers)
        for result in results
    ]
