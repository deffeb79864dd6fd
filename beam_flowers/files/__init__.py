"""Reads, writes and lists files by path or `scheme://` address.

`os` serves local paths, boto3 serves S3, and Beam all other schemes. Names are literal: `[`, `*`
and `?` have no meaning. Failures raise an OSError (Beam's own `BeamIOError` is one). An address
whose library, bucket or access right is missing raises an InputError. A server that does not answer
after many tries raises an UnreachableError.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, BinaryIO

from beam_flowers.errors import BeamFlowersError
from beam_flowers.files.backends import backend
from beam_flowers.files.paths import Entry as Entry
from beam_flowers.files.paths import FileStat as FileStat
from beam_flowers.files.paths import MemberError as MemberError
from beam_flowers.files.paths import is_member as is_member
from beam_flowers.files.paths import join as join
from beam_flowers.files.paths import parent as parent
from beam_flowers.files.paths import scheme
from beam_flowers.files.typed import Form


def _module(uri: str) -> ModuleType:
    if is_member(uri):
        from beam_flowers.files import archives

        return archives
    return backend(uri)


def is_local(uri: str) -> bool:
    """Tells if a path is in the file system of this machine."""
    return not scheme(uri)


def absolute(path: str) -> str:
    """Returns the absolute path without `file://`, `~`, `..` or a last `/`; keeps `scheme://`.

    Nothing is percent-decoded: `%20` in a name is those three characters.
    """
    if is_member(path):
        return path
    if not is_local(path):
        # Beam's HDFS without a server's name is hdfs://folder, Hadoop's is hdfs:///folder.
        return re.sub(r"^([^:]+://)/+", r"\1", path).rstrip("/")
    return os.path.abspath(os.path.expanduser(re.sub(r"(?i)^file://", "", path)))


def relative(uri: str, root: str) -> str:
    """Returns the path of `uri` relative to the folder `root`."""
    return uri.removeprefix(root.rstrip("/") + "/")


def resolve(path: str) -> str:
    """Follows all links of a local path."""
    return os.path.realpath(path)


def is_behind_link(uri: str, root: str) -> bool:
    """Tells if a folder between a local `root` and the file `uri` below it is a link."""
    folder = parent(uri) if is_local(uri) else root
    while len(folder) > len(root):
        if os.path.islink(folder):
            return True
        folder = parent(folder)
    return False


def is_text(name: str) -> bool:
    """Tells if a name is valid UTF-8 without NUL, so that a table can store it."""
    return "\0" not in name and printable(name) == name


def printable(name: str) -> str:
    r"""Returns `name` as storable text: bytes that are not UTF-8 become `\xff`."""
    if name.isascii():
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # JSON may hold a lone surrogate that stands for no byte.
        return name.encode("utf-8", "backslashreplace").decode()


def open_read(uri: str) -> BinaryIO:
    """Opens a file for its bytes as stored: `.gz` is not unpacked."""
    return _module(uri).open_read(uri)


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """Reads a file, or its first `limit` bytes."""
    return _module(uri).read_bytes(uri, limit)


def read_document(uri: str, form: Form[Any]) -> bytes:
    """Reads an untrusted file of at most as many bytes as its form allows.

    Raises:
        FieldError: the file has more, or is a pipe or device, which may never end.
    """
    most = form.most
    if is_local(uri):
        status = stat(uri)
        if status.kind != "file":
            raise form.wrong(uri, "", f"this is no file ({status.kind})")
        most = status.bytes if status.bytes <= most else -1
    data = read_bytes(uri, most + 1)
    if most < 0 or len(data) > form.most:
        raise form.wrong(uri, "", f"more than {form.most} bytes")
    return data


def exists(uri: str) -> bool:
    """Tells if a file or folder exists; False for a dangling link."""
    return _module(uri).exists(uri)


def is_gone(uri: str) -> bool:
    """Tells if nothing has that name, not even a dangling link.

    Raises:
        OSError: a folder above may not be entered or does not answer.
    """
    if not is_local(uri):
        return not exists(uri)
    try:
        os.lstat(absolute(uri))
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def is_certainly_gone(uri: str) -> bool:
    """Tells if nothing has that name; False if errors hide the answer."""
    try:
        return is_gone(uri)
    except (OSError, BeamFlowersError):
        return False


def is_folder(uri: str) -> bool:
    """Tells if `uri` is a folder, or in an object store a prefix of names that precedes a `/`."""
    return _module(uri).is_folder(uri)


def stat(uri: str) -> FileStat:
    """Returns size, last change and kind of a file or folder; follows links.

    Raises:
        FileNotFoundError: nothing is there.
    """
    return _module(uri).stat(uri)


def list_folder(uri: str) -> Iterator[Entry]:
    """Lists the direct content of a folder; sorted by name if local, in pages in object stores."""
    return _module(uri).list_folder(uri)


def walk(root: str, enter: Callable[[str], bool] | None = None) -> Iterator[Entry]:
    """Lists everything below a folder except folders, in the order of `list_folder`.

    Links are not followed. Memory is bounded by the names of one folder a level on local disks and
    HDFS, and by one page on S3. Beam's clients of other object stores remember all names.

    Args:
        root: absolute folder.
        enter: tells if the folder of that address is listed; object stores list all.
    """
    if is_local(root) or scheme(root) == "hdfs":
        return _walk_folders(root, enter or (lambda folder: True))
    return _or_unreadable(root, _module(root).list_objects(root))


def _walk_folders(root: str, enter: Callable[[str], bool]) -> Iterator[Entry]:
    # A stack, not recursion: trees may be deeper than Python's recursion limit.
    stack = [_or_unreadable(root, list_folder(root))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif entry.kind != "folder":
            yield entry
        elif enter(entry.uri):
            stack.append(_or_unreadable(entry.uri, list_folder(entry.uri)))


def _or_unreadable(folder: str, entries: Iterator[Entry]) -> Iterator[Entry]:
    try:
        yield from entries
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        yield Entry(folder, folder.rpartition("/")[2], "unreadable", error=reason)


def make_folder(uri: str) -> None:
    """Makes a folder and its parents; keeps an existing one. Object stores need none."""
    _module(uri).make_folder(uri)


def write_atomic(uri: str, data: bytes) -> None:
    """Writes a whole file or nothing, replaces an older one, and makes the folders above it."""
    _module(uri).write_atomic(uri, data)


def put_if_absent(uri: str, data: bytes) -> bool:
    """Writes a whole file unless one exists, in one atomic step; makes the folders above it.

    Returns:
        True if this call made the file, False if one existed. That may be its own: the answer of
        an object store may be lost, and the request is then repeated.

    Raises:
        StoreError: the scheme has no known atomic step.
    """
    return _module(uri).put_if_absent(uri, data)


def move(source: str, target: str) -> None:
    """Moves a file and replaces an older one; object stores copy and delete.

    Raises:
        FileNotFoundError: `source` is not there.
    """
    _module(target).move(source, target)


def copy(source: str, target: str) -> None:
    """Copies a file within one storage, replaces an older one, and makes the folders above it.

    A local copy may be a hard link, so the source must never be changed in place afterwards.

    Raises:
        FileNotFoundError: `source` is not there.
    """
    _module(target).copy(source, target)


def delete(uri: str) -> None:
    """Deletes a file, a link or a whole local folder, if it exists."""
    _module(uri).delete(uri)


def remove_empty_folders(root: str) -> None:
    """Removes the empty folders in a local tree, itself included; does nothing elsewhere."""
    for folder, _, _ in os.walk(root, topdown=False) if is_local(root) else ():
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def delete_tree(folder: str) -> None:
    """Deletes a folder and its content, if it exists."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif is_folder(folder):
        for entry in list(walk(folder)):
            delete(entry.uri)
