"""Finds the stored rows whose files are gone."""

from __future__ import annotations

import os
from functools import lru_cache
from itertools import islice

import pyarrow as pa

from beam_flowers import files
from beam_flowers.errors import BeamFlowersError, InputError
from beam_flowers.files.tar import Damaged

_REMEMBERED = 256


class Missing:
    """Selects the rows whose files are gone; a file that cannot be looked for is an error."""

    def __init__(self) -> None:
        self._require_reachable = lru_cache(maxsize=None)(_require_reachable)
        self._names = lru_cache(maxsize=_REMEMBERED)(_names)

    def rows(self, names: pa.Table) -> pa.ChunkedArray:
        """Returns a mask of the rows that leave.

        Args:
            names: with columns `uri` and `root`.

        Raises:
            InputError: a root is empty or a file cannot be looked for; it is named.
        """
        for root in names["root"].unique().to_pylist():
            if root is not None:
                self._require_reachable(root)
        gone = [self._is_gone(uri) for uri in names["uri"].to_pylist()]
        return pa.chunked_array([pa.array(gone, pa.bool_())])

    def is_left(self, root: str) -> bool:
        """Tells if a root leaves a section's list of roots."""
        return self._is_gone(root)

    def _is_gone(self, uri: str) -> bool:
        try:
            if files.is_local(uri) or files.is_member(uri):
                return files.is_gone(uri)
            # Listing a folder takes fewer requests than looking for its files one by one.
            return uri not in self._names(files.parent(uri))
        except (OSError, BeamFlowersError, Damaged) as error:
            raise _unreachable(uri, str(error)) from error


def _names(folder: str) -> frozenset[str]:
    try:
        return frozenset(entry.uri for entry in files.list_folder(folder))
    except FileNotFoundError:
        return frozenset()


def _require_reachable(root: str) -> None:
    """Refuses a root unless it certainly exists and is not empty, or is certainly gone.

    An empty folder may be the place of a disk that is not mounted.

    Raises:
        InputError: it may be either; the reason is named.
    """
    if files.is_member(root):
        return
    try:
        if not files.is_gone(root):
            if not files.exists(root):
                raise _unreachable(root, "it is a link that leads nowhere")
            if files.is_folder(root) and _is_empty(root):
                raise _unreachable(root, "it is empty, as where a disk is not mounted")
        elif files.is_local(root):
            above = files.parent(root)
            while files.is_gone(above):
                above = files.parent(above)
            if _is_empty(above):
                reason = f"it is not there, and {above} is empty, as where a disk is not mounted"
                raise _unreachable(root, reason)
    except InputError:
        raise
    except (OSError, BeamFlowersError) as error:
        raise _unreachable(root, str(error)) from error


def _is_empty(folder: str) -> bool:
    if files.is_local(folder) and not os.path.isdir(folder):
        return False
    return not list(islice(files.list_folder(folder), 1))


def _unreachable(uri: str, reason: str) -> InputError:
    return InputError(
        f"nobody can say whether {uri} is gone: {reason}. Nothing was taken out. Make it readable "
        "and run this again; `beam-flowers forget STORE ROOT` takes a folder out in any case"
    )
