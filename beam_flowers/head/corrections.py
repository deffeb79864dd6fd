"""Reads corrected labels of stored images from a manifest, and applies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from beam_flowers import files
from beam_flowers.errors import InputError, InputFieldError, TrainingError
from beam_flowers.files.parquet import cast_within, unpacked_too_far
from beam_flowers.files.text import MOST_SHOWN, unguarded_table
from beam_flowers.files.typed import require_shallow
from beam_flowers.head.examples import Examples
from beam_flowers.head.store_examples import StoredExamples

_KEYS = ("sha256", "uri")
_COLUMNS = {name: pa.string() for name in (*_KEYS, "label")}


@dataclass(frozen=True)
class Corrections:
    """Corrected labels of stored images.

    Attributes:
        manifest: path of the manifest.
        column: `sha256` or `uri`, the column that names the images.
        labels: label of each named image; None takes the image out of the training.
    """

    manifest: str
    column: str
    labels: Mapping[str, str | None]


def read_corrections(manifest: str) -> Corrections:
    """Reads a table with the columns `label` and `sha256` or `uri`; other columns are ignored.

    Formats are `.csv` and `.tsv` with a header, `.parquet` and `.jsonl`. Relative uris start at
    the manifest's folder. In `.csv` and `.tsv` a `'` before `=`, `+`, `-`, `@` is removed, which
    our own tables put there. `sha256` takes precedence over `uri`. An empty label takes an image
    out of the training.

    Raises:
        InputError: if it cannot be read.
        TrainingError: if it gives one image two labels.
    """
    where = files.absolute(manifest)
    table = _read_table(where)
    column = next((name for name in _KEYS if name in table.column_names), None)
    if column is None or "label" not in table.column_names:
        raise InputError(
            f"{manifest!r} has the columns {', '.join(table.column_names)[:MOST_SHOWN]}; "
            f"corrections need a column label and {' or '.join(_KEYS)}"
        )
    labels: dict[str, str | None] = {}
    try:
        texts = [cast_within(table[name], pa.string()).to_pylist() for name in (column, "label")]
    except (pa.ArrowException, KeyError) as error:
        raise InputFieldError(
            f"{manifest!r}: {column} and label must be one column of text each: "
            f"{str(error)[:MOST_SHOWN]}",
            manifest,
            column,
        ) from error
    rows = zip(*texts, strict=True)
    for number, (written, label) in enumerate(rows, start=1):
        if not written:
            raise InputError(f"{manifest!r}, row {number}: {column} is empty; name an image")
        key = written.lower() if column == "sha256" else _address(written, where)
        if labels.setdefault(key, label or None) != (label or None):
            raise TrainingError(
                f"{manifest!r}, row {number} gives {written[:MOST_SHOWN]!r} the label"
                f" {str(label)[:MOST_SHOWN]!r}, an earlier row {str(labels[key])[:MOST_SHOWN]!r};"
                " leave one of them"
            )
    return Corrections(manifest, column, labels)


def correct_labels(stored: StoredExamples, corrections: Corrections) -> StoredExamples:
    """Returns the rows with corrected labels, and the hash of the corrected dataset.

    Raises:
        TrainingError: if a named image is not among the rows.
    """
    return replace(
        stored,
        examples=_apply(stored.examples, corrections),
        dataset_hash=_corrected_hash(stored.dataset_hash, corrections),
    )


def _apply(examples: Examples, corrections: Corrections) -> Examples:
    """Returns the examples with corrected labels; by sha256, all copies change."""
    keys = examples.sha256 if corrections.column == "sha256" else examples.uris
    unknown = sorted(set(corrections.labels) - set(keys))
    if unknown:
        images = f"{len(unknown):,} image{'s' * (len(unknown) > 1)}"
        raise TrainingError(
            f"{corrections.manifest!r} names {images} by {corrections.column} that the store"
            f" does not hold, such as {unknown[0]!r} with the label"
            f" {corrections.labels[unknown[0]]!r}; embed them first or take these rows out"
        )
    pairs = zip(keys, examples.labels, strict=True)
    labels = [corrections.labels.get(key, label) for key, label in pairs]
    return replace(examples, labels=labels)


def _corrected_hash(dataset_hash: str, corrections: Corrections) -> str:
    """Returns the hash of a corrected dataset: hex sha256 of its own hash and the corrections."""
    text = json.dumps([dataset_hash, corrections.column, sorted(corrections.labels.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def _address(written: str, manifest: str) -> str:
    if not files.is_local(written) or written.startswith(("/", "file://")):
        return files.absolute(written)
    return files.absolute(files.join(files.parent(manifest), written))


def _read_table(manifest: str) -> pa.Table:
    suffix = manifest.rpartition(".")[2].lower()
    if suffix not in ("csv", "tsv", "parquet", "jsonl"):
        raise InputError(f"corrections are .csv, .tsv, .parquet or .jsonl, not {manifest!r}")
    try:
        with files.open_read(manifest) as source:
            table = _read_as(suffix, source, manifest)
        _ = table.schema.names  # Of those that are no text Python says so only when it is asked.
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(getattr(error, "strerror", None) or error)[:MOST_SHOWN]
        raise InputError(f"{manifest!r} cannot be read as .{suffix}: {reason}") from error


def _read_as(suffix: str, source: BinaryIO, manifest: str) -> pa.Table:
    if suffix == "parquet":
        if reason := unpacked_too_far(source):
            raise pa.ArrowInvalid(reason)
        return pa.parquet.ParquetFile(source).read()
    if suffix == "jsonl":
        schema = pa.schema(_COLUMNS)
        options = pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        data = source.read()
        require_shallow(data, InputFieldError, manifest)
        table = pa.json.read_json(pa.BufferReader(data), parse_options=options)
        # A column of the schema that no line has is there, and empty.
        return table.select([n for n in table.column_names if table[n].null_count < len(table)])
    table = pa.csv.read_csv(
        source,
        parse_options=pa.csv.ParseOptions(
            delimiter="\t" if suffix == "tsv" else ",", newlines_in_values=True
        ),
        convert_options=pa.csv.ConvertOptions(column_types=_COLUMNS, strings_can_be_null=False),
    )
    return unguarded_table(table)
