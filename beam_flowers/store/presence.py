"""Marks the runs that share a temporary table, so that the last one deletes it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator

from beam_flowers import files
from beam_flowers.store.names import PRESENT, WORK


class Presence:
    """Marks a table as used by a run, until the run leaves or its process ends.

    On local disks the mark is a locked file; the lock ends with the process, even if it is killed.
    Object stores have no locks. There a run cannot know of others, and has to look if its own mark
    still exists.

    Args:
        table: folder of the table; made if absent.
    """

    def __init__(self, table: str) -> None:
        self._folder = files.join(table, WORK)
        self._uri = files.join(self._folder, f"{PRESENT}-{secrets.token_hex(8)}")
        files.write_atomic(self._uri, b"")
        self._lock: int | None = None
        if files.is_local(table):
            # Another run may delete the table, and this file, just now.
            with contextlib.suppress(FileNotFoundError):
                self._lock = _locked(self._uri)

    def is_there(self) -> bool:
        """Tells if the mark still exists, and so the table was not deleted."""
        return files.exists(self._uri)

    def leave(self) -> bool:
        """Ends the use; returns True if no other run is known to use the table."""
        files.delete(self._uri)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if not (files.is_local(self._folder) and files.is_folder(self._folder)):
            return True
        found = (e.uri for e in files.list_folder(self._folder) if e.name.startswith(PRESENT))
        return not any(_is_locked(uri) for uri in found)


@contextlib.contextmanager
def present(table: str) -> Iterator[Presence]:
    """Holds a presence for a block; deletes the folders afterwards if they are empty."""
    presence = Presence(table)
    try:
        yield presence
    finally:
        presence.leave()
        for folder in (files.join(table, WORK), table) if files.is_local(table) else ():
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def _locked(path: str) -> int:
    """Opens a file and locks it, if its mount supports locks; returns the descriptor."""
    descriptor = os.open(path, os.O_RDONLY)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _is_locked(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # Gone by now, or the mount has no locks.
        return False
    return False
