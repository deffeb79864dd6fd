"""Rows with a schema, as pipelines in YAML pass them on, and our records: one into the other."""

# Beam reads the types of a row's fields at run time: it knows neither strings, so there are no
# `annotations` from the future here, nor `str | None`.
# ruff: noqa: UP045

from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.images.labels import parse_split
from beam_flowers.records import Bottleneck, Image, Reject, Score


class ImageRow(NamedTuple):
    """See `Image`."""

    uri: str
    root: str
    relative_path: str
    label: Optional[str]
    split: Optional[str]
    bytes: Optional[int]
    modified: Optional[int]


class BottleneckRow(NamedTuple):
    """See `Bottleneck`; `fingerprint` is that of the backbone."""

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
    """See `Ranked`."""

    label: str
    score: float


class ScoreRow(NamedTuple):
    """See `Score`."""

    uri: str
    sha256: str
    label: str
    score: float
    top_k: Sequence[RankedRow]
    model_id: str
    labels: Sequence[str]


class CountRow(NamedTuple):
    """A number of rows written."""

    rows: int


class RejectRow(NamedTuple):
    """See `Reject`; `element` and `msg` are what Beam's own error outputs call them."""

    uri: str
    stage: str
    error_class: str
    msg: str
    sha256: Optional[str]
    element: ImageRow


def image_row(image: Image) -> ImageRow:
    """A row of a file."""
    return ImageRow(*image[:7])


def image_of(row: Any) -> Image:
    """The file that a row with at least the field `uri` names.

    Raises:
        InputError: there is no such field, or nothing in it; or a split that is none.
    """
    given = row._asdict()
    fields = {name: _known(given.get(name)) for name in Image._fields}
    if not isinstance(fields["uri"], str) or not fields["uri"]:
        raise InputError(
            f"a row of pictures needs the text field 'uri', here is {sorted(given)}: "
            "rename with MapToFields"
        )
    uri = files.absolute(fields["uri"])
    root = fields["root"] or files.parent(uri)
    path = fields["relative_path"] or files.relative(uri, root)
    label, split = _text(fields["label"]), parse_split(_text(fields["split"]) or "")
    return Image(uri, root, path, label, split, fields["bytes"], fields["modified"])


def bottleneck_row(bottleneck: Bottleneck, fingerprint: str) -> BottleneckRow:
    """A row of a vector."""
    _, sha256, width, height, form, vector = bottleneck
    return BottleneckRow(
        *bottleneck.image[:7], sha256, width, height, form, fingerprint, vector.tolist()
    )


def bottleneck_of(row: Any, fingerprint: str) -> Bottleneck:
    """The vector in a row that `bottleneck_row` made.

    Raises:
        InputError: it is of another backbone than the one of that fingerprint.
    """
    if row.fingerprint != fingerprint:
        raise InputError(
            f"the vector of {row.uri} is of the backbone {row.fingerprint[:8]}, not of "
            f"{fingerprint[:8]}; name the backbone that it was computed with"
        )
    vector = np.array(row.vector, np.float32)
    return Bottleneck(image_of(row), row.sha256, row.width, row.height, row.format, vector)


def score_row(score: Score) -> ScoreRow:
    """A row of labels."""
    ranked = [RankedRow(*one) for one in score.top_k]
    return ScoreRow(*score[:4], ranked, score.model_id, list(score.labels))


def reject_row(reject: Reject) -> RejectRow:
    """A row of an error output."""
    image, stage, error_class, message, sha256 = reject
    return RejectRow(image.uri, stage, error_class, message, sha256, image_row(image))


def _known(value: Any) -> Any:
    """`value`; None for the NaN that tables read by pandas have in its place."""
    return None if value != value else value


def _text(value: Any) -> str | None:
    """A cell's text; None for an empty one.

    A reader of CSV makes numbers of text that looks like some, with a fraction where the column
    has blanks.
    """
    if isinstance(value, float | np.floating) and value.is_integer():
        value = int(value)
    return None if value is None else str(value) or None
