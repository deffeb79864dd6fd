"""Checks that the Parquet file of a part has columns and values as this program writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers.store.schema import IMAGE_FIELDS, REJECT_SCHEMA

_LONGEST_VECTOR = 1 << 20
"""Most numbers of a vector. The longest vectors of known backbones have 100,000."""
_TEXTS = ["label_normalized", "format", "fingerprint", "label_text", "model_id", "rule"]
_TYPES = {
    **{field.name: field.type for field in (*IMAGE_FIELDS, *REJECT_SCHEMA)},
    **dict.fromkeys(_TEXTS, pa.string()),
    **dict.fromkeys(("width", "height", "k"), pa.int32()),
    "score": pa.float32(),
    "label_id": pa.int64(),
}
_RANK = re.compile(r"(label|score)_[0-9]+")
_NEEDED_ROWS = (*(field.name for field in IMAGE_FIELDS), "sha256", "fingerprint", "vector")
_NEEDED_SCORES = ("uri", "sha256", "score", "model_id")
_NEEDED_REJECTS = ("uri", "stage", "error_class", "message")


def odd_schema(schema: pa.Schema, section: str, is_rejects: bool, wanted: Iterable[str]) -> str:
    """Returns the first difference of a part's columns from ours, as text; empty if none differs.

    Args:
        schema: of the part.
        section: folder of its section; empty for a table of scores.
        is_rejects: True for a part of rejects.
        wanted: further columns that it has to have.
    """
    needed = _NEEDED_REJECTS if is_rejects else _NEEDED_ROWS if section else _NEEDED_SCORES
    for name in (*needed, *wanted):
        if schema.get_field_index(name) < 0:
            return f"it has no column {name}, or two"
    for field in schema:
        expected = _TYPES.get(field.name)
        if rank := _RANK.fullmatch(field.name):
            expected = pa.string() if rank[1] == "label" else pa.float32()
        if expected is not None and field.type != expected:
            return f"its column {field.name} is {field.type}, not {expected}"
        if field.name == "vector" and not _is_vector(field.type):
            return f"its vectors are {field.type}"
    return ""


def _is_vector(data_type: pa.DataType) -> bool:
    return (
        pa.types.is_fixed_size_list(data_type)
        and data_type.value_type in (pa.float32(), pa.float16())
        and 1 <= data_type.list_size <= _LONGEST_VECTOR
    )


def odd_values(rows: pa.Table) -> str:
    """Returns a reason why values of a part cannot be ours, as text; empty if they can.

    Raises:
        pa.ArrowInvalid: a text is not UTF-8.
    """
    for field in rows.schema:
        column = rows[field.name]
        column.validate(full=True)
        if field.name in ("uri", "vector") and column.null_count:
            return f"its column {field.name} has empty rows"
        if field.name == "sha256":
            matches = pc.match_substring_regex(column, "^[0-9a-f]{64}$")
            if pc.all(matches, skip_nulls=True, min_count=0).as_py() is False:
                return "its column sha256 has other values than digests"
    return ""
