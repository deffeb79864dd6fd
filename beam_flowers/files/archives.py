"""Reads members of tar, zip and TFRecord files at their offsets; import `files` instead.

`tar:///data/x.tar!/rose/1.jpg` is a member of a local tar, `tfrecord:///data/x.tfrecord!/7` the
image in the eighth record of a TFRecord file, and `zip+s3://bucket/x.zip!/rose/1.jpg` a member of a
zip in an object store. A process reads the offsets of all members when it first reads one. They
take 24 bytes of memory a member, 48 in a zip.
"""

from __future__ import annotations

import errno
import hashlib
import io
import re
import threading
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np

from beam_flowers.errors import InputError
from beam_flowers.files import tar, tfrecord, zips
from beam_flowers.files.backends import backend
from beam_flowers.files.paths import FileStat, MemberError, scheme

_NAMES = {
    "tar": re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.\w+)$", re.IGNORECASE),
    "zip": re.compile(r"\.zip$", re.IGNORECASE),
    "tfrecord": re.compile(r"\.tfrec(ord)?s?(-\d+-of-\d+)?(\.gz)?$|-\d{5}-of-\d{5}$"),
}
_READERS: dict[str, Any] = {"tar": tar, "zip": zips, "tfrecord": tfrecord}
_TRUSTED_SECONDS = 60
"""Time for which the status of a remote archive is not asked again."""
_one_at_a_time = threading.Lock()
"""Held while an archive is indexed, so that other threads wait and do not index it too."""


def kind_of(uri: str) -> str | None:
    """Returns `tar`, `zip` or `tfrecord` by the name of a file; None for any other."""
    return next((file_type for file_type, name in _NAMES.items() if name.search(uri)), None)


def address(container: str, file_type: str, name: str) -> str:
    """Returns the address of a member."""
    remote = scheme(container)
    return f"{file_type}+{container}!/{name}" if remote else f"{file_type}://{container}!/{name}"


def read_bytes(uri: str, limit: int | None) -> bytes:
    """Reads a member, or its first `limit` bytes.

    Raises:
        MemberError: the member is itself an archive, or cannot be used.
    """
    file_type, container, span = _find(uri)
    with backend(container).open_read(container) as file:
        data: bytes = _READERS[file_type].read(file, span, limit)
    # No image begins as a zip does.
    if zips.is_one(data) or (kind_of(uri) == "tar" and tar.is_one(data)):
        raise MemberError("NestedArchive", "it is an archive inside of another; unpack that one")
    return data


def open_read(uri: str) -> BinaryIO:
    """Reads a member into memory and returns it as a file."""
    return io.BytesIO(read_bytes(uri, None))


def stat(uri: str) -> FileStat:
    """Returns the size of an image and the last change of its archive."""
    file_type, container, span = _find(uri)
    # The index of a TFRecord has the size of the record, not that of its image.
    size = (
        len(read_bytes(uri, None)) if file_type == "tfrecord" else _READERS[file_type].size_of(span)
    )
    return FileStat(size, _stat(container).modified)


def exists(uri: str) -> bool:
    """Tells if the archive has such a member."""
    try:
        _find(uri)
    except FileNotFoundError:
        return False
    return True


def is_folder(uri: str) -> bool:
    """Returns False: folders in an archive have no listing."""
    return False


def _refuse(uri: str, *_: Any) -> Any:
    raise InputError(f"{uri!r} lies inside of a file, where nothing is written; name a folder")


list_folder = list_objects = make_folder = write_atomic = put_if_absent = _refuse
copy = move = delete = _refuse


class _Index:
    """Finds the offset of a member by a 64-bit hash of its name; the later of two equal names."""

    def __init__(self, members: Iterable[tuple[str, tuple[int, ...]]]) -> None:
        keys, spans = array("Q"), array("Q")
        for name, span in members:
            keys.append(_key(name))
            spans.extend(span)
        self._width = len(spans) // len(keys) if keys else 1
        # A list of tuples would take ten times the memory.
        order = np.argsort(np.asarray(keys), kind="stable")
        self._keys = array("Q", np.asarray(keys)[order].tobytes())
        self._spans = array("Q", np.asarray(spans).reshape(-1, self._width)[order].tobytes())

    def find(self, name: str) -> tuple[int, ...] | None:
        key = _key(name)
        row = bisect_right(self._keys, key) - 1
        if row < 0 or self._keys[row] != key:
            return None
        return tuple(self._spans[row * self._width : (row + 1) * self._width])


def _key(name: str) -> int:
    # Two of a million names have the same key once in 37 million archives.
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _find(uri: str) -> tuple[str, str, tuple[int, ...]]:
    own = scheme(uri)
    file_type, _, remote = own.partition("+")
    rest = uri[len(file_type) + 1 :] if remote else uri[len(own) + 3 :]
    # A folder's name may hold `!/`, too: the text before the right mark names a file.
    for mark in re.finditer("!/", rest):
        container, name = rest[: mark.start()], rest[mark.end() :]
        try:
            status = _status(container)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if status.kind != "file":
            continue
        with _one_at_a_time:
            span = _index(file_type, container, status).find(name)
        if span is not None:
            return file_type, container, span
    raise FileNotFoundError(errno.ENOENT, "there is no such member", uri)


def _status(container: str) -> FileStat:
    if not scheme(container):
        return _stat(container)
    # One request of an object store for each image would double the requests.
    return _remembered(container, time.monotonic() // _TRUSTED_SECONDS)


def _stat(container: str) -> FileStat:
    return backend(container).stat(container)


@lru_cache(maxsize=1024)
def _remembered(container: str, period: float) -> FileStat:
    return _stat(container)


@lru_cache(maxsize=16384)
def _index(file_type: str, container: str, status: FileStat) -> _Index:
    with backend(container).open_read(container) as file:
        return _Index(_READERS[file_type].places(file, status.bytes))
