"""Vectors → ranked labels, and the rows of a score table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from beam_flowers.head.bundle import Bundle, model_id
from beam_flowers.head.softmax import Head
from beam_flowers.records import Bottleneck
from beam_flowers.store.schema import add_digests

TOP_K = 5
"""Labels a row by default, as label_image printed."""


class Ranked(NamedTuple):
    """One label and its score, a softmax probability between 0 and 1."""

    label: str
    score: float


class Score(NamedTuple):
    """A picture's labels, best first.

    Attributes:
        uri: of the picture.
        sha256: hex digest of its bytes.
        label: the best label.
        score: its softmax probability.
        top_k: the k best, best first.
        model_id: of the model that gave them.
    """

    uri: str
    sha256: str
    label: str
    score: float
    top_k: tuple[Ranked, ...]
    model_id: str


def rank(
    head: Head, labels: Sequence[str], vectors: npt.NDArray[np.float32], top_k: int = TOP_K
) -> Iterator[tuple[Ranked, ...]]:
    """The `top_k` best labels of each of float32 [N, D] vectors, best first.

    Equal scores are ordered by class, so that a table never depends on chance.
    """
    scores = head.scores(vectors)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    for row, classes in zip(scores, order, strict=True):
        yield tuple(Ranked(labels[c], float(row[c])) for c in classes)


@dataclass(frozen=True)
class ScoreRows:
    """How bottlenecks become rows of a score table.

    Attributes:
        head: the softmax layer.
        labels: in class order.
        model_id: of the bundle they come from.
        top_k: labels a row.
    """

    head: Head
    labels: tuple[str, ...]
    model_id: str
    top_k: int = TOP_K

    identity = ("uri", "bytes", "modified")

    @classmethod
    def of(cls, bundle: Bundle, top_k: int = TOP_K) -> ScoreRows:
        """The rows that a model bundle gives."""
        return cls(bundle.head, bundle.labels, model_id(bundle), top_k)

    @property
    def fingerprint(self) -> str:
        """Of what the rows depend on beside the pictures; hex."""
        return hashlib.sha256(f"{self.model_id} {self.top_k}".encode()).hexdigest()

    def schema(self) -> pa.Schema:
        """Columns of store.md's contract, then the two by which a rerun knows its files.

        Hugging Face `datasets` reads class names from the metadata: they are fixed by the model.
        """
        ranked = pa.struct([("label", pa.string()), ("score", pa.float32())])
        feature = {"label_id": {"names": list(self.labels), "_type": "ClassLabel"}}
        return pa.schema(
            [
                pa.field("uri", pa.string()),
                pa.field("sha256", pa.string()),
                pa.field("label", pa.string()),
                pa.field("score", pa.float32()),
                pa.field("top_k", pa.list_(ranked)),
                pa.field("model_id", pa.string()),
                pa.field("label_id", pa.int64()),
                pa.field("bytes", pa.int64()),
                pa.field("modified", pa.timestamp("us", tz="UTC")),
            ],
            {"huggingface": json.dumps({"info": {"features": feature}}), "model_id": self.model_id},
        )

    def scores(self, bottlenecks: Sequence[Bottleneck]) -> Iterator[Score]:
        """One `Score` a bottleneck, in their order."""
        vectors = np.stack([b.vector for b in bottlenecks])
        ranking = rank(self.head, self.labels, vectors, self.top_k)
        for bottleneck, best in zip(bottlenecks, ranking, strict=True):
            yield Score(bottleneck.image.uri, bottleneck.sha256, *best[0], best, self.model_id)

    def table(self, bottlenecks: Sequence[Bottleneck]) -> pa.Table:
        """The rows of `bottlenecks` (at least one), in their order."""
        class_ids = {label: i for i, label in enumerate(self.labels)}
        rows = [
            {
                **score._asdict(),
                "top_k": [ranked._asdict() for ranked in score.top_k],
                "label_id": class_ids[score.label],
                "bytes": bottleneck.image.bytes,
                "modified": bottleneck.image.modified,
            }
            for bottleneck, score in zip(bottlenecks, self.scores(bottlenecks), strict=True)
        ]
        return pa.Table.from_pylist(rows, self.schema())

    def derived(self, rows: pa.Table) -> pa.Table:
        """`rows`: nothing in a score follows from the file's name."""
        return rows

    def digest(self, rows: pa.Table) -> int:
        """Sum of the rows' digests."""
        names = ("uri", "sha256", "label", "score", "model_id")
        columns = (rows[name].to_pylist() for name in names)
        return add_digests(
            int.from_bytes(hashlib.sha256(repr(row).encode()).digest(), "big")
            for row in zip(*columns, strict=True)
        )
