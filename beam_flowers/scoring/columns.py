"""Makes whole columns of a score table from rankings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from beam_flowers.head.softmax import Floats, Indices
from beam_flowers.scoring.decision import UNKNOWN
from beam_flowers.scoring.ranking import Labeller, Ranking

RANKED = pa.struct([("label", pa.string()), ("score", pa.float32())])


def label_column(labeller: Labeller, classes: Indices) -> pa.Array:
    """Returns the names of classes, intp [N], as text."""
    return pa.array(labeller.labels, pa.string()).take(pa.array(classes))


def best_column(labeller: Labeller, ranking: Ranking) -> pa.Array:
    """Returns the label of each image; `unknown` if none is given."""
    names = pa.array([*labeller.labels, UNKNOWN], pa.string())
    best = ranking.classes[np.arange(len(ranking.classes)), ranking.first]
    return names.take(pa.array(np.where(ranking.given.any(axis=1), best, len(labeller.labels))))


def given_column(labeller: Labeller, ranking: Ranking) -> pa.Array:
    """Returns lists of all given labels, best first."""
    counts = ranking.given.sum(axis=1)
    return pa.ListArray.from_arrays(
        _offsets(counts), label_column(labeller, ranking.classes[ranking.given])
    )


def ranked_column(labeller: Labeller, classes: Indices, scores: Floats) -> pa.Array:
    """Returns lists of `RANKED`, from intp [N, K] classes and their float32 [N, K] scores."""
    columns = [label_column(labeller, classes.ravel()), pa.array(scores.ravel())]
    ranked = pa.StructArray.from_arrays(columns, RANKED.names)
    return pa.ListArray.from_arrays(_offsets(np.full(len(classes), classes.shape[1])), ranked)


def _offsets(counts: Indices) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
