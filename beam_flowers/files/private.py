"""Finds folders of the user's cache that nobody else can put files into.

What lies there is loaded unseen: compiled networks, downloaded ones, logs that are cut.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from functools import cache as once
from pathlib import Path

from beam_flowers.files.paths import cache

_LOG = logging.getLogger(__name__)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def private_folder(name: str, make: bool = False) -> Path | None:
    """The folder of that name in our cache, closed to all others.

    Args:
        name: of the folder, without a slash.
        make: makes it, with mode 0700, where it is not there.

    Returns:
        Its path. None where there can be none, and where somebody else owns it or could have
        written into it: then one line says so, once a process.
    """
    try:
        folder = Path(cache(name)).expanduser()
    except RuntimeError:  # Somebody without a home, as in some containers.
        return None
    for place in (folder.parent, folder):
        try:
            if make:
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            problem = _problem(place)
        except OSError:
            # Not there, or no folder can be made: whoever uses it sees that for themselves.
            continue
        if problem:
            _tell(str(place), problem)
            return None
    return folder


def _problem(place: Path) -> str | None:
    found, link = place.stat(), place.lstat()
    for status in (link, found):
        if status.st_uid != os.geteuid():
            return f"belongs to the user with the number {status.st_uid}"
    if found.st_mode & _OTHERS_WRITE:
        return f"can be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    # As earlier versions made it. A folder behind a link may have other uses.
    if found.st_mode & 0o077 and not stat.S_ISLNK(link.st_mode):
        with contextlib.suppress(OSError):
            place.chmod(0o700)
    return None


@once
def _tell(place: str, problem: str) -> None:
    _LOG.warning(
        "the cache folder %s is not used, as it %s: delete it or give it to yourself alone (chmod "
        "-R go-w), or have XDG_CACHE_HOME name another place",
        place,
        problem,
    )
