"""Sums up a score table for the screen: labels, doubtful images, and how given labels agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers.head.metrics import wilson_interval
from beam_flowers.head.softmax import Floats
from beam_flowers.scoring.decision import UNKNOWN

LEAST_SURE = 10
"""Images that are named as the least sure ones."""


class Confusion(NamedTuple):
    """Counts the images of one given label that got another one."""

    given: str
    predicted: str
    images: int


class Agreement(NamedTuple):
    """Compares predicted with given labels, on images that have both.

    Attributes:
        images: number of these images.
        accuracy: share of equal labels, 0..1.
        low: lower end of the 95 % interval (Wilson 1927).
        high: upper end.
        confusions: most frequent first.
        strange: images whose given label the model does not know; they are not counted.
    """

    images: int
    accuracy: float
    low: float
    high: float
    confusions: Sequence[Confusion]
    strange: int


@dataclass
class ScoreAnswer:
    """Sums up the rows of one model.

    Attributes:
        model_id: of the model.
        rule: the user's rule in words; empty without one.
        labels: images by predicted label.
        least_sure: score, label and uri of the images with the lowest scores, lowest first.
        known: the model's labels; empty where they are not to be compared.
        pairs: images by given and predicted label.
    """

    model_id: str
    rule: str = ""
    known: Collection[str] = ()
    labels: Counter[str] = field(default_factory=Counter)
    least_sure: list[tuple[float, str, str]] = field(default_factory=list)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    _scores: list[Floats] = field(default_factory=list)

    def add(self, rows: pa.Table, given: pa.ChunkedArray | None = None) -> None:
        """Counts rows.

        Args:
            rows: columns `uri`, `label` and `score`.
            given: their given labels, None without one; None if no image has one.
        """
        self.labels.update(
            {c["values"]: c["counts"] for c in rows["label"].value_counts().to_pylist()}
        )
        scores = rows["score"].to_numpy().astype(np.float32)
        self._scores.append(scores)
        lowest = np.argsort(scores, kind="stable")[:LEAST_SURE]
        few = rows.take(pa.array(lowest)).to_pylist()
        found = [(row["score"], row["label"], row["uri"]) for row in few]
        self.least_sure = sorted([*self.least_sure, *found])[:LEAST_SURE]
        if given is not None:
            both = pa.table({"given": given, "label": rows["label"]})
            counted = both.filter(pc.is_valid(both["given"])).group_by(["given", "label"])
            for row in counted.aggregate([([], "count_all")]).to_pylist():
                self.pairs[row["given"], row["label"]] += row["count_all"]

    @property
    def images(self) -> int:
        return self.labels.total()

    @property
    def median(self) -> float:
        """Median of the scores, 0..1."""
        return float(np.median(np.concatenate(self._scores)))

    @property
    def unknown(self) -> int:
        """Images that the rule gives no label."""
        return self.labels[UNKNOWN] if UNKNOWN not in self.known else 0

    @property
    def agreement(self) -> Agreement | None:
        """Agreement of predicted and given labels; None if no image has both."""
        pairs = {pair: n for pair, n in self.pairs.items() if pair[0] in self.known}
        strange = self.pairs.total() - sum(pairs.values())
        pairs = {pair: n for pair, n in pairs.items() if pair[1] in self.known}
        images = sum(pairs.values())
        if not images:
            return None
        right = sum(n for (given, label), n in pairs.items() if given == label)
        wrong = [Confusion(*pair, n) for pair, n in pairs.items() if pair[0] != pair[1]]
        wrong.sort(key=lambda each: (-each.images, each.given, each.predicted))
        low, high = wilson_interval(right, images)
        return Agreement(images, right / images, low, high, wrong, strange)
