"""Reads score tables of all formats."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.json
import pyarrow.parquet as pq

from beam_flowers import files
from beam_flowers.errors import InputError, InputFieldError, StoreError
from beam_flowers.files.parquet import cast_within, unpacked_too_far
from beam_flowers.files.text import MOST_SHOWN, unguarded_table
from beam_flowers.files.typed import Form, require_shallow
from beam_flowers.scoring.decision import UNKNOWN
from beam_flowers.scoring.table import LABEL_TEXT
from beam_flowers.scoring.write_table import SUFFIXES, rejects_name, suffix
from beam_flowers.store.commits import Manifest, finish_publishing, latest
from beam_flowers.store.parts import Place, read_part

_COLUMNS = ("uri", "sha256", "score", "model_id")
_REJECT_COLUMNS = ("uri", "error_class", "message")
_TEXTS = re.compile(
    r"uri|sha256|model_id|label(_text|_\d+)?|top_k|rule|format|error_class|message|given_label|relative_path"
)


@dataclass(frozen=True)
class ScoreTable:
    """Rows of a score table.

    Attributes:
        where: path of the table.
        uris: addresses of n images.
        sha256: digests of their contents, hex.
        given: label of each; `unknown` where the rule gives none.
        scores: float64 [n], scores of these labels, 0..1; the best score for `unknown`.
        top_k: labels with scores, best first.
        model_id: id of the model.
        names: all labels of the model if the table has them, else those that occur.
        rejects: uri, error class and message of files without a row.
    """

    where: str
    uris: Sequence[str]
    sha256: Sequence[str]
    given: Sequence[str]
    scores: npt.NDArray[np.float64]
    top_k: Sequence[Sequence[tuple[str, float]]]
    model_id: str
    names: tuple[str, ...]
    rejects: Sequence[dict[str, str]]

    @property
    def margins(self) -> npt.NDArray[np.float64]:
        """Best score minus the second, float64 [n]; the best score if there is no second."""
        best = [[score for _, score in ranked[:2]] + [0.0] * 2 for ranked in self.top_k]
        return np.array([two[0] - two[1] for two in best], dtype=np.float64)


def read_scores(path: str, model: str | None = None) -> ScoreTable:
    """Reads a file of one of `SUFFIXES`, or a folder of parts, and the rejects beside it.

    Args:
        path: path of the table.
        model: beginning of a model's id, for a table of several models.

    Raises:
        InputError: if the table is missing, lacks a column or holds several models.
    """
    where = files.absolute(path)
    rows, rejected = _read_folder(where) if suffix(where) is None else _read_files(where)
    label = LABEL_TEXT if LABEL_TEXT in rows.schema.names else "label"
    if missing := [name for name in (*_COLUMNS, label) if rows.schema.get_field_index(name) < 0]:
        shown = ", ".join(rows.schema.names)[:MOST_SHOWN]
        raise InputError(
            f"{path!r} has the columns {shown}; a table of scores has {', '.join(missing)} too: "
            "beam-flowers score writes one"
        )
    if not len(rows):
        raise InputError(f"the table {path!r} has no rows; its reject table names the reasons")
    # Also a table that a user has worked on: of other types than ours, but not of other contents.
    for name in ("uri", "sha256", "model_id", label):
        rows = _cast(rows, name, pa.string(), path)
    rows = _cast(rows, "score", pa.float64(), path)
    if rejected is not None:
        for name in _REJECT_COLUMNS:
            rejected = _cast(rejected, name, pa.string(), rejects_name(where))
    model_id = _choose_model(path, rows["model_id"].unique().to_pylist(), model)
    rows = rows.filter(pc.equal(rows["model_id"], model_id))
    top_k = _rankings(rows, path)
    ranked = {name for ranking in top_k for name, _ in ranking}
    return ScoreTable(
        where,
        rows["uri"].to_pylist(),
        rows["sha256"].to_pylist(),
        rows[label].to_pylist(),
        np.array(rows["score"].to_pylist(), dtype=np.float64),
        top_k,
        model_id,
        # A model may have a class of that name; else it stands for labels that are not given.
        tuple(n for n in _names(rows.schema) or sorted(ranked) if n != UNKNOWN or n in ranked),
        [] if rejected is None else rejected.select(_REJECT_COLUMNS).to_pylist(),
    )


def _cast(rows: pa.Table, name: str, data_type: pa.DataType, path: str) -> pa.Table:
    """Gives a column the type that it has in our tables.

    Raises:
        InputFieldError: it is not there, or has other values.
    """
    index = rows.schema.get_field_index(name)
    if index < 0:
        raise _wrong(path, name, "expected a column of that name")
    column = rows.column(index)
    try:
        column = cast_within(column, data_type)
    except pa.ArrowException as error:
        raise _wrong(path, name, str(error)) from error
    if column.null_count and name in _COLUMNS:
        raise _wrong(path, name, "expected a value in each row")
    return rows.set_column(index, name, column)


def _wrong(path: str, field: str, reason: str) -> InputFieldError:
    reason = f"{reason[:MOST_SHOWN]}; score the images again"
    return InputFieldError(f"{path!r}: {field}: {reason}", path, field)


def _choose_model(path: str, held: Sequence[str], model: str | None) -> str:
    fitting = sorted(own for own in held if own.startswith(model or ""))
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(own[:12] for own in fitting or sorted(held))
    if not fitting:
        raise InputError(f"{path!r} has no scores of the model {model!r}; it holds {listed}")
    raise InputError(
        f"{path!r} has the scores of several models; choose one by --model-id: {listed}"
    )


def is_score_folder(path: str) -> bool:
    """Tells if a folder holds parts that `score` wrote."""
    return "" in latest(files.absolute(path)).sections


def _read_folder(where: str) -> tuple[pa.Table, pa.Table | None]:
    manifest = latest(where) if files.is_folder(where) else Manifest()
    section = manifest.sections.get("")
    if section is None:
        raise InputError(f"there is no table of scores at {where!r}; beam-flowers score writes one")
    finish_publishing(where, manifest.version)
    place = Place(where, "", section.fingerprint)
    try:
        rows = [read_part(place, part) for part in section.rows]
        rejected = [read_part(place, part) for part in section.rejects]
    except StoreError as error:
        raise InputError(f"the table {where!r} is not whole: {error}") from error
    whole = pa.concat_tables(rows) if rows else pa.table({n: [] for n in (*_COLUMNS, "label")})
    return whole.sort_by("uri"), pa.concat_tables(rejected) if rejected else None


def _read_files(where: str) -> tuple[pa.Table, pa.Table | None]:
    beside = rejects_name(where)
    return _read_file(where), _read_file(beside) if files.exists(beside) else None


def _read_file(where: str) -> pa.Table:
    read = (_read_parquet, _read_csv, _read_json, _read_arrow, _read_arrow)
    try:
        with files.open_read(where) as source:
            table = dict(zip(SUFFIXES, read, strict=True))[suffix(where) or ""](source)
        _ = table.schema.names  # Of those that are no text Python says so only when it is asked.
        return table
    except (pa.ArrowException, OSError, ValueError, csv.Error) as error:
        reason = str(error)[:MOST_SHOWN]
        raise InputError(f"{where!r} cannot be read as a table of scores: {reason}") from error


def _read_parquet(source: BinaryIO) -> pa.Table:
    if reason := unpacked_too_far(source):
        raise ValueError(reason)
    return pq.ParquetFile(source).read()


def _read_arrow(source: BinaryIO) -> pa.Table:
    table = pa.ipc.open_file(pa.BufferReader(source.read())).read_all()
    # Arrow trusts the offsets in the file: a wrong one would end the process (SIGSEGV).
    table.validate(full=True)
    return table


def _read_csv(source: BinaryIO) -> pa.Table:
    # Without given types, pyarrow would turn labels such as 007 into numbers.
    data = source.read()
    header = next(csv.reader([data.partition(b"\n")[0].decode("utf-8", "replace")]), [])
    texts = [name for name in header if _TEXTS.fullmatch(name)]
    table = pa.csv.read_csv(
        pa.BufferReader(data),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(texts, pa.string()), strings_can_be_null=False
        ),
    )
    return unguarded_table(table)


def _read_json(source: BinaryIO) -> pa.Table:
    # pyarrow refuses files without lines, and a reject table without rows is one.
    data = source.read()
    require_shallow(data, InputFieldError, "the table")
    return pa.json.read_json(pa.BufferReader(data)) if data.strip() else pa.table({})


class _Ranked(msgspec.Struct):
    label: str
    score: float


_RANKING = Form(list[_Ranked], InputFieldError, "score the images again")


class _ClassLabel(msgspec.Struct):
    names: list[str]


class _Features(msgspec.Struct):
    label_id: _ClassLabel


class _Info(msgspec.Struct):
    features: _Features


class _HuggingFace(msgspec.Struct):
    """Types of the metadata of which `ScoreRows` makes class names for others."""

    info: _Info


_NAMES = Form(_HuggingFace, InputFieldError, "score the images again")


def _rankings(rows: pa.Table, path: str) -> list[list[tuple[str, float]]]:
    """Returns the ranked labels of each row, from a list, JSON text or columns of their own."""
    if "top_k" in rows.schema.names:
        rows = _cast(rows, "top_k", rows.schema.field("top_k").type, path)
        try:
            values = rows["top_k"].to_pylist()
        except UnicodeDecodeError as error:  # A name within its type is no text.
            raise _wrong(path, "top_k", str(error)) from error
        return [_ranking(value, path, f"top_k of row {n}") for n, value in enumerate(values, 1)]
    ranks = sum(bool(re.fullmatch(r"score_\d+", name)) for name in rows.schema.names)
    for rank in range(1, ranks + 1):
        rows = _cast(rows, f"label_{rank}", pa.string(), path)
        rows = _cast(rows, f"score_{rank}", pa.float64(), path)
    columns = [
        zip(rows[f"label_{rank}"].to_pylist(), rows[f"score_{rank}"].to_pylist(), strict=True)
        for rank in range(1, ranks + 1)
    ]
    # The last columns are empty for a model of fewer labels than another one of the table.
    return [
        [(label, float(score)) for label, score in ranking if label and score is not None]
        for ranking in zip(*columns, strict=True)
    ] or [[] for _ in range(len(rows))]


def _ranking(value: Any, path: str, where: str) -> list[tuple[str, float]]:
    if isinstance(value, str):
        return [(r.label, r.score) for r in _RANKING.read(value.encode(), path, where)]
    try:
        ranked = msgspec.convert(value or [], list[_Ranked])
    except msgspec.ValidationError as error:
        raise _wrong(path, where, str(error)) from error
    return [(r.label, r.score) for r in ranked]


def _names(schema: pa.Schema) -> tuple[str, ...]:
    """Returns the model's labels, from what Hugging Face datasets reads."""
    try:
        found = _NAMES.read((schema.metadata or {}).get(b"huggingface", b""), "")
    except InputFieldError:
        return ()
    return tuple(found.info.features.label_id.names)
