"""Addresses as text, and what is known of what they name; nothing here touches a file."""

from __future__ import annotations

import os
import re
import uuid
from typing import NamedTuple

KINDS = ("tar", "zip", "tfrecord")
"""Of files that have members; the schemes of these."""

_SCHEME = re.compile(r"([a-zA-Z][-a-zA-Z0-9+.]*)://")


class FileStat(NamedTuple):
    """Size in bytes, last change in microseconds since the epoch, `file`, `folder` or `other`.

    `etag` is that of an object in S3, None where there is none.
    """

    bytes: int
    modified: int
    kind: str = "file"
    etag: str | None = None


class Entry(NamedTuple):
    """One name in a folder.

    Attributes:
        uri: absolute, scheme kept.
        name: the last component of `uri`.
        kind: `file`, `folder`, `link` (not followed), `other` (a pipe, socket or device) or
            `unreadable` (a folder that could not be listed; from `files.walk` only).
        bytes: size of a file, or None where it could not be asked.
        modified: last change in microseconds since the epoch, or None likewise.
        error: why a folder is `unreadable`.
        etag: of an object in S3, which changes with its content; None where there is none.
    """

    uri: str
    name: str
    kind: str
    bytes: int | None = None
    modified: int | None = None
    error: str | None = None
    etag: str | None = None


class MemberError(OSError):
    """A member of an archive that can be reached and not used; reading it again does not help.

    Attributes:
        error_class: of the `Reject`, for example `BadChecksum`.
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


def scheme(uri: str) -> str:
    """`s3` of `s3://bucket/name`; the empty string for the file system here."""
    found = _SCHEME.match(uri)
    return "" if found is None or found[1].lower() == "file" else found[1]


def is_member(uri: str) -> bool:
    """Tells if `uri` names a member of an archive; see `files.archives`."""
    return scheme(uri).partition("+")[0] in KINDS


def join(folder: str, *names: str) -> str:
    """The address of a name below a folder; an empty last name gives the folder with a `/`."""
    return "/".join([folder.rstrip("/"), *names])


def parent(uri: str) -> str:
    """The folder that holds `uri`; of `/` and of `s3://bucket` itself."""
    start = found.end() if (found := _SCHEME.match(uri)) else 0
    head, slash, _ = uri[start:].rpartition("/")
    if not slash:
        return uri
    return uri[:start] + head or "/"


def cache(name: str) -> str:
    """Folder of the user's cache for things of that kind; may start with `~`."""
    return f"{os.environ.get('XDG_CACHE_HOME') or '~/.cache'}/beam-flowers/{name}"


def temporary_name(uri: str) -> str:
    """A new hidden name in the folder of `uri`."""
    return join(parent(uri), f".{uri.rpartition('/')[2]}.{uuid.uuid4().hex[:12]}")
