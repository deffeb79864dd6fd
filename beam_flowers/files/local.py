"""Reads and writes local files by `os`; import `files` instead."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat as modes
from collections.abc import Iterator
from typing import BinaryIO

from beam_flowers.files.paths import Entry, FileStat, join, parent, temporary_name

# Errors of link() where hard links are missing: FAT, FUSE, SMB and NFS each have another one.
_NO_LINKS = {
    errno.EACCES,
    errno.EINVAL,
    errno.EMLINK,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
}


def open_read(path: str) -> BinaryIO:
    """Opens a file for its bytes as stored: `.gz` is not unpacked."""
    return open(path, "rb")


def read_bytes(path: str, limit: int | None) -> bytes:
    """Reads a file, or its first `limit` bytes."""
    with open_read(path) as file:
        return file.read() if limit is None else file.read(limit)


def exists(path: str) -> bool:
    """Tells if a file or folder exists; False for a dangling link."""
    return os.path.exists(path)


def is_folder(path: str) -> bool:
    """Tells if a folder exists."""
    return os.path.isdir(path)


def stat(path: str) -> FileStat:
    """Returns size, last change and kind of a file or folder; follows links.

    Raises:
        FileNotFoundError: nothing is there.
    """
    status = os.stat(path)
    return FileStat(status.st_size, status.st_mtime_ns // 1000, _kind(status.st_mode))


def list_folder(folder: str) -> Iterator[Entry]:
    """Lists the names directly in a folder, sorted."""
    for name in sorted(os.listdir(folder)):
        uri = join(folder, name)
        try:
            status = os.lstat(uri)
        except FileNotFoundError:  # Deleted since the folder was listed.
            continue
        except OSError:
            yield Entry(uri, name, "file")
            continue
        kind = _kind(status.st_mode)
        yield Entry(uri, name, kind, status.st_size, status.st_mtime_ns // 1000)


def _kind(mode: int) -> str:
    if modes.S_ISREG(mode):
        return "file"
    if modes.S_ISDIR(mode):
        return "folder"
    return "link" if modes.S_ISLNK(mode) else "other"


def make_folder(path: str) -> None:
    """Makes a folder and its parents; keeps an existing one."""
    os.makedirs(path, exist_ok=True)


def write_atomic(path: str, data: bytes) -> None:
    """Writes a whole file or nothing, replaces an older one, and makes the folders above it."""
    move(_write_temporary(path, data), path)


def put_if_absent(path: str, data: bytes) -> bool:
    """Writes a whole file unless one exists, in one atomic step; makes the folders above it."""
    temporary = _write_temporary(path, data)
    try:
        _rename_new(temporary, path)
    except FileExistsError:
        return False
    finally:
        delete(temporary)
    _sync_folder(parent(path))
    return True


def _rename_new(source: str, target: str) -> None:
    """Gives a file another name unless that is taken; may keep the first name."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_locked(source, target)


def _rename_locked(source: str, target: str) -> None:
    # exFAT and some network mounts have no hard links. The system frees the lock however its
    # process ends, and a rename shows a whole file. Locks between machines depend on the mount.
    with open(join(parent(target), ".lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "it is there already", target)
        os.rename(source, target)


def move(source: str, target: str) -> None:
    """Moves a file and replaces an older one."""
    make_folder(parent(target))
    os.replace(source, target)
    _sync_folder(parent(target))


def copy(source: str, target: str) -> None:
    """Gives a file a second name and replaces an older file; copies it if links fail."""
    make_folder(parent(target))
    temporary = temporary_name(target)
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    # If both names are links to one file, rename() succeeds and keeps both.
    delete(temporary)
    _sync_folder(parent(target))


def delete(path: str) -> None:
    """Deletes a file, a link or a whole folder, if it exists."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            # Without it a replaced part may be back after a loss of power.
            _sync_folder(parent(path))


def _write_temporary(path: str, data: bytes) -> str:
    temporary = temporary_name(path)
    make_folder(parent(path))
    try:
        with _named_in_errors(path), open(temporary, "xb") as file:
            file.write(data)
            # After a loss of power the new name could otherwise lead to an empty file.
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        delete(temporary)
        raise
    return temporary


def _sync_folder(folder: str) -> None:
    """Makes renames and deletions in a folder survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with _named_in_errors(folder):
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _named_in_errors(path: str) -> Iterator[None]:
    """Adds the path to errors without one, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, path) from error
