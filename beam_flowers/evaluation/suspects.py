"""Lists labels that are probably wrong, see `head.suspects`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from beam_flowers.head.softmax import Doubles, Head, Indices, Sample
from beam_flowers.head.suspects import is_suspect

FOLDS = 5


class Suspect(NamedTuple):
    """An image whose label is doubted by a head that never saw the image.

    Attributes:
        uri: of the image.
        label: its given label.
        label_score: score of its given label by that head.
        suggested: the label it probably should have.
        suggested_score: score of the suggested label.
    """

    uri: str
    label: str
    label_score: float
    suggested: str
    suggested_score: float


def out_of_fold(
    sample: Sample,
    fold_ids: Indices,
    train: Callable[[Sample], Head],
    score: Callable[[Head, Sample], Doubles],
) -> Doubles:
    """Scores each row by a head trained without its fold, float64 [n, C].

    Args:
        sample: n labelled rows.
        fold_ids: intp [n], from `fold_codes`.
        train: makes a head of C classes.
        score: its scores [k, C] of k rows.
    """
    rows = np.arange(len(sample)) if sample.rows is None else sample.rows
    parts: dict[int, Doubles] = {}
    for fold in np.unique(fold_ids).tolist():
        inside = fold_ids == fold
        held_out, rest = (
            replace(sample, class_ids=sample.class_ids[chosen], rows=rows[chosen])
            for chosen in (inside, ~inside)
        )
        parts[fold] = score(train(rest), held_out)
    scores = np.empty((len(sample), next(iter(parts.values())).shape[1]))
    for fold, part in parts.items():
        scores[fold_ids == fold] = part
    return scores


def suspected_labels(scores: Doubles, class_ids: Indices) -> Indices:
    """Returns the label that each row probably should have; its own unless that is in doubt.

    A class's threshold is the mean score that the rows of that class get for it. A row counts
    as of the class with the best score among those whose threshold it reaches. If that is
    another class than its own and scores better, the label is in doubt (the off-diagonal of the
    confident joint, section 3.1 of Northcutt et al. 2021, JAIR 70).

    Args:
        scores: float64 [n, C], out of sample, from `out_of_fold`.
        class_ids: intp [n], the rows' given labels. Each of the C classes has a row.

    Returns:
        intp [n].
    """
    counts = np.bincount(class_ids, minlength=scores.shape[1])
    own = scores[np.arange(len(scores)), class_ids]
    thresholds = np.bincount(class_ids, weights=own, minlength=scores.shape[1]) / counts
    reached = np.where(scores >= thresholds, scores, -1.0)
    best: Indices = reached.argmax(axis=1)
    doubtful = (reached.max(axis=1) >= 0) & (scores[np.arange(len(scores)), best] > own)
    return np.where(doubtful, best, class_ids)


def list_suspects(
    labels: Sequence[str], uris: Sequence[str], scores: Doubles, class_ids: Indices
) -> list[Suspect]:
    """Lists the rows in doubt, those with the lowest score of their given label first.

    Args:
        labels: C labels in class order.
        uris: of the n rows.
        scores: float64 [n, C], out of sample, from `out_of_fold`.
        class_ids: intp [n], the rows' given labels.
    """
    suspects = [
        Suspect(
            uris[row],
            labels[class_ids[row]],
            float(scores[row, class_ids[row]]),
            labels[scores[row].argmax()],
            float(scores[row].max()),
        )
        for row in np.flatnonzero(is_suspect(scores, class_ids)).tolist()
    ]
    return sorted(suspects, key=lambda s: (s.label_score, s.uri))
