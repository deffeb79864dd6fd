"""Makes the rows of a score table from ranked labels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers.errors import InputError
from beam_flowers.head.softmax import Floats, Head
from beam_flowers.records import Embedding, Score
from beam_flowers.scoring.columns import (
    RANKED,
    best_column,
    given_column,
    label_column,
    ranked_column,
)
from beam_flowers.scoring.decision import UNKNOWN, AcceptanceRule
from beam_flowers.scoring.folders import partition_folder
from beam_flowers.scoring.ranking import TOP_K, Labeller, Models, Ranking, make_labellers
from beam_flowers.store.schema import add_digests, images_table, rules_record, with_etags
from beam_flowers.store.work_units import Filed

LABEL_TEXT = "label_text"
"""Name of the label's column in partitioned tables. Readers take the column `label` from the names
of folders and turn `007` into a number: this column keeps the text."""


@dataclass(frozen=True)
class ScoreLayout:
    """Layout of a score table.

    Attributes:
        top_k: number of labels a row.
        separate_columns: True for `label_1, score_1, label_2, ...` in place of the list `top_k`.
        partition_by_label: a folder `label=<label>` for each label, as Hive has it.
        formats: a column `format`, which says of an image that was cut how much is missing; see
            `DecodedImage.format`.
    """

    top_k: int = TOP_K
    separate_columns: bool = False
    partition_by_label: bool = False
    formats: bool = False

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InputError(f"top-k must be 1 or more, not {self.top_k!r}")


@dataclass(frozen=True)
class ScoreRows:
    """Makes rows of a score table from embeddings: one for each model.

    Attributes:
        models: labellers in the order of their ids, or a file that holds them.
        layout: layout of the table.
    """

    models: tuple[Labeller, ...] | Filed
    layout: ScoreLayout

    identity = ("uri", "bytes", "modified")

    @classmethod
    def of(
        cls, models: Models, rule: AcceptanceRule | None = None, layout: ScoreLayout | None = None
    ) -> ScoreRows:
        """Makes the rows of models under one rule.

        Raises:
            InputError: if the models cannot be put into one table laid out so.
            ModelError: if the models do not fit together or lack what the rule needs.
        """
        layout = layout or ScoreLayout()
        row_kind = cls(make_labellers(models, rule), layout)
        if layout.partition_by_label:
            if row_kind.rows_each > 1:
                raise InputError(
                    "a table by label takes one model, as each may give an image another label;"
                    " write one table a model"
                )
            for name in row_kind.class_names:
                partition_folder(name)
        return row_kind

    def filed(self, uri: str) -> ScoreRows:
        """Returns a copy for workers, which read the models from a file."""
        return replace(self, models=Filed.write(uri, self.labellers))

    def unweighted(self) -> ScoreRows:
        """Returns a copy without the weights, which may be large, for stored scores."""
        nothing = Head(np.empty((0, 0), np.float32), np.empty(0, np.float32))
        return replace(self, models=tuple(replace(own, head=nothing) for own in self.labellers))

    @property
    def labellers(self) -> tuple[Labeller, ...]:
        """Models with their thresholds."""
        found: tuple[Labeller, ...]
        found = self.models.read() if isinstance(self.models, Filed) else self.models
        return found

    @property
    def rows_each(self) -> int:
        """Number of rows of one image."""
        return len(self.labellers)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the numbers in `label_id`: the models' labels, then maybe `unknown`."""
        names = [label for labeller in self.labellers for label in labeller.labels]
        if any(labeller.thresholds.may_be_unknown for labeller in self.labellers):
            names.append(UNKNOWN)
        return tuple(dict.fromkeys(names))

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of all that the rows depend on, except the images."""
        texts = [*(own.model_id for own in self.labellers), str(self.layout.top_k)]
        for labeller in self.labellers:
            asked = labeller.thresholds
            if asked.may_be_unknown:
                texts.append(repr((asked.by_class, asked.min_margin, asked.rule)))
        chosen = ("separate_columns", "partition_by_label", "formats")
        texts += [name for name in chosen if getattr(self.layout, name)]
        return hashlib.sha256(" ".join(texts).encode()).hexdigest()

    def about(self) -> dict[str, Any]:
        """Describes the models and rules of the table, JSON."""
        models = [
            {"model_id": own.model_id, "rule": own.thresholds.rule, "thresholds": _thresholds(own)}
            for own in self.labellers
        ]
        return {"model_id": self._model_ids, "top_k": self.layout.top_k, "models": models}

    @property
    def _model_ids(self) -> str:
        return ",".join(labeller.model_id for labeller in self.labellers)

    @property
    def _label_column(self) -> str:
        return LABEL_TEXT if self.layout.partition_by_label else "label"

    @property
    def _ranks(self) -> range:
        most = max(len(labeller.labels) for labeller in self.labellers)
        return range(1, min(self.layout.top_k, most) + 1)

    def schema(self) -> pa.Schema:
        """Columns of the contract, then those of the case, then the two a rerun knows its files by.

        `labels` is there with a multi-label model, `rule` where the user gave one, `format` where
        images that were cut are taken. Hugging Face `datasets` reads class names from the
        metadata: they are fixed by the models.
        """
        fields = [
            pa.field("uri", pa.string()),
            pa.field("sha256", pa.string()),
            pa.field(self._label_column, pa.string()),
            pa.field("score", pa.float32()),
            *self._ranking_fields(),
            pa.field("model_id", pa.string()),
            pa.field("label_id", pa.int64()),
        ]
        if any(labeller.thresholds.multi_label for labeller in self.labellers):
            fields.append(pa.field("labels", pa.list_(pa.string())))
        if any(labeller.thresholds.rule for labeller in self.labellers):
            fields.append(pa.field("rule", pa.string()))
        if self.layout.formats:
            fields.append(pa.field("format", pa.string()))
        own = [pa.field("bytes", pa.int64()), pa.field("modified", pa.timestamp("us", tz="UTC"))]
        return pa.schema([*fields, *own], self._metadata())

    @property
    def image_columns(self) -> tuple[str, ...]:
        """The columns of stored images that go into a row."""
        return ("uri", "sha256", "bytes", "modified", *["format"] * self.layout.formats)

    def _ranking_fields(self) -> Iterator[pa.Field]:
        if not self.layout.separate_columns:
            yield pa.field("top_k", pa.list_(RANKED))
            return
        for rank in self._ranks:
            yield pa.field(f"label_{rank}", pa.string())
            yield pa.field(f"score_{rank}", pa.float32())

    def _metadata(self) -> dict[str, str]:
        feature = {"label_id": {"names": list(self.class_names), "_type": "ClassLabel"}}
        return {
            "huggingface": json.dumps({"info": {"features": feature}}),
            "model_id": self._model_ids,
            **rules_record(),
        }

    def scores(self, embeddings: Sequence[Embedding]) -> Iterator[Score]:
        """Yields a `Score` of each model for each embedding (at least one), in their order."""
        top_k = self.layout.top_k
        columns = [labeller.scores(embeddings, top_k) for labeller in self.labellers]
        for scores in zip(*columns, strict=True):
            yield from scores

    def table(self, embeddings: Sequence[Embedding]) -> pa.Table:
        """Returns the rows of `embeddings` (at least one), in their order."""
        vectors = np.stack([b.vector for b in embeddings])
        images = images_table([b.image for b in embeddings], [b.sha256 for b in embeddings])
        images = images.append_column("format", pa.array([b.format for b in embeddings]))
        etags = {b.image.uri: b.image.etag for b in embeddings}
        return with_etags(self.stored(images, vectors), etags)

    def scored(self, scores: Sequence[Score]) -> pa.Table:
        """Makes the rows of scores (at least one); those of one file are in the models' order.

        Raises:
            InputError: if a file lacks the score of a model, or a score does not follow from these
                models, this rule and this number of labels.
        """
        labellers = {labeller.model_id: labeller for labeller in self.labellers}
        for score in scores:
            self._require_ours(score, labellers)
        scores = _by_file(scores, list(labellers))
        labels = pa.array([score.label for score in scores], pa.string())
        columns: dict[str, Any] = {
            "uri": [score.uri for score in scores],
            "sha256": [score.sha256 for score in scores],
            "label": labels,
            "score": [score.score for score in scores],
            "top_k": [
                [ranked._asdict() for ranked in score.top_k[: self.layout.top_k]]
                for score in scores
            ],
            "model_id": [score.model_id for score in scores],
            "label_id": pc.index_in(labels, pa.array(self.class_names)).to_pylist(),
            "labels": [list(score.labels) for score in scores],
            "rule": [labellers[score.model_id].thresholds.rule for score in scores],
            "format": [score.format for score in scores],
            "bytes": [score.bytes for score in scores],
            "modified": [score.modified for score in scores],
        }
        schema = self.schema()
        return pa.table([pa.array(columns[f.name], f.type) for f in schema], schema)

    def _require_ours(self, score: Score, labellers: Mapping[str, Labeller]) -> None:
        own = labellers.get(score.model_id)
        if own is None:
            raise InputError(
                f"a score of {score.uri} is by the model {score.model_id}, the table is for "
                f"{', '.join(labellers)}: give the models that the scores are by"
            )
        if len(score.top_k) < min(self.layout.top_k, len(own.labels)):
            raise InputError(
                f"a score of {score.uri} has {len(score.top_k)} labels, the table has "
                f"{self.layout.top_k}: give the top_k that the scores were made with"
            )
        if not _follows(score, own):
            asked = own.thresholds.rule or "no rule"
            raise InputError(
                f"the label {score.label!r} of {score.uri} does not follow from the table's rule "
                f"({asked}): give the rule that the scores were made with"
            )

    def stored(self, images: pa.Table, vectors: Floats) -> pa.Table:
        """Returns the rows of stored images, in their order; those of one image stand together.

        Args:
            images: `image_columns`, N rows; others are ignored.
            vectors: float32 [N, D].
        """
        columns = {name: images[name] for name in self.image_columns}
        tables = [self._labelled(columns, own, own.rank(vectors)) for own in self.labellers]
        rows = np.arange(len(tables) * len(vectors)).reshape(len(tables), -1).T.ravel()
        return pa.concat_tables(tables).take(rows) if len(tables) > 1 else tables[0]

    def _labelled(self, columns: dict[str, Any], labeller: Labeller, ranking: Ranking) -> pa.Table:
        names = best_column(labeller, ranking)
        schema, n = self.schema(), len(ranking.classes)
        columns = {
            **columns,
            "score": ranking.scores[np.arange(n), ranking.first],
            **self._ranking(labeller, ranking),
            self._label_column: names,
            "label_id": pc.index_in(names, pa.array(self.class_names)),
            "model_id": pa.repeat(labeller.model_id, n),
            "labels": given_column(labeller, ranking),
            "rule": pa.repeat(labeller.thresholds.rule, n),
        }
        return pa.table([columns[name] for name in schema.names], schema.names).cast(schema)

    def _ranking(self, labeller: Labeller, ranking: Ranking) -> dict[str, Any]:
        top_k = self.layout.top_k
        classes, scores = ranking.classes[:, :top_k], ranking.scores[:, :top_k]
        if not self.layout.separate_columns:
            return {"top_k": ranked_column(labeller, classes, scores)}
        absent = pa.nulls(len(classes))
        columns = {f"{name}_{rank}": absent for rank in self._ranks for name in RANKED.names}
        for place in range(classes.shape[1]):
            columns[f"label_{place + 1}"] = label_column(labeller, classes[:, place])
            columns[f"score_{place + 1}"] = scores[:, place]
        return columns

    def derived(self, rows: pa.Table) -> pa.Table:
        """Returns the rows unchanged: no score depends on the file's name."""
        return rows

    def partitions(self, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """Yields the rows by the folder of their label; one folder if not partitioned."""
        if not self.layout.partition_by_label:
            yield "", rows
            return
        for label in sorted(pc.unique(rows[LABEL_TEXT]).to_pylist()):
            yield partition_folder(label), rows.filter(pc.equal(rows[LABEL_TEXT], label))

    def digest(self, rows: pa.Table) -> int:
        """Returns the sum of the rows' digests."""
        names = ("uri", "sha256", self._label_column, "score", "model_id")
        columns = (rows[name].to_pylist() for name in names)
        return add_digests(
            int.from_bytes(hashlib.sha256(repr(row).encode()).digest(), "big")
            for row in zip(*columns, strict=True)
        )


def _thresholds(labeller: Labeller) -> dict[str, float] | None:
    """Returns a multi-label model's thresholds by label; those of others follow from the rule."""
    if not labeller.thresholds.multi_label:
        return None
    return dict(zip(labeller.labels, labeller.thresholds.by_class, strict=True))


def _follows(score: Score, labeller: Labeller) -> bool:
    """Tells if a score's labels agree with the model's rule; top-k may hide the second score."""
    asked, names = labeller.thresholds, labeller.labels
    thresholds = dict(zip(names, np.array(asked.by_class, np.float32), strict=True))
    if any(ranked.label not in thresholds for ranked in score.top_k):
        return False
    # In float32, as `Thresholds.given` compares.
    passed = {r.label: np.float32(r.score) >= thresholds[r.label] for r in score.top_k}
    if asked.multi_label:
        held = {name for name in score.labels if name in passed}
        first = score.labels[0] if score.labels else UNKNOWN
        return score.label == first and held == {name for name, is_so in passed.items() if is_so}
    best = score.top_k[0]
    is_given, hides_margin = bool(passed[best.label]), False
    if asked.min_margin and len(names) > 1:
        hides_margin = len(score.top_k) < 2
        if not hides_margin:
            margin = np.float32(best.score) - np.float32(score.top_k[1].score)
            is_given = is_given and bool(margin >= np.float32(asked.min_margin))
    if is_given and hides_margin:
        return score.label in (best.label, UNKNOWN)
    return score.label == (best.label if is_given else UNKNOWN)


def _by_file(scores: Sequence[Score], models: Sequence[str]) -> list[Score]:
    """Sorts scores by file and its state, then by model.

    Raises:
        InputError: if a file has not one score of each model.
    """
    order = {model: number for number, model in enumerate(models)}
    first = {score.uri: number for number, score in reversed(list(enumerate(scores)))}
    again: Counter[tuple[Any, ...]] = Counter()
    keyed = []
    for score in scores:
        state = (first[score.uri], score.modified or 0, score.sha256)
        # The same state may come twice, from two readings of one file.
        again[(*state, score.model_id)] += 1
        turn = again[(*state, score.model_id)]
        keyed.append(((*state, turn), order[score.model_id], score))
    keyed.sort(key=lambda entry: entry[:2])
    for _, group in groupby(keyed, key=lambda entry: entry[0]):
        held = [score for _, _, score in group]
        if len(held) != len(models):
            raise InputError(
                f"{held[0].uri} has scores of {len(held)} of {len(models)} models, and a table has "
                "a row of each: give all scores of an image"
            )
    return [score for _, _, score in keyed]
