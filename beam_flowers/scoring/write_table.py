"""Writes score tables as one file: Parquet, CSV, JSON lines or Arrow, with rejects beside it."""

from __future__ import annotations

import csv
import io
import json
import mimetypes
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from beam_flowers import files
from beam_flowers.errors import OutputError
from beam_flowers.files.text import guarded
from beam_flowers.images.outputs import HEAD
from beam_flowers.store.schema import REJECT_SCHEMA

SUFFIXES = (".parquet", ".csv", ".jsonl", ".arrow", ".feather")
"""Suffixes of the formats. `.arrow` and `.feather` (version 2) are both Arrow's file format."""
_PRIVATE = ("bytes", "modified")
_SCORES, _REJECTS = b"scores", b"rejects"
_OTHERS = (".json", ".tsv", ".txt", ".xlsx", ".arrows", ".db")
_TYPES = mimetypes.MimeTypes()

MARK = b"beam_flowers"
"""Key in the metadata of Parquet and Arrow files. Its value is `scores` or `rejects`."""
_COLUMNS = re.compile(
    r"uri sha256 label score (top_k|label_1 score_1( label_\d+ score_\d+)*) model_id label_id"
    r"( labels)?( rule)?( format)?( given_label( .+)? relative_path)?"
)
"""Of a table of scores, of any version so far. Further columns of a manifest stand before the last
of ours: a table to which a user has added columns belongs to the user."""
_LONGEST_LINE = 4 * 2**20
_LARGEST_FOOTER = 16 * 2**20


def suffix(output: str) -> str | None:
    """Returns the suffix of `output` that names a format, or None for a folder of parts."""
    name = output.rstrip("/").rsplit("/", 1)[-1].lower()
    return next((known for known in SUFFIXES if name.endswith(known)), None)


def require_kind(output: str) -> None:
    """Raises OutputError for the name of a file whose format is not written."""
    name = output.rstrip("/").rsplit("/", 1)[-1].lower()
    ending = re.search(r"\.[^.]+$", name)
    if suffix(name) or ending is None:
        return
    if ending[0] in _OTHERS or any(_TYPES.guess_type("name" + ending[0])):
        raise OutputError(
            f"{output!r}: {ending[0]} is not written; use {', '.join(SUFFIXES)} or a folder name"
        )


def rejects_name(output: str) -> str:
    """Returns the path of the rejects: `labels.csv` has `labels.rejects.csv`."""
    ending = suffix(output) or ""
    return output[: len(output) - len(ending)] + ".rejects" + ending


def write_table(output: str, rows: pa.Table, exact_csv: bool = False) -> None:
    """Writes rows, sorted by uri and model, in the format of the suffix, whole or not at all.

    In CSV, text that a spreadsheet would run as a formula is `guarded`, unless `exact_csv`.
    """
    order = [name for name in ("uri", "model_id") if name in rows.schema.names]
    rows = rows.sort_by([(name, "ascending") for name in order])
    mark = _REJECTS if rows.schema.names == REJECT_SCHEMA.names else _SCORES
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), MARK: mark})
    files.make_folder(files.parent(output))
    encode = (
        _exact_csv if exact_csv and suffix(output) == ".csv" else _ENCODERS[suffix(output) or ""]
    )
    files.write_atomic(output, encode(rows))


def is_score_file(output: str) -> bool:
    """Tells if `write_table` of any version so far wrote a file of scores."""
    return bool(_COLUMNS.fullmatch(" ".join(_columns(output, _SCORES))))


def is_rejects_file(output: str) -> bool:
    """Tells if `write_table` of any version so far wrote a file of rejects."""
    return _columns(output, _REJECTS) == REJECT_SCHEMA.names


def _columns(output: str, mark: bytes) -> list[str]:
    """Reads a file's column names; returns none if it cannot be a table of that kind."""
    ending = suffix(output)
    with files.open_read(output) as file:
        if ending == ".csv":
            return _columns_of_csv(file.read(HEAD))
        if ending == ".jsonl":
            row = json.loads(file.readline(_LONGEST_LINE))
            return list(row) if isinstance(row, dict) else []
        schema = _schema(file, ending == ".parquet")
    metadata = schema.metadata or {}
    # pandas adds a key of its own: then a user has changed the table.
    written = metadata.get(MARK, mark) == mark and b"pandas" not in metadata
    return list(schema.names) if written else []


def _columns_of_csv(head: bytes) -> list[str]:
    """Returns the header's names if all are quoted, as here; spreadsheets do not quote them."""
    line = head.partition(b"\n")[0].decode()
    names = next(csv.reader([line]), [])
    return names if line == ",".join(f'"{name}"' for name in names) else []


def _schema(file: BinaryIO, is_parquet: bool) -> pa.Schema:
    """Reads the schema from a file's footer, whose size is bounded."""
    magic, length = (b"PAR1", slice(-8, -4)) if is_parquet else (b"ARROW1", slice(-10, -6))
    file.seek(-10, io.SEEK_END)
    tail = file.read(10)
    if not tail.endswith(magic) or int.from_bytes(tail[length], "little") > _LARGEST_FOOTER:
        raise ValueError("no table of ours")
    file.seek(0)
    return pq.ParquetFile(file).schema_arrow if is_parquet else pa.ipc.open_file(file).schema


def scores_of(rows: pa.Table) -> pa.Table:
    """Drops the columns of a score table that only a rerun needs."""
    return rows.drop_columns([name for name in _PRIVATE if name in rows.schema.names])


def _parquet(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _arrow(rows: pa.Table) -> bytes:
    # Not compressed, so that a reader can map the file into memory.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def _csv(rows: pa.Table) -> bytes:
    return _exact_csv(rows, guarded)


def _exact_csv(rows: pa.Table, as_cell: Callable[[Any], Any] = lambda value: value) -> bytes:
    # Text is always quoted: a name with a comma, quote or line break stays one field.
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(rows.schema.names)
    for row in _rows(rows):
        writer.writerow([as_cell(_cell(row[name])) for name in rows.schema.names])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


def _json_lines(rows: pa.Table) -> bytes:
    lines = (json.dumps(row, ensure_ascii=False) for row in _rows(rows))
    return "".join(line + "\n" for line in lines).encode()


def _rows(rows: pa.Table) -> list[dict[str, Any]]:
    """Returns rows as JSON values; float32 in its shortest decimal form, times in ISO 8601."""
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
