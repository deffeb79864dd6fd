"""Chooses the images of a store that are worth a label: diverse ones, then the least sure.

With 500 flowers to choose from 25 labels chosen so give an accuracy of 74 %, random ones 66 %; 100
labels 85 and 83 % (`python benchmarks/few_labels.py STORE`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beam_flowers.errors import InputError
from beam_flowers.head.lbfgs import train_lbfgs
from beam_flowers.head.softmax import CHUNK_ROWS, Doubles, Floats, Indices, Sample
from beam_flowers.review.session import Candidate
from beam_flowers.scoring.ranking import TOP_K, best_first
from beam_flowers.store.features import Features
from beam_flowers.store.vectors import Vectors

_MOST_CLUSTERED = 20_000
"""Rows that k-means goes through; of more the first by content."""
_ITERATIONS = 20


class Chosen(NamedTuple):
    """Holds the images to ask about.

    Attributes:
        candidates: in the order to ask, without a ranking where no label is known well enough.
        is_diverse: True if they stand for all images, False if they are the least sure ones.
    """

    candidates: list[Candidate]
    is_diverse: bool


def choose_images(features: Features, decisions: Mapping[str, str], count: int) -> Chosen:
    """Chooses images without a label, one of each content.

    Up to `count` labels there is little to be unsure by: then the images are those next to the
    centres of as many clusters. From then on a head is trained on the labels so far, and the
    images are those where its two best scores lie nearest.

    Args:
        features: rows of the store.
        decisions: labels by sha256, before those of the store; an empty one takes the image out.
        count: number of labels that a round asks for, 1 or more.

    Raises:
        InputError: every image has a label.
    """
    known: dict[str, str] = {}
    rows_of: dict[str, int] = {}
    # In the order of the contents, so that the choice depends on nothing else.
    for row in sorted(range(len(features.sha256)), key=lambda row: features.sha256[row]):
        content = features.sha256[row]
        rows_of.setdefault(content, row)
        if label := decisions.get(content, features.labels[row]):
            known.setdefault(content, label)
    done = {**decisions, **known}
    free = np.array([row for content, row in rows_of.items() if content not in done], np.intp)
    if not len(free):
        raise InputError(
            "every image of the store has a label: nothing is left to ask about; train on "
            "them, or review a table that `score` writes of the store"
        )
    labels = sorted(set(known.values()))
    missing = count if len(labels) < 2 else count - len(known)
    if missing > 0:
        rows = diverse_rows(features.vectors, free, missing)
        return Chosen([_candidate(features, row, ()) for row in rows], True)
    classes = [labels.index(label) for label in known.values()]
    labelled = np.array([rows_of[content] for content in known], np.intp)
    scores = _scores(features.vectors, np.array(classes, np.intp), labelled, free)
    best = np.sort(scores, axis=1)
    order = np.argsort(best[:, -1] - best[:, -2], kind="stable")[:count]
    ranks = best_first(scores[order].astype(np.float32))[:, :TOP_K]
    rankings = [
        [(labels[c], float(scores[place, c])) for c in ranked]
        for place, ranked in zip(order, ranks.tolist(), strict=True)
    ]
    found = zip(free[order].tolist(), rankings, strict=True)
    return Chosen([_candidate(features, *each) for each in found], False)


def diverse_rows(vectors: Vectors, rows: Indices, count: int) -> list[int]:
    """Returns the rows next to the centres of k-means over unit vectors, largest cluster first.

    In eight draws 25 labels were worth 75 % by unit vectors, 73 % by the vectors as they are.

    Args:
        vectors: float32 [N, D].
        rows: intp [n], the rows to choose from.
        count: number of clusters, and of the rows returned if there are as many.
    """
    # SciPy's clusters take a third of a second to import.
    from scipy.cluster.vq import kmeans2

    rows = rows[:_MOST_CLUSTERED]
    if count >= len(rows):
        return [int(row) for row in rows]
    points: Floats = np.asarray(vectors[rows], np.float32)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.float32(1e-12))
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        # Of empty clusters, as equal vectors have: others take their place below.
        warnings.simplefilter("ignore", UserWarning)
        centres, cluster = kmeans2(points, count, iter=_ITERATIONS, minit="++", seed=0)
    distance = np.linalg.norm(points - centres[cluster], axis=1)
    sizes = np.bincount(cluster, minlength=count)
    chosen: list[int] = []
    for number in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]:
        inside = np.flatnonzero(cluster == number)
        chosen.append(int(inside[distance[inside].argmin()]))
    others = [place for place in range(len(rows)) if place not in set(chosen)]
    return [int(rows[place]) for place in [*chosen, *others][:count]]


def _scores(vectors: Vectors, class_ids: Indices, rows: Indices, asked: Indices) -> Doubles:
    """Returns the scores of `asked` rows, float64 [k, C], by a head trained on others."""
    head = train_lbfgs(Sample(vectors, class_ids, rows), int(class_ids.max()) + 1)
    starts = range(0, len(asked), CHUNK_ROWS)
    parts = [head.scores(vectors[asked[start : start + CHUNK_ROWS]]) for start in starts]
    return np.concatenate(parts).astype(np.float64)


def _candidate(features: Features, row: int, ranking: Sequence[tuple[str, float]]) -> Candidate:
    return Candidate(features.uris[row], features.sha256[row], ranking)
