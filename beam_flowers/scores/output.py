"""Score tables as one file: Parquet, CSV, JSON lines or Arrow, with their rejects beside them."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from beam_flowers import files
from beam_flowers.errors import InputError

SUFFIXES = (".parquet", ".csv", ".jsonl", ".arrow", ".feather")
"""`.arrow` and `.feather` (its version 2) are the same: the file format of Arrow IPC."""
_PRIVATE = ("bytes", "modified")


def suffix(output: str) -> str | None:
    """The file kind that `output` names, or None for a folder of parts.

    Raises:
        InputError: for a file kind that is not written.
    """
    name = output.rstrip("/").rsplit("/", 1)[-1].lower()
    for known in SUFFIXES:
        if name.endswith(known):
            return known
    for other in (".json", ".tsv", ".txt", ".xlsx", ".arrows", ".db"):
        if name.endswith(other):
            raise InputError(
                f"{output!r}: {other} is not written; use {', '.join(SUFFIXES)} or a folder name"
            )
    return None


def rejects_name(output: str) -> str:
    """`labels.csv` → `labels.rejects.csv`."""
    kind = suffix(output) or ""
    return output[: len(output) - len(kind)] + ".rejects" + kind


def write_table(output: str, rows: pa.Table) -> None:
    """Writes `rows`, by uri and model, to `output` as its suffix says, whole or not at all."""
    order = [name for name in ("uri", "model_id") if name in rows.schema.names]
    rows = rows.sort_by([(name, "ascending") for name in order])
    files.make_folder(files.parent(output))
    files.write_atomic(output, _ENCODERS[suffix(output) or ""](rows))


def scores_of(rows: pa.Table) -> pa.Table:
    """A score table's rows without the columns that only a rerun needs."""
    return rows.drop_columns([name for name in _PRIVATE if name in rows.schema.names])


def _parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _arrow(rows: pa.Table) -> bytes:
    # Not compressed, so that a reader may map the file into memory as it is.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def _csv(rows: pa.Table) -> bytes:
    # Text is always quoted, so that a name with a comma, quote or line break stays one field.
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(rows.schema.names)
    for row in _rows(rows):
        writer.writerow([_cell(row[name]) for name in rows.schema.names])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


def _json_lines(rows: pa.Table) -> bytes:
    lines = (json.dumps(row, ensure_ascii=False) for row in _rows(rows))
    return "".join(line + "\n" for line in lines).encode()


def _rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON values; float32 in its shortest decimal form, times in ISO 8601."""
    return [{name: _plain(value) for name, value in row.items()} for row in rows.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value.isoformat() if hasattr(value, "isoformat") else value


_ENCODERS = dict(zip(SUFFIXES, (_parquet, _csv, _json_lines, _arrow, _arrow), strict=True))
