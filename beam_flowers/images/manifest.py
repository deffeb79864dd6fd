"""Reads manifests and lists of images row by row."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO, NamedTuple

from beam_flowers import files
from beam_flowers.errors import BeamFlowersError, InputError, UnreachableError
from beam_flowers.files.paths import KINDS, scheme
from beam_flowers.images.manifest_limits import MOST_LINE_BYTES
from beam_flowers.images.manifest_rows import (
    Row,
    address_of,
    has_reader,
    is_absolute,
    line_too_long,
    read_rows,
    short_lines,
    short_text,
)
from beam_flowers.records import Image, Reject

_THREADS = 16
_ROWS_A_TASK = 64


def is_manifest(uri: str) -> bool:
    """Tells if a file has the suffix of a manifest."""
    return has_reader(uri)


def read_manifest(uri: str, schemes: Sequence[str] | None = ()) -> Iterator[Image | Reject]:
    """Yields the images that a manifest names, in its order, with the sizes of existing files.

    CSV and TSV (`uri[,label[,split]]` with a header, in which `file_name`, `filename`, `path`,
    `filepath` or `image` may stand for `uri` and `class`, `category` or `target` for `label`; or
    `uri[,label]` without one), Parquet and JSON lines (the same columns), `.txt` and `.list` (one
    path a line, `#` before comments). CSV and TSV are divided by the one of comma, semicolon and
    tab that divides their first ten lines equally. Text is UTF-8. Relative paths start at the
    manifest's folder. Other columns are read by
    `manifest_rows.read_further` alone. One batch of rows is in memory at a
    time.

    Args:
        uri: absolute address; it becomes `Image.root`.
        schemes: schemes that rows may name besides local files and the scheme of the manifest, such
            as `s3`; None for any. The limit keeps authors of lists from using this machine's
            rights.

    Raises:
        HeaderError: the columns are not known, or two hold addresses.
        InputError: a line does not fit the format of the file's suffix. Or no file of one scheme
            can be read, which is raised after the last row.
        UnreachableError: a server does not answer.
    """
    return _located(read_rows(uri), uri, schemes)


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


def _paths(path: str, root: str) -> Iterator[Row]:
    try:
        with open(path, "rb") as source:
            mark = b"\0" if b"\0" in source.peek(1) else b"\n"
            for name in _split(source, mark):
                if name:
                    written = os.fsdecode(name)
                    local = files.is_local(written)
                    address = os.path.abspath(os.path.join(root, written)) if local else written
                    yield Row(short_text("it holds a name", address))
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
        yield from (line.rstrip(b"\r\n") for line in short_lines(source))
        return
    rest, number = b"", 1
    while block := source.read(1 << 16):
        *whole, rest = (rest + block).split(mark)
        yield from whole
        number += len(whole)
        if len(rest) > MOST_LINE_BYTES:
            raise line_too_long(f"name {number}")
    yield rest


def _located(
    rows: Iterator[Row], uri: str, schemes: Sequence[str] | None
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


class _Located(NamedTuple):
    """Holds the record of a row, the scheme of its address if looked up, and why that failed."""

    found: Image | Reject
    tried: str = ""
    reason: str = ""


def _locate_all(rows: list[Row], manifest: str, allowed: frozenset[str] | None) -> list[_Located]:
    return [_locate(row, manifest, allowed) for row in rows]


def _locate(row: Row, manifest: str, allowed: frozenset[str] | None) -> _Located:
    address, written = address_of(row.uri, manifest), files.printable(row.uri)
    label = files.printable(row.label) if row.label else row.label
    image = Image(files.printable(address), manifest, written, label, row.split)
    if not files.is_text(address):
        return _reject(image, "BadName", "the name is not valid UTF-8")
    if not is_absolute(row.uri) and ".." in row.uri.split("/"):
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
