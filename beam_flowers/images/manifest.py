"""Manifests: tables and lists that name pictures, read row by row."""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from beam_flowers import files
from beam_flowers.errors import BeamFlowersError, InputError
from beam_flowers.files.paths import scheme
from beam_flowers.files.text import unguarded
from beam_flowers.images.labels import parse_split
from beam_flowers.records import Image, Reject

_URI_COLUMNS = ("uri", "file_name", "path")
_COLUMNS = (*_URI_COLUMNS, "label", "split")
_THREADS = 16
_ROWS_A_TASK = 64


class _Row(NamedTuple):
    uri: str
    label: str | None = None
    split: str | None = None


def is_manifest(uri: str) -> bool:
    """Whether a file's name says that it names pictures."""
    return _suffix(uri) in _READERS


def read_manifest(uri: str, schemes: Sequence[str] | None = ()) -> Iterator[Image | Reject]:
    """The pictures that a file names, in its order, with the sizes of those that are there.

    CSV and TSV (`uri[,label[,split]]` with a header, in which `file_name` or `path` may stand for
    `uri`, or `uri[,label]` without one), Parquet and JSON lines (the same columns), `.txt` and
    `.list` (one path a line, `#` before comments). Text is UTF-8. Relative paths start at the
    manifest's folder. Other columns are passed over. Nothing is held but the rows of one batch.

    Args:
        uri: absolute; it becomes `Image.root`.
        schemes: those that rows may name besides local files and the scheme of the manifest, such
            as `s3`; None for any. Else whoever writes a list would use this machine's rights.

    Raises:
        InputError: the file cannot be read as what its name says; with the line.
    """
    return _located(_READERS[_suffix(uri)](uri), uri, schemes)


def read_paths(path: str, schemes: Sequence[str] | None = ()) -> Iterator[Image | Reject]:
    """The files that a list names: one path a line, or with a NUL behind each as `find -print0`.

    Paths are taken as they are, bytes that are not UTF-8 as well, relative ones from the working
    folder, which becomes `Image.root`. They have no labels.

    Args:
        path: of the list.
        schemes: see `read_manifest`.

    Raises:
        InputError: the list cannot be read.
    """
    root = files.absolute(".")
    for found in _located(_paths(path, root), files.join(root, path), schemes):
        image = found.image if isinstance(found, Reject) else found
        image = image._replace(root=root, relative_path=files.relative(image.uri, root))
        yield found._replace(image=image) if isinstance(found, Reject) else image


def _paths(path: str, root: str) -> Iterator[_Row]:
    try:
        with open(path, "rb") as source:
            mark = b"\0" if b"\0" in source.peek(1) else b"\n"
            for name in _split(source, mark):
                if name:
                    written = os.fsdecode(name)
                    local = files.is_local(written)
                    yield _Row(os.path.abspath(os.path.join(root, written)) if local else written)
    except OSError as error:
        raise InputError(f"{path!r} cannot be read: {error.strerror or error}") from error


def _split(source: BinaryIO, mark: bytes) -> Iterator[bytes]:
    """The pieces of a file between marks, of any length, without the file in memory."""
    if mark == b"\n":
        yield from (line.rstrip(b"\r\n") for line in source)
        return
    rest = b""
    while block := source.read(1 << 16):
        *whole, rest = (rest + block).split(mark)
        yield from whole
    yield rest


def _located(
    rows: Iterator[_Row], uri: str, schemes: Sequence[str] | None
) -> Iterator[Image | Reject]:
    allowed = None if schemes is None else frozenset(("", scheme(uri), *schemes))
    with ThreadPoolExecutor(_THREADS) as pool:
        # Asking an object store for a size takes long, but little of this machine.
        while batch := list(itertools.islice(rows, _THREADS * _ROWS_A_TASK)):
            tasks = [batch[i : i + _ROWS_A_TASK] for i in range(0, len(batch), _ROWS_A_TASK)]
            locate = partial(_locate_all, manifest=uri, allowed=allowed)
            for found in pool.map(locate, tasks):
                yield from found


def _suffix(uri: str) -> str:
    return posixpath.splitext(uri)[1].lower()


def _locate_all(
    rows: list[_Row], manifest: str, allowed: frozenset[str] | None
) -> list[Image | Reject]:
    return [_locate(row, manifest, allowed) for row in rows]


def _locate(row: _Row, manifest: str, allowed: frozenset[str] | None) -> Image | Reject:
    address, written = _address(row.uri, manifest), files.printable(row.uri)
    label = files.printable(row.label) if row.label else row.label
    image = Image(files.printable(address), manifest, written, label, row.split)
    if not files.is_text(address):
        return Reject(image, "find", "BadName", "the name is not valid UTF-8")
    if not _is_absolute(row.uri) and ".." in row.uri.split("/"):
        return Reject(image, "find", "UnsafePath", "a relative path that leaves its folder by ..")
    # Of a member, the scheme of its container.
    other = re.sub(r"^(?:(?:tar|tfrecord)(?:\+|$))+", "", scheme(address))
    if allowed is not None and other not in allowed:
        return Reject(
            image,
            "find",
            "SchemeNotAllowed",
            "a list or manifest may name local files and files of its own scheme; "
            f"--manifest-schemes {other} allows others, if you trust who wrote it",
        )
    try:
        found = files.stat(address)
    except (FileNotFoundError, NotADirectoryError):
        return Reject(image, "find", "NotFound", "there is no such file")
    except OSError:  # It is there, and reading it will say what is wrong.
        return image
    except (BeamFlowersError, ValueError) as error:
        return Reject(image, "find", "UnknownAddress", f"nothing here reads it: {error}")
    if found.kind != "file":
        return Reject(image, "find", "NotARegularFile", f"this is no file ({found.kind})")
    return image._replace(bytes=found.bytes, modified=found.modified)


def _is_absolute(written: str) -> bool:
    return not files.is_local(written) or written.startswith(("/", "file://"))


def _address(written: str, manifest: str) -> str:
    if _is_absolute(written):
        return files.absolute(written)
    return files.join(files.parent(manifest), posixpath.normpath(written))


def _read_delimited(uri: str, delimiter: str) -> Iterator[_Row]:
    reader = csv.reader(_lines(uri), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    is_header = False
    try:
        for cells in reader:
            if not cells:
                continue
            if header is None:
                header, is_header = _header(cells)
                if is_header:
                    continue
            if len(cells) > len(header):
                raise InputError(
                    f"{len(cells)} columns where {len(header)} were expected; "
                    "put names with a comma between quotes"
                )
            # Tables of ours are known by it; in a list of others' a `'` is part of the name.
            if is_header and "sha256" in header:
                cells = [unguarded(cell) for cell in cells]
            yield _row(dict(zip(header, cells, strict=False)))
    except (csv.Error, InputError) as error:
        raise InputError(f"{uri!r}, line {reader.line_num}: {error}") from error


def _header(first: list[str]) -> tuple[list[str], bool]:
    """The columns' names, and whether the first row holds them."""
    names = [cell.strip().lower() for cell in first]
    if any(name in _URI_COLUMNS for name in names):
        return names, True
    if "label" in names:
        raise InputError(f"no column {' or '.join(_URI_COLUMNS)} among {names!r}; rename one")
    if len(first) > 2:
        raise InputError(
            f"{len(first)} columns without a header; write uri[,label], or a header with 'uri'"
        )
    return ["uri", "label"], False


def _read_csv(uri: str) -> Iterator[_Row]:
    return _read_delimited(uri, ",")


def _read_tsv(uri: str) -> Iterator[_Row]:
    return _read_delimited(uri, "\t")


def _read_json_lines(uri: str) -> Iterator[_Row]:
    for number, line in enumerate(_lines(uri), start=1):
        if line.strip():
            try:
                yield _row(_json_object(line))
            except InputError as error:
                raise InputError(f"{uri!r}, line {number}: {error}") from error


def _json_object(line: str) -> dict[str, Any]:
    try:
        cells = json.loads(line)
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from error
    if not isinstance(cells, dict):
        raise InputError(f"expected an object {{...}}, got {line.strip()[:80]!r}")
    return cells


def _read_parquet(uri: str) -> Iterator[_Row]:
    try:
        with files.open_read(uri) as source, pq.ParquetFile(source) as table:
            columns = [name for name in _COLUMNS if name in table.schema_arrow.names]
            if not set(columns) & set(_URI_COLUMNS):
                raise InputError(
                    f"{uri!r}: no column {' or '.join(_URI_COLUMNS)}; "
                    f"it has {', '.join(table.schema_arrow.names)}"
                )
            batches = table.iter_batches(batch_size=4096, columns=columns)
            cells = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
            yield from _numbered_rows(cells, uri)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{uri!r} cannot be read as Parquet: {error}") from error


def _read_list(uri: str) -> Iterator[_Row]:
    for line in _lines(uri):
        path = line.rstrip("\r\n")
        if path.strip() and not path.startswith("#"):
            yield _Row(path)


_READERS: dict[str, Callable[[str], Iterator[_Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".txt": _read_list,
    ".list": _read_list,
}


def _numbered_rows(table: Iterable[Mapping[str, Any]], uri: str) -> Iterator[_Row]:
    for number, cells in enumerate(table, start=1):
        try:
            yield _row(cells)
        except InputError as error:
            raise InputError(f"{uri!r}, row {number}: {error}") from error


def _row(cells: Mapping[str, Any]) -> _Row:
    column = next((name for name in _URI_COLUMNS if name in cells), None)
    if column is None:
        raise InputError(f"no column {' or '.join(_URI_COLUMNS)}")
    address = _text(cells, column)
    if not address:
        raise InputError(f"{column} is empty; name a picture or delete the row")
    return _Row(address, _text(cells, "label") or None, parse_split(_text(cells, "split")))


def _text(cells: Mapping[str, Any], column: str) -> str:
    value = cells.get(column)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"{column} is {value!r}; write text")
    return str(value)


def _lines(uri: str) -> Iterator[str]:
    try:
        with files.open_read(uri) as source:
            for number, line in enumerate(source, start=1):
                try:
                    yield line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode()
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{uri!r}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8"
                    ) from error
    except OSError as error:
        raise InputError(f"{uri!r} cannot be read: {error.strerror or error}") from error
