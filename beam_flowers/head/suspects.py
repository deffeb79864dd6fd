"""Finds labels that are probably wrong: confident learning (Northcutt, Jiang, Chuang 2021).

cleanlab, of the same authors, is maintained and right, but brings scikit-learn and pandas
(140 MB) for these lines. On the same scores both give the same rows.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from beam_flowers.errors import TrainingError
from beam_flowers.head.cross_fit import FOLDS, Mask, cross_fit, make_folds
from beam_flowers.head.examples import Examples, Prepared
from beam_flowers.head.lbfgs import LbfgsOptions, default_l2
from beam_flowers.head.softmax import Doubles, Indices, softmax

STRONGER = 20
"""Factor of the default l2 for heads that judge labels: at the default they learn wrong labels by
heart (`benchmarks/learning.py suspects`)."""


def suspecting(classes: int) -> LbfgsOptions:
    """Returns the recipe of heads that judge labels."""
    return LbfgsOptions(l2=STRONGER * default_l2(classes))


def is_suspect(scores: Doubles, class_ids: Indices) -> Mask:
    """Tells which labels are probably wrong, by the rule `both` of cleanlab: bool [n].

    The confident joint (section 3.1 of Northcutt et al. 2021, JAIR 70) estimates how many rows
    labelled i are of class j. A row is doubted if it is among the rows of its label with the lowest
    own scores, as many as are not of their label, and among those where some other class leads by
    most, as many as are of that class, and if that class scores better.

    Args:
        scores: float64 [n, C], each row's by a head trained without it.
        class_ids: intp [n], the rows' given labels.
    """
    joint = _joint(scores, class_ids)
    doubted = np.zeros(len(scores), bool)
    for label in np.flatnonzero(np.bincount(class_ids, minlength=len(joint)) > 1).tolist():
        rows = np.flatnonzero(class_ids == label)
        own = scores[rows, label]
        by_class, by_rate = np.zeros((2, len(rows)), bool)
        by_class[np.argsort(own, kind="stable")[: len(rows) - joint[label, label]]] = True
        for other in np.flatnonzero(joint[label]).tolist():
            if other != label:
                lead = scores[rows, other] - own
                by_rate[np.argsort(-lead, kind="stable")[: joint[label, other]]] = True
        doubted[rows] = by_class & by_rate
    return doubted & (scores.argmax(axis=1) != class_ids)


def _joint(scores: Doubles, class_ids: Indices) -> Indices:
    """Estimates how many rows of each label are of each class: intp [C, C], sums as counted."""
    classes = scores.shape[1]
    counts = np.bincount(class_ids, minlength=classes)
    own = scores[np.arange(len(scores)), class_ids]
    sums = np.bincount(class_ids, weights=own, minlength=classes)
    # A class without rows has no threshold that a score reaches.
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), 2.0)
    reached = scores >= thresholds - 1e-6
    best = np.where(reached.sum(axis=1) > 1, scores.argmax(axis=1), reached.argmax(axis=1))
    sure = reached.any(axis=1)
    joint = np.zeros((classes, classes))
    np.add.at(joint, (class_ids[sure], best[sure]), 1)
    joint[np.diag_indices(classes)] = np.maximum(joint.diagonal(), 1)
    joint *= (counts / joint.sum(axis=1))[:, None]
    return np.array([_rounded(row) for row in joint], np.intp).reshape(classes, classes)


def _rounded(row: Doubles) -> npt.NDArray[np.int64]:
    """Rounds numbers to whole ones with the same sum."""
    whole = row.round()
    missing = int(round(row.sum()) - whole.sum())
    order = np.argsort(row - whole, kind="stable")
    order = order[::-1] if missing > 0 else order
    whole[order[: abs(missing)]] += np.sign(missing)
    return whole.astype(np.int64)


def without_suspects(
    prepared: Prepared, examples: Examples, chosen: Mask, share: float, *, seed: int
) -> Mask:
    """Takes suspects out of rows: returns `chosen`, bool [n], without them.

    Nothing but the chosen rows is looked at: each is judged by a head trained on the others.

    Args:
        prepared: the rows.
        examples: their vectors.
        chosen: the rows to look at.
        share: most of the rows of a label that are taken out, those of the lowest own scores.
        seed: of the folds.

    Raises:
        TrainingError: if images have several labels.
    """
    if prepared.membership is not None:
        raise TrainingError("suspects can be dropped where each image has one label only")
    folds = make_folds(prepared, examples, chosen, FOLDS, seed=seed)
    if folds is None:
        return chosen
    fit = cross_fit(prepared, examples, folds, [suspecting(len(prepared.labels))])
    scores = softmax(fit.logits / fit.temperature)
    doubted = is_suspect(scores, fit.class_ids)
    kept = chosen.copy()
    for label in np.unique(fit.class_ids).tolist():
        rows = np.flatnonzero(doubted & (fit.class_ids == label))
        most = int(share * np.count_nonzero(prepared.class_ids[chosen] == label))
        lowest = rows[np.argsort(scores[rows, label], kind="stable")][:most]
        kept[fit.places[lowest]] = False
    return kept


def describe_dropped(
    prepared: Prepared, examples: Examples, dropped: Mask, share: float
) -> dict[str, Any]:
    """Returns what was dropped as JSON, for the model bundle."""
    rows = np.flatnonzero(dropped).tolist()
    by_label = Counter(prepared.labels[prepared.class_ids[row]] for row in rows)
    return {
        "most_of_a_label": share,
        "images": len(rows),
        "by_label": dict(sorted(by_label.items())),
        "sha256": sorted(examples.sha256[prepared.rows[row]] for row in rows),
    }
