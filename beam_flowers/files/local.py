"""Files of this machine, by `os`; `files` is the module to import."""

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

# What link() says where there are no hard links: FAT, FUSE, SMB and NFS each say another thing.
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
    """The bytes as they are: `.gz` is not unpacked."""
    return open(path, "rb")


def read_bytes(path: str, limit: int | None) -> bytes:
    """The file's content, or its first `limit` bytes."""
    with open_read(path) as file:
        return file.read() if limit is None else file.read(limit)


def exists(path: str) -> bool:
    """Tells if a file or a folder is there; a dangling link is not."""
    return os.path.exists(path)


def is_folder(path: str) -> bool:
    """Tells if a folder is there."""
    return os.path.isdir(path)


def stat(path: str) -> FileStat:
    """Size, last change and kind of what is there, behind links.

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
    """Makes a folder and those above it; one that is there stays."""
    os.makedirs(path, exist_ok=True)


def write_atomic(path: str, data: bytes) -> None:
    """Writes a whole file or nothing, over one that may be there; makes the folders above it."""
    move(_write_temporary(path, data), path)


def put_if_absent(path: str, data: bytes) -> bool:
    """Writes a whole file unless one is there, in one atomic step; makes the folders above it."""
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
    """Gives a file another name unless that is taken; the first name may stay."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _rename_locked(source, target)


def _rename_locked(source: str, target: str) -> None:
    # exFAT and some network mounts have no hard links. The lock goes with its process, whatever
    # kills that, and the renaming shows a whole file; between machines it is the mount's affair.
    with open(join(parent(target), ".lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "it is there already", target)
        os.rename(source, target)


def move(source: str, target: str) -> None:
    """Moves a file over one that may be there."""
    make_folder(parent(target))
    os.replace(source, target)
    _sync_folder(parent(target))


def copy(source: str, target: str) -> None:
    """Gives a file a second name, over one that may be there; copies it where links fail."""
    make_folder(parent(target))
    temporary = temporary_name(target)
    try:
        os.link(source, temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
    # Of two names of one file, rename() leaves both and says nothing.
    delete(temporary)
    _sync_folder(parent(target))


def delete(path: str) -> None:
    """Deletes a file, a link or a whole folder; nothing there is no error."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            # Else a part that was replaced may be back after a loss of power.
            _sync_folder(parent(path))


def _write_temporary(path: str, data: bytes) -> str:
    temporary = temporary_name(path)
    make_folder(parent(path))
    try:
        with _named_in_errors(path), open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        delete(temporary)
        raise
    return temporary


def _sync_folder(folder: str) -> None:
    """Makes a rename in a local folder survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with _named_in_errors(folder):
            os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _named_in_errors(path: str) -> Iterator[None]:
    """Adds the path to errors of an open file, such as that of a full disk, which have none."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, path) from error
