"""Reads and writes `s3://` addresses by boto3; import `files` instead.

Beam's own file system makes a new client for each call, asks for the size before each read, writes
each file in three requests, remembers all names of a listing, takes a missing bucket for an empty
folder and may retry for ten minutes without a message. So only its options are used.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from typing import Any, BinaryIO, cast

from beam_flowers.errors import StoreError
from beam_flowers.files.paths import Entry, FileStat, join
from beam_flowers.files.ranges import RangedFile
from beam_flowers.files.s3_server import EmptyError, IncompleteReadError, ask

_TAIL = 1 << 16
"""Bytes read from the end of a newly opened file: the footer of a Parquet file, or all of it."""
_BLOCK = 1 << 20


def open_read(uri: str) -> BinaryIO:
    """Opens an object as a seekable file that reads by ranges."""
    return cast(BinaryIO, io.BufferedReader(_Ranges(uri), _BLOCK))


def read_bytes(uri: str, limit: int | None) -> bytes:
    """Reads an object, or its first `limit` bytes, in one request."""
    return ask(uri, lambda client: _body(client.get_object(**_key(uri)), limit))


def exists(uri: str) -> bool:
    """Tells if an object has that name, or one below it."""
    try:
        stat(uri)
    except FileNotFoundError:
        return is_folder(uri)
    return True


def is_folder(uri: str) -> bool:
    """Tells if `uri` is a bucket, or a prefix of names that precedes a `/`."""
    bucket, prefix = _folder(uri)
    page = ask(uri, lambda c: c.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1))
    return not prefix or bool(page.get("Contents"))


def stat(uri: str) -> FileStat:
    """Returns size, last change and tag of an object."""
    if not _split(uri)[1]:
        raise FileNotFoundError(errno.ENOENT, "a bucket is no file", uri)
    head = ask(uri, lambda client: client.head_object(**_key(uri)))
    modified = _microseconds(head["LastModified"])
    return FileStat(head["ContentLength"], modified, etag=_etag(head))


def list_folder(uri: str) -> Iterator[Entry]:
    """Lists the direct content of a folder, page by page."""
    for page in _pages(uri, Delimiter="/"):
        for folder in page.get("CommonPrefixes", ()):
            if name := folder["Prefix"].rstrip("/").rpartition("/")[2]:
                yield Entry(join(uri, name), name, "folder")
        yield from _objects(uri, page)


def list_objects(uri: str) -> Iterator[Entry]:
    """Lists all objects below `uri`, page by page."""
    for page in _pages(uri):
        yield from _objects(uri, page)


def make_folder(uri: str) -> None:
    """Does nothing: S3 has no folders."""


def write_atomic(uri: str, data: bytes) -> None:
    """Writes an object and replaces an older one."""
    ask(uri, lambda client: client.put_object(**_key(uri), Body=data))


def put_if_absent(uri: str, data: bytes) -> bool:
    """Writes an object unless one exists; see `files.put_if_absent`."""
    if not _put_new(uri, data):
        return False
    # The second write must fail. A server that ignores the condition would let two runs overwrite
    # each other's commits.
    if _put_new(uri, data):
        raise StoreError(
            f"{uri!r}: the server ignores If-None-Match, without which two runs may overwrite each "
            "other's commits; put the store on another server or in a local folder"
        )
    return True


def copy(source: str, target: str) -> None:
    """Copies an object within the server and replaces an older one."""
    ask(source, lambda client: client.copy_object(**_key(target), CopySource=_key(source)))


def move(source: str, target: str) -> None:
    """Copies an object, replaces an older one, and deletes the source."""
    copy(source, target)
    delete(source)


def delete(uri: str) -> None:
    """Deletes an object, if it exists."""
    ask(uri, lambda client: client.delete_object(**_key(uri)))


class _Ranges(RangedFile):
    """Reads an object by ranges; the last range when it is opened."""

    def __init__(self, uri: str) -> None:
        self._uri, self._etag = uri, ""
        try:
            self._tail, size = self._get(f"-{_TAIL}")
        except EmptyError:
            self._tail, size = b"", 0
        super().__init__(size)

    def _get(self, span: str) -> tuple[bytes, int]:
        """Returns (the bytes of a range, the size of the object)."""

        def get(client: Any) -> tuple[bytes, dict[str, Any]]:
            answer = client.get_object(**_key(self._uri), Range=f"bytes={span}")
            return _body(answer), answer

        data, answer = ask(self._uri, get)
        # A gateway over a folder has no tag for files that it did not write itself.
        tag = answer.get("ETag") or str(answer.get("LastModified"))
        self._etag = self._etag or tag
        if tag != self._etag:
            raise OSError(errno.EIO, "it was replaced while it was read", self._uri)
        return data, int(answer.get("ContentRange", f"/{len(data)}").rpartition("/")[2])

    def read_range(self, start: int, end: int) -> bytes:
        before_tail = self._size - len(self._tail)
        if start >= before_tail:
            return self._tail[start - before_tail : end - before_tail]
        return self._get(f"{start}-{end - 1}")[0]


def _body(answer: dict[str, Any], limit: int | None = None) -> bytes:
    with closing(answer["Body"]) as body:
        data: bytes = body.read(limit)
    expected = min(answer["ContentLength"], answer["ContentLength"] if limit is None else limit)
    if len(data) < expected:
        raise IncompleteReadError(actual_bytes=len(data), expected_bytes=expected)
    return data


def _put_new(uri: str, data: bytes) -> bool:
    try:
        ask(uri, lambda client: client.put_object(**_key(uri), Body=data, IfNoneMatch="*"))
    except FileExistsError:
        return False
    return True


def _pages(uri: str, **options: str) -> Iterator[dict[str, Any]]:
    bucket, prefix = _folder(uri)
    options |= {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = ask(uri, lambda client: client.list_objects_v2(**options))
        yield page
        if not page.get("IsTruncated"):
            return
        options["ContinuationToken"] = page["NextContinuationToken"]


def _objects(uri: str, page: dict[str, Any]) -> Iterator[Entry]:
    bucket = _split(uri)[0]
    for listed in page.get("Contents", ()):
        name = listed["Key"].rpartition("/")[2]
        # Web consoles mark empty folders by keys that end with "/".
        if name:
            modified = _microseconds(listed["LastModified"])
            uri = f"s3://{bucket}/{listed['Key']}"
            yield Entry(uri, name, "file", listed["Size"], modified, etag=_etag(listed))


def _etag(fields: dict[str, Any]) -> str | None:
    """Returns the tag of an object's content from an entry of a listing or from headers."""
    # A gateway over a folder has none for files that it did not write itself.
    return str(fields.get("ETag") or "").strip('"') or None


def _microseconds(modified: datetime) -> int:
    # Whole seconds, as in the HTTP header, so that listings with finer times agree with it.
    return int(modified.timestamp()) * 1_000_000


def _split(uri: str) -> tuple[str, str]:
    """Splits an address into bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _folder(uri: str) -> tuple[str, str]:
    """Splits a folder's address into bucket and prefix; the bucket itself has an empty prefix."""
    bucket, key = _split(uri.rstrip("/"))
    return bucket, key and f"{key}/"


def _key(uri: str) -> dict[str, str]:
    bucket, key = _split(uri)
    return {"Bucket": bucket, "Key": key}
