"""Finds folders of the user's cache that only the user can write.

Their files are trusted without a check: compiled and downloaded backbones, logs that are cut.
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
    """Returns the folder of that name in our cache, closed to other users.

    Args:
        name: name of the folder, without a slash.
        make: makes a missing folder, with mode 0700.

    Returns:
        Its path. None without a home folder, and if another user owns the folder or could have
        written into it; a warning then says so once a process.
    """
    try:
        folder = Path(cache(name)).expanduser()
    except RuntimeError:  # The user has no home folder, as in some containers.
        return None
    for level in (folder.parent, folder):
        try:
            if make:
                level.mkdir(mode=0o700, parents=True, exist_ok=True)
            problem = _problem(level)
        except OSError:
            # It is missing or cannot be made. The caller meets that error when it opens a file.
            continue
        if problem:
            _tell(str(level), problem)
            return None
    return folder


def _problem(folder: Path) -> str | None:
    target, link = folder.stat(), folder.lstat()
    for status in (link, target):
        if status.st_uid != os.geteuid():
            return f"belongs to the user with the number {status.st_uid}"
    if target.st_mode & _OTHERS_WRITE:
        return f"can be written by others (mode {stat.S_IMODE(target.st_mode):04o})"
    # Earlier versions made it readable. A folder behind a link may have other uses.
    if target.st_mode & 0o077 and not stat.S_ISLNK(link.st_mode):
        with contextlib.suppress(OSError):
            folder.chmod(0o700)
    return None


@once
def _tell(folder: str, problem: str) -> None:
    _LOG.warning(
        "the cache folder %s is not used, as it %s: delete it or give it to yourself alone (chmod "
        "-R go-w), or have XDG_CACHE_HOME name another place",
        folder,
        problem,
    )
