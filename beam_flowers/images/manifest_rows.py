"""Reads the rows of manifests: CSV, TSV, Parquet, JSON lines and lists of paths."""

from __future__ import annotations

import codecs
import contextlib
import csv
import itertools
import json
import posixpath
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, BinaryIO, NamedTuple, TypeVar

from beam_flowers import files
from beam_flowers.errors import HeaderError, InputError
from beam_flowers.files.text import unguarded
from beam_flowers.images.formats import EXTENSIONS
from beam_flowers.images.labels import parse_split
from beam_flowers.images.manifest_limits import MOST_CHARACTERS, MOST_LINE_BYTES, too_long
from beam_flowers.images.parquet_rows import ALL, parquet_rows

_URI_COLUMNS = ("uri", "file_name", "filename", "path", "filepath", "image")
_LABEL_COLUMNS = ("label", "class", "category", "target")
_KNOWN = (*_URI_COLUMNS, *_LABEL_COLUMNS, "split")
_DELIMITERS = (",", ";", "\t")
_LINES_COMPARED = 10
_ENDINGS = tuple(f".{ending}" for endings in EXTENSIONS.values() for ending in endings)


T = TypeVar("T")
Make = Callable[[Mapping[str, Any]], T]
"""Makes what is wanted of a row from its cells by column."""


class Row(NamedTuple):
    """Holds a row: the address as it is written, label and split."""

    uri: str
    label: str | None = None
    split: str | None = None


class FurtherCells(NamedTuple):
    """Holds the cells of a row that are neither address, label nor split, as text."""

    uri: str
    cells: dict[str, str]


def has_reader(uri: str) -> bool:
    """Tells if a file has the suffix of a manifest."""
    return _suffix(uri) in _READERS


def read_rows(uri: str) -> Iterator[Row]:
    """Yields the rows of a manifest; errors are those of `read_manifest`."""
    yield from _READERS[_suffix(uri)](uri, _row)


def read_further(uri: str) -> Iterator[FurtherCells]:
    """Yields the further cells of each row of a manifest; errors are those of `read_manifest`."""
    options = {"others": (ALL,)} if _suffix(uri) == ".parquet" else {}
    yield from _READERS[_suffix(uri)](uri, _further, **options)


def _suffix(uri: str) -> str:
    return posixpath.splitext(uri)[1].lower()


def is_absolute(written: str) -> bool:
    """Tells if an address does not depend on the place of its manifest."""
    return not files.is_local(written) or written.startswith(("/", "file://"))


def address_of(written: str, manifest: str) -> str:
    """Returns the absolute address of a row; relative ones start at the manifest's folder."""
    if is_absolute(written):
        return files.absolute(written)
    return files.join(files.parent(manifest), posixpath.normpath(written))


def short_lines(source: BinaryIO) -> Iterator[bytes]:
    """Yields the lines of a file; raises InputError for one longer than any may be."""
    number = 0
    while line := source.readline(MOST_LINE_BYTES + 1):
        number += 1
        if len(line) > MOST_LINE_BYTES:
            raise line_too_long(f"line {number}")
        yield line


def line_too_long(place: str) -> InputError:
    """Returns the error about a line of more than `MOST_LINE_BYTES`."""
    return InputError(
        f"{place}: longer than {MOST_LINE_BYTES:,} bytes; if this is a list of images, write one "
        "a line, and leave columns with large contents out"
    )


def _read_delimited(uri: str, make: Make[T], usual: str) -> Iterator[T]:
    lines = iter(_lines(uri))
    first = list(itertools.islice(lines, _LINES_COMPARED))
    counted = _Counted(itertools.chain(first, lines))
    reader = csv.reader(counted, delimiter=_delimiter(first, usual), strict=True)
    header: list[str] | None = None
    is_header = False
    try:
        for cells in reader:
            counted.characters = 0
            if not cells:
                continue
            if header is None:
                header, is_header = _header(cells, uri)
                if is_header:
                    continue
            if len(cells) > len(header):
                raise InputError(
                    f"{len(cells)} columns where {len(header)} were expected; "
                    "put names with a comma between quotes"
                )
            # Our own tables have this column and guard cells; elsewhere a `'` is part of the name.
            if is_header and "sha256" in header:
                cells = [unguarded(cell) for cell in cells]
            yield make(dict(zip(header, cells, strict=False)))
    except _PlacedError:
        raise
    except HeaderError as error:
        raise HeaderError(f"{uri!r}: {error}") from error
    except (csv.Error, InputError) as error:
        raise InputError(f"{uri!r}, line {reader.line_num}: {error}") from error


def _delimiter(first: Sequence[str], usual: str) -> str:
    """Returns the delimiter that divides the first lines equally, the usual one if several do."""
    for delimiter in (usual, *_DELIMITERS):
        with contextlib.suppress(csv.Error):
            numbers = {len(cells) for cells in csv.reader(first, delimiter=delimiter) if cells}
            if len(numbers) == 1 and numbers != {1}:
                return delimiter
    return usual


class _PlacedError(InputError):
    """Reports an error that already names its line."""


class _Counted:
    """Bounds the length of a CSV row, which may span any number of lines between quotes."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.characters = 0

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.characters += len(line)
            if self.characters > MOST_LINE_BYTES:
                raise InputError(
                    f"a row that is longer than {MOST_LINE_BYTES:,} characters; check its quotes"
                )
            yield line


def _header(first: list[str], uri: str) -> tuple[list[str], bool]:
    """Returns the columns' names, and True if the first row holds them.

    A first row without the name of a column holds names too, unless its first cell is an image.

    Raises:
        HeaderError: no column that may hold addresses is there, or two have one name.
    """
    names = [cell.strip() for cell in first]
    names = [name.lower() if name.lower() in _KNOWN else name for name in names]
    if set(names) & set(_URI_COLUMNS):
        if twice := [name for name, count in Counter(names).items() if name and count > 1]:
            raise HeaderError(f"two columns are called {twice[0]}; rename one")
        return names, True
    if set(names) & set(_LABEL_COLUMNS) or not _names_an_image(first[0], uri):
        raise HeaderError(
            f"no column {_listed(_URI_COLUMNS)}; it has {', '.join(names)[:300]}; rename the one "
            "that names the images"
        )
    if len(first) > 2:
        raise InputError(
            f"{len(first)} columns without a header; write uri[,label], or a header with 'uri'"
        )
    return ["uri", "label"], False


def _names_an_image(cell: str, manifest: str) -> bool:
    if cell.lower().endswith(_ENDINGS) or "://" in cell:
        return True
    try:
        return bool(cell) and files.exists(address_of(cell, manifest))
    except (OSError, ValueError):
        return False


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _read_json_lines(uri: str, make: Make[T]) -> Iterator[T]:
    for number, line in enumerate(_lines(uri), start=1):
        if line.strip():
            try:
                yield make(_json_object(line))
            except InputError as error:
                raise _of_its_class(error)(f"{uri!r}, line {number}: {error}") from error


def _json_object(line: str) -> dict[str, Any]:
    try:
        cells = json.loads(line)
    except ValueError as error:
        raise InputError(f"not JSON: {error}") from error
    except RecursionError:
        raise InputError("brackets within brackets, too deep to read") from None
    if not isinstance(cells, dict):
        raise InputError(f"expected an object {{...}}, got {line.strip()[:80]!r}")
    return cells


def _read_parquet(uri: str, make: Make[T], others: Sequence[str] = ()) -> Iterator[T]:
    try:
        with files.open_read(uri) as source:
            rows = parquet_rows(source, _URI_COLUMNS, (*_LABEL_COLUMNS, "split", *others))
            yield from _numbered_rows(rows, uri, make)
    except OSError as error:
        raise InputError(f"{uri!r} cannot be read: {error.strerror or error}") from error


def _read_list(uri: str, make: Make[T]) -> Iterator[T]:
    for number, line in enumerate(_lines(uri), start=1):
        path = line.rstrip("\r\n")
        if path.strip() and not path.startswith("#"):
            yield make({"uri": short_text(f"{uri!r}, line {number}: a name", path)})


_READERS: dict[str, Callable[..., Iterator[Any]]] = {
    ".csv": partial(_read_delimited, usual=","),
    ".tsv": partial(_read_delimited, usual="\t"),
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".txt": _read_list,
    ".list": _read_list,
}


def _numbered_rows(table: Iterable[Mapping[str, Any]], uri: str, make: Make[T]) -> Iterator[T]:
    place = repr(uri)
    try:
        for number, cells in enumerate(table, start=1):
            place = f"{uri!r}, row {number}"
            yield make(cells)
            place = repr(uri)
    except InputError as error:
        raise _of_its_class(error)(f"{place}: {error}") from error


def _of_its_class(error: InputError) -> type[InputError]:
    return HeaderError if isinstance(error, HeaderError) else InputError


def _row(cells: Mapping[str, Any]) -> Row:
    column = _column_among(_URI_COLUMNS, cells)
    if column is None:
        has = ", ".join(cells)
        raise HeaderError(f"no column {_listed(_URI_COLUMNS)}; it has {has[:300]}")
    address = _text(cells, column)
    if not address:
        raise InputError(f"{column} is empty; name an image or delete the row")
    named = "label" if "label" in cells else _column_among(_LABEL_COLUMNS, cells)
    label = _text(cells, named) if named else ""
    return Row(address, label or None, parse_split(_text(cells, "split")))


def _further(cells: Mapping[str, Any]) -> FurtherCells:
    row = _row(cells)
    address = _column_among(_URI_COLUMNS, cells)
    label = "label" if "label" in cells else _column_among(_LABEL_COLUMNS, cells)
    rest = {name: value for name, value in cells.items() if name not in (address, label, "split")}
    return FurtherCells(row.uri, {name: _plain(value) for name, value in rest.items() if name})


def _plain(value: Any) -> str:
    """Returns text as it is, nothing as empty text, and other values as JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False)


def _column_among(names: Sequence[str], cells: Mapping[str, Any]) -> str | None:
    """Returns the column that is there of several.

    Raises:
        HeaderError: two of them are.
    """
    there = [name for name in names if name in cells]
    if len(there) > 1:
        raise HeaderError(f"the columns {there[0]} and {there[1]} say the same; rename one")
    return there[0] if there else None


def _text(cells: Mapping[str, Any], column: str) -> str:
    value = cells.get(column)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"{column} is {reprlib.repr(value)}; write text")
    return short_text(column, str(value))


def short_text(what: str, text: str) -> str:
    """Returns a text; raises InputError if it is longer than any name."""
    if len(text) > MOST_CHARACTERS:
        raise InputError(too_long(what, text))
    return text


def _lines(uri: str) -> Iterator[str]:
    number = 0
    try:
        with files.open_read(uri) as source:
            for number, line in enumerate(short_lines(source), start=1):
                yield line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode()
    except UnicodeDecodeError as error:
        raise _PlacedError(
            f"{uri!r}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8"
        ) from error
    except InputError as error:
        raise _PlacedError(f"{uri!r}, {error}") from error
    except OSError as error:
        raise _PlacedError(f"{uri!r} cannot be read: {error.strerror or error}") from error
