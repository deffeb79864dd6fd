"""Reads manifests and lists of images row by row."""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import os
import posixpath
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, NamedTuple

from beam_flowers import files
from beam_flowers.errors import BeamFlowersError, InputError, UnreachableError
from beam_flowers.files.paths import KINDS, scheme
from beam_flowers.files.text import unguarded
from beam_flowers.images.labels import parse_split
from beam_flowers.images.manifest_limits import MOST_CHARACTERS, MOST_LINE_BYTES, too_long
from beam_flowers.images.parquet_rows import parquet_rows
from beam_flowers.records import Image, Reject

_URI_COLUMNS = ("uri", "file_name", "path")
_OTHER_COLUMNS = ("label", "split")
_THREADS = 16
_ROWS_A_TASK = 64


class _Row(NamedTuple):
    uri: str
    label: str | None = None
    split: str | None = None


def is_manifest(uri: str) -> bool:
    """Tells if a file has the suffix of a manifest."""
    return _suffix(uri) in _READERS


def read_manifest(uri: str, schemes: Sequence[str] | None = ()) -> Iterator[Image | Reject]:
    """Yields the images that a manifest names, in its order, with the sizes of existing files.

    CSV and TSV (`uri[,label[,split]]` with a header, in which `file_name` or `path` may stand for
    `uri`, or `uri[,label]` without one), Parquet and JSON lines (the same columns), `.txt` and
    `.list` (one path a line, `#` before comments). Text is UTF-8. Relative paths start at the
    manifest's folder. Other columns are ignored. One batch of rows is in memory at a time.

    Args:
        uri: absolute address; it becomes `Image.root`.
        schemes: schemes that rows may name besides local files and the scheme of the manifest, such
            as `s3`; None for any. The limit keeps authors of lists from using this machine's
            rights.

    Raises:
        InputError: a line does not fit the format of the file's suffix. Or no file of one scheme
            can be read, which is raised after the last row.
        UnreachableError: a server does not answer.
    """
    return _located(_READERS[_suffix(uri)](uri), uri, schemes)


def read_paths(path: str, schemes: Sequence[str] | None = ()) -> Iterator[Image | Reject]:
    """Yields the files of a list: one path a line, or each ended by NUL as in `find -print0`.

    Paths are literal and may hold bytes that are not UTF-8. Relative ones start at the working
    folder, which becomes `Image.root`. They have no labels.

    Args:
        path: address of the list.
        schemes: schemes that paths may name; see `read_manifest`.

    Raises:
        InputError: the list cannot be read, or no file of one scheme.
        UnreachableError: a server does not answer.
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
                    address = os.path.abspath(os.path.join(root, written)) if local else written
                    yield _Row(_short("it holds a name", address))
    except InputError as error:
        raise InputError(f"{path!r}, {error}") from error
    except OSError as error:
        raise InputError(f"{path!r} cannot be read: {error.strerror or error}") from error


def _split(source: BinaryIO, mark: bytes) -> Iterator[bytes]:
    """Yields the pieces of a file between marks, without the file in memory.

    Raises:
        InputError: a piece is longer than any line may be.
    """
    if mark == b"\n":
        yield from (line.rstrip(b"\r\n") for line in _short_lines(source))
        return
    rest, number = b"", 1
    while block := source.read(1 << 16):
        *whole, rest = (rest + block).split(mark)
        yield from whole
        number += len(whole)
        if len(rest) > MOST_LINE_BYTES:
            raise _too_long(f"name {number}")
    yield rest


def _short_lines(source: BinaryIO) -> Iterator[bytes]:
    number = 0
    while line := source.readline(MOST_LINE_BYTES + 1):
        number += 1
        if len(line) > MOST_LINE_BYTES:
            raise _too_long(f"line {number}")
        yield line


def _too_long(place: str) -> InputError:
    return InputError(
        f"{place}: longer than {MOST_LINE_BYTES:,} bytes; if this is a list of images, write one "
        "a line, and leave columns with large contents out"
    )


def _located(
    rows: Iterator[_Row], uri: str, schemes: Sequence[str] | None
) -> Iterator[Image | Reject]:
    allowed = None if schemes is None else frozenset(("", scheme(uri), *schemes))
    tried: Counter[str] = Counter()
    failed: dict[str, tuple[str, int]] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        # A request for a size takes an object store long, and this machine hardly any time.
        while batch := list(itertools.islice(rows, _THREADS * _ROWS_A_TASK)):
            tasks = [batch[i : i + _ROWS_A_TASK] for i in range(0, len(batch), _ROWS_A_TASK)]
            locate = partial(_locate_all, manifest=uri, allowed=allowed)
            for located in itertools.chain.from_iterable(pool.map(locate, tasks)):
                if located.tried:
                    tried[located.tried] += 1
                if located.reason:
                    first, count = failed.get(located.tried, (located.reason, 0))
                    failed[located.tried] = first, count + 1
                yield located.found

    for name, (reason, count) in failed.items():
        # A single failure is a reject. If all rows of a scheme fail, the rows are not to blame: a
        # library, a right or a setting is missing.
        if name and count == tried[name]:
            raise InputError(
                f"{uri!r}: no file that it names by {name}:// can be read ({count:,} rows); the "
                f"first: {reason}"
            )


def _suffix(uri: str) -> str:
    return posixpath.splitext(uri)[1].lower()


class _Located(NamedTuple):
    """Holds the record of a row, the scheme of its address if looked up, and why that failed."""

    found: Image | Reject
    tried: str = ""
    reason: str = ""


def _locate_all(rows: list[_Row], manifest: str, allowed: frozenset[str] | None) -> list[_Located]:
    return [_locate(row, manifest, allowed) for row in rows]


def _locate(row: _Row, manifest: str, allowed: frozenset[str] | None) -> _Located:
    address, written = _address(row.uri, manifest), files.printable(row.uri)
    label = files.printable(row.label) if row.label else row.label
    image = Image(files.printable(address), manifest, written, label, row.split)
    if not files.is_text(address):
        return _reject(image, "BadName", "the name is not valid UTF-8")
    if not _is_absolute(row.uri) and ".." in row.uri.split("/"):
        return _reject(image, "UnsafePath", "a relative path that leaves its folder by ..")
    # For a member of an archive the scheme of the archive.
    other = re.sub(rf"^(?:(?:{'|'.join(KINDS)})(?:\+|$))+", "", scheme(address))
    if allowed is not None and other not in allowed:
        return _reject(
            image,
            "SchemeNotAllowed",
            "a list or manifest may name local files and files of its own scheme; "
            f"--manifest-schemes {other} allows others, if you trust who wrote it",
        )
    try:
        status = files.stat(address)
    except (FileNotFoundError, NotADirectoryError):
        return _reject(image, "NotFound", "there is no such file", other)
    except OSError as error:  # The file exists, and reading it will report the error.
        return _Located(image, other, f"{address!r}: {error.strerror or error}")
    except UnreachableError:
        raise
    except BeamFlowersError as error:
        unknown = _reject(image, "UnknownAddress", f"nothing here reads it: {error}", other)
        return unknown._replace(reason=str(error))
    except ValueError as error:  # The address itself is malformed.
        return _reject(image, "UnknownAddress", f"nothing here reads it: {error}")
    if status.kind != "file":
        return _reject(image, "NotARegularFile", f"this is no file ({status.kind})", other)
    return _Located(image._replace(bytes=status.bytes, modified=status.modified), other)


def _reject(image: Image, error_class: str, message: str, tried: str = "") -> _Located:
    return _Located(Reject(image, "find", error_class, message), tried)


def _is_absolute(written: str) -> bool:
    return not files.is_local(written) or written.startswith(("/", "file://"))


def _address(written: str, manifest: str) -> str:
    if _is_absolute(written):
        return files.absolute(written)
    return files.join(files.parent(manifest), posixpath.normpath(written))


def _read_delimited(uri: str, delimiter: str) -> Iterator[_Row]:
    lines = _Counted(_lines(uri))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    is_header = False
    try:
        for cells in reader:
            lines.characters = 0
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
            # Our own tables have this column and guard cells; elsewhere a `'` is part of the name.
            if is_header and "sha256" in header:
                cells = [unguarded(cell) for cell in cells]
            yield _row(dict(zip(header, cells, strict=False)))
    except _PlacedError:
        raise
    except (csv.Error, InputError) as error:
        raise InputError(f"{uri!r}, line {reader.line_num}: {error}") from error


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


def _header(first: list[str]) -> tuple[list[str], bool]:
    """Returns the columns' names, and True if the first row holds them."""
    names = [cell.strip().lower() for cell in first]
    if any(name in _URI_COLUMNS for name in names):
        return names, True
    if "label" in names:
        raise InputError(
            f"no column {' or '.join(_URI_COLUMNS)} among {repr(names)[:300]}; rename one"
        )
    if len(first) > 2:
        raise InputError(
            f"{len(first)} columns without a header; write uri[,label], or a header with 'uri'"
        )
    return ["uri", "label"], False


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
    except RecursionError:
        raise InputError("brackets within brackets, too deep to read") from None
    if not isinstance(cells, dict):
        raise InputError(f"expected an object {{...}}, got {line.strip()[:80]!r}")
    return cells


def _read_parquet(uri: str) -> Iterator[_Row]:
    try:
        with files.open_read(uri) as source:
            rows = parquet_rows(source, _URI_COLUMNS, _OTHER_COLUMNS)
            yield from _numbered_rows(rows, uri)
    except OSError as error:
        raise InputError(f"{uri!r} cannot be read: {error.strerror or error}") from error


def _read_list(uri: str) -> Iterator[_Row]:
    for number, line in enumerate(_lines(uri), start=1):
        path = line.rstrip("\r\n")
        if path.strip() and not path.startswith("#"):
            yield _Row(_short(f"{uri!r}, line {number}: a name", path))


_READERS: dict[str, Callable[[str], Iterator[_Row]]] = {
    ".csv": partial(_read_delimited, delimiter=","),
    ".tsv": partial(_read_delimited, delimiter="\t"),
    ".parquet": _read_parquet,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".txt": _read_list,
    ".list": _read_list,
}


def _numbered_rows(table: Iterable[Mapping[str, Any]], uri: str) -> Iterator[_Row]:
    place = repr(uri)
    try:
        for number, cells in enumerate(table, start=1):
            place = f"{uri!r}, row {number}"
            yield _row(cells)
            place = repr(uri)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _row(cells: Mapping[str, Any]) -> _Row:
    column = next((name for name in _URI_COLUMNS if name in cells), None)
    if column is None:
        raise InputError(f"no column {' or '.join(_URI_COLUMNS)}")
    address = _text(cells, column)
    if not address:
        raise InputError(f"{column} is empty; name an image or delete the row")
    return _Row(address, _text(cells, "label") or None, parse_split(_text(cells, "split")))


def _text(cells: Mapping[str, Any], column: str) -> str:
    value = cells.get(column)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InputError(f"{column} is {reprlib.repr(value)}; write text")
    return _short(column, str(value))


def _short(what: str, text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise InputError(too_long(what, text))
    return text


def _lines(uri: str) -> Iterator[str]:
    number = 0
    try:
        with files.open_read(uri) as source:
            for number, line in enumerate(_short_lines(source), start=1):
                yield line.removeprefix(codecs.BOM_UTF8 if number == 1 else b"").decode()
    except UnicodeDecodeError as error:
        raise _PlacedError(
            f"{uri!r}, line {number}: not UTF-8 ({error.reason}); save it as UTF-8"
        ) from error
    except InputError as error:
        raise _PlacedError(f"{uri!r}, {error}") from error
    except OSError as error:
        raise _PlacedError(f"{uri!r} cannot be read: {error.strerror or error}") from error
