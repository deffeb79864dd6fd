"""Splits and joins addresses as text; accesses no file."""

from __future__ import annotations

import os
import re
import uuid
from typing import NamedTuple

KINDS = ("tar", "zip", "tfrecord")
"""Kinds of archives, which are the schemes of their members."""

_SCHEME = re.compile(r"([a-zA-Z][-a-zA-Z0-9+.]*)://")


class FileStat(NamedTuple):
    """Describes a file or folder.

    Attributes:
        bytes: its size.
        modified: last change in microseconds since the epoch.
        kind: `file`, `folder` or `other`.
        etag: tag of an object in S3, else None.
    """

    bytes: int
    modified: int
    kind: str = "file"
    etag: str | None = None


class Entry(NamedTuple):
    """Describes one name in a folder.

    Attributes:
        uri: absolute, scheme kept.
        name: the last component of `uri`.
        kind: `file`, `folder`, `link` (not followed), `other` (a pipe, socket or device) or
            `unreadable` (a folder that could not be listed; from `files.walk` only).
        bytes: size of a file, or None if unknown.
        modified: last change in microseconds since the epoch, or None if unknown.
        error: why a folder is `unreadable`.
        etag: tag of an object in S3, which changes with its content, else None.
    """

    uri: str
    name: str
    kind: str
    bytes: int | None = None
    modified: int | None = None
    error: str | None = None
    etag: str | None = None


class MemberError(OSError):
    """Reports a member of an archive that was read and cannot be used; a retry does not help.

    Attributes:
        error_class: class of the `Reject`, for example `BadChecksum`.
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


def scheme(uri: str) -> str:
    """Returns `s3` of `s3://bucket/name`, empty for a local path."""
    match = _SCHEME.match(uri)
    return "" if match is None or match[1].lower() == "file" else match[1]


def is_member(uri: str) -> bool:
    """Tells if `uri` names a member of an archive; see `files.archives`."""
    return scheme(uri).partition("+")[0] in KINDS


def join(folder: str, *names: str) -> str:
    """Returns the address of a name below a folder; an empty last name adds a `/` to it."""
    return "/".join([folder.rstrip("/"), *names])


def parent(uri: str) -> str:
    """Returns the folder that holds `uri`; `/` and `s3://bucket` hold themselves."""
    start = match.end() if (match := _SCHEME.match(uri)) else 0
    head, slash, _ = uri[start:].rpartition("/")
    if not slash:
        return uri
    return uri[:start] + head or "/"


def cache(name: str) -> str:
    """Returns the folder of that name in the user's cache; may start with `~`."""
    return f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/beam-flowers/{name}"


def temporary_name(uri: str) -> str:
    """Returns a new hidden name in the folder of `uri`."""
    return join(parent(uri), f".{uri.rpartition('/')[2]}.{uuid.uuid4().hex[:12]}")
