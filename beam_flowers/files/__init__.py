"""Files by path or `scheme://` address: here by `os`, on S3 by boto3, all others by Beam.

Names are literal everywhere: `[`, `*` and `?` mean nothing here. What fails raises an OSError
(Beam's own `BeamIOError` is one); an address that can't be used at all, because its library, its
bucket or the right to use it is missing, an InputError; a server that does not answer, after many
tries, an UnreachableError.
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
    """Whether a path lies in the file system of this machine."""
    return not scheme(uri)


def absolute(path: str) -> str:
    """Bare absolute path without `file://`, `~`, `..` or a last `/`; `scheme://` is kept.

    Nothing is percent-decoded: `%20` in a name is those three characters.
    """
    if is_member(path):
        return path
    if not is_local(path):
        # Beam's HDFS without a server's name is hdfs://folder, Hadoop's is hdfs:///folder.
        return re.sub(r"^([^:]+://)/+", r"\1", path).rstrip("/")
    return os.path.abspath(os.path.expanduser(re.sub(r"(?i)^file://", "", path)))


def relative(uri: str, root: str) -> str:
    """The path of `uri` below the folder `root`."""
    return uri.removeprefix(root.rstrip("/") + "/")


def resolve(path: str) -> str:
    """A local path with all links followed."""
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
    """Whether a name is valid UTF-8 without NUL, so that a table can store it."""
    return "\0" not in name and printable(name) == name


def printable(name: str) -> str:
    r"""`name` as storable text: bytes that are not UTF-8 become `\xff`."""
    if name.isascii():
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # A lone surrogate that stands for no byte; JSON may hold one.
        return name.encode("utf-8", "backslashreplace").decode()


def open_read(uri: str) -> BinaryIO:
    """The bytes as they are: `.gz` is not unpacked."""
    file: BinaryIO = _module(uri).open_read(uri)
    return file


def read_bytes(uri: str, limit: int | None = None) -> bytes:
    """The file's content, or its first `limit` bytes."""
    data: bytes = _module(uri).read_bytes(uri, limit)
    return data


def read_document(uri: str, form: Form[Any]) -> bytes:
    """The content of a file that may come from anybody, of no more bytes than its form allows.

    Raises:
        FieldError: it has more, or is a pipe or device, which could give any number.
    """
    most = form.most
    if is_local(uri):
        found = stat(uri)
        if found.kind != "file":
            raise form.wrong(uri, "", f"this is no file ({found.kind})")
        most = min(most, found.bytes) if found.bytes <= most else -1
    data = read_bytes(uri, most + 1)
    if most < 0 or len(data) > form.most:
        raise form.wrong(uri, "", f"more than {form.most} bytes")
    return data


def exists(uri: str) -> bool:
    """Whether a file or a folder is there; a dangling link is not."""
    found: bool = _module(uri).exists(uri)
    return found


def is_gone(uri: str) -> bool:
    """Tells if nothing is there, not even a link that leads nowhere.

    Raises:
        OSError: this cannot be told, since a folder above may not be entered or does not answer.
    """
    if not is_local(uri):
        return not exists(uri)
    try:
        os.lstat(absolute(uri))
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def is_certainly_gone(uri: str) -> bool:
    """Tells if nothing is there; False where this cannot be told."""
    try:
        return is_gone(uri)
    except (OSError, BeamFlowersError):
        return False


def is_folder(uri: str) -> bool:
    """Whether `uri` is a folder, or in an object store the beginning of a name before a `/`."""
    found: bool = _module(uri).is_folder(uri)
    return found


def stat(uri: str) -> FileStat:
    """Size, last change and kind of what is there, behind links.

    Raises:
        FileNotFoundError: nothing is there.
    """
    found: FileStat = _module(uri).stat(uri)
    return found


def list_folder(uri: str) -> Iterator[Entry]:
    """What lies directly in a folder; here sorted by name. Object stores answer in pages."""
    entries: Iterator[Entry] = _module(uri).list_folder(uri)
    return entries


def walk(root: str, enter: Callable[[str], bool] | None = None) -> Iterator[Entry]:
    """Everything below a folder except folders, in the order of `list_folder`.

    Links are not followed. Memory is bounded by the names of one folder a level, here and on
    HDFS, and by a page on S3; Beam's clients of other object stores remember all names.

    Args:
        root: absolute folder.
        enter: whether to go into the folder of that address; object stores list all.
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
    """Makes a folder and those above it; one that is there stays, object stores need none."""
    _module(uri).make_folder(uri)


def write_atomic(uri: str, data: bytes) -> None:
    """Writes a whole file or nothing, over one that may be there; makes the folders above it."""
    _module(uri).write_atomic(uri, data)


def put_if_absent(uri: str, data: bytes) -> bool:
    """Writes a whole file unless one is there, in one atomic step; makes the folders above it.

    Returns:
        True if this call made the file, False if another was there first. That may be its own: an
        object store's answer may be lost, and the request is made again.

    Raises:
        StoreError: no such step is known for the scheme.
    """
    is_new: bool = _module(uri).put_if_absent(uri, data)
    return is_new


def move(source: str, target: str) -> None:
    """Moves a file over one that may be there; in object stores a copy and a deletion.

    Raises:
        FileNotFoundError: `source` is not there.
    """
    _module(target).move(source, target)


def copy(source: str, target: str) -> None:
    """Copies a file within one storage, over one that may be there; here both may be one file.

    Makes the folders above the target. The source is never to be changed in place afterwards.

    Raises:
        FileNotFoundError: `source` is not there.
    """
    _module(target).copy(source, target)


def delete(uri: str) -> None:
    """Deletes a file, a link or a whole local folder; nothing there is no error."""
    _module(uri).delete(uri)


def remove_empty_folders(root: str) -> None:
    """Removes a local folder and those below it as far as they are empty; elsewhere nothing."""
    for folder, _, _ in os.walk(root, topdown=False) if is_local(root) else ():
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def delete_tree(folder: str) -> None:
    """Deletes a folder with all that is in it; nothing there is no error."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif is_folder(folder):
        for entry in list(walk(folder)):
            delete(entry.uri)
