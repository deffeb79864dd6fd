"""Turns our records into rows with a schema, which Beam YAML passes on, and back."""

# Beam reads the types of a row's fields at run time: it knows neither strings, so there are no
# `annotations` from the future here, nor `str | None`.
# ruff: noqa: UP045

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.images.labels import parse_split
from beam_flowers.records import Embedding, Image, Reject, Score


class ImageRow(NamedTuple):
    """Holds an `Image` with a schema."""

    uri: str
    root: str
    relative_path: str
    label: Optional[str]
    split: Optional[str]
    bytes: Optional[int]
    modified: Optional[int]


class EmbeddingRow(NamedTuple):
    """Holds an `Embedding` with a schema; `fingerprint` is that of the backbone."""

    uri: str
    root: str
    relative_path: str
    label: Optional[str]
    split: Optional[str]
    bytes: Optional[int]
    modified: Optional[int]
    sha256: str
    width: int
    height: int
    format: str
    fingerprint: str
    vector: Sequence[np.float32]


class RankedRow(NamedTuple):
    """Holds a `Ranked` with a schema."""

    label: str
    score: float


class ScoreRow(NamedTuple):
    """Holds a `Score` with a schema."""

    uri: str
    sha256: str
    label: str
    score: float
    top_k: Sequence[RankedRow]
    model_id: str
    labels: Sequence[str]


class CountRow(NamedTuple):
    """Holds the number of rows written."""

    rows: int


class RejectRow(NamedTuple):
    """Holds a `Reject` with a schema; `element` and `msg` are the names in Beam's error outputs."""

    uri: str
    stage: str
    error_class: str
    msg: str
    sha256: Optional[str]
    element: ImageRow


def image_row(image: Image) -> ImageRow:
    """Returns the row of a file."""
    return ImageRow(*image[:7])


def image_of(row: Any) -> Image:
    """Returns the file that a row with at least the field `uri` names.

    Raises:
        InputError: there is no such field, or nothing in it; or a split that is none.
    """
    given = row._asdict()
    fields = {name: _known(given.get(name)) for name in Image._fields}
    if not isinstance(fields["uri"], str) or not fields["uri"]:
        raise InputError(
            f"a row of images needs the text field 'uri', here is {sorted(given)}: "
            "rename with MapToFields"
        )
    uri = files.absolute(fields["uri"])
    root = fields["root"] or files.parent(uri)
    path = fields["relative_path"] or files.relative(uri, root)
    label, split = _text(fields["label"]), parse_split(_text(fields["split"]) or "")
    return Image(uri, root, path, label, split, fields["bytes"], fields["modified"])


def embedding_row(embedding: Embedding, fingerprint: str) -> EmbeddingRow:
    """Returns the row of an embedding."""
    _, sha256, width, height, form, vector = embedding
    return EmbeddingRow(
        *embedding.image[:7], sha256, width, height, form, fingerprint, vector.tolist()
    )


def embedding_of(row: Any, fingerprint: str) -> Embedding:
    """Returns the embedding in a row that `embedding_row` made.

    Raises:
        InputError: it is of another backbone than the one of that fingerprint.
    """
    if row.fingerprint != fingerprint:
        raise InputError(
            f"the vector of {row.uri} is of the backbone {row.fingerprint[:8]}, not of "
            f"{fingerprint[:8]}; name the backbone that it was computed with"
        )
    vector = np.array(row.vector, np.float32)
    return Embedding(image_of(row), row.sha256, row.width, row.height, row.format, vector)


def score_row(score: Score) -> ScoreRow:
    """Returns the row of labels."""
    ranked = [RankedRow(*one) for one in score.top_k]
    return ScoreRow(*score[:4], ranked, score.model_id, list(score.labels))


def reject_row(reject: Reject) -> RejectRow:
    """Returns the row of an error output."""
    image, stage, error_class, message, sha256 = reject
    return RejectRow(image.uri, stage, error_class, message, sha256, image_row(image))


def _known(value: Any) -> Any:
    """Returns `value`, or None for the NaN that pandas has in its place."""
    return None if value != value else value


def _text(value: Any) -> str | None:
    """Returns a cell's text, or None for an empty one.

    A reader of CSV makes numbers of text that looks like some, with a fraction where the column
    has blanks.
    """
    if isinstance(value, float | np.floating) and value.is_integer():
        value = int(value)
    return None if value is None else str(value) or None
