"""Chooses the module that serves an address; all have the same functions."""

from __future__ import annotations

from types import ModuleType

from beam_flowers.files import local
from beam_flowers.files.paths import scheme


def backend(uri: str) -> ModuleType:
    """Returns the module for a file that is not a member of an archive."""
    name = scheme(uri)
    if not name:
        return local
    # The import takes seconds, which a run on local files without new images does not need.
    if name == "s3":
        from beam_flowers.files import s3

        return s3
    from beam_flowers.files import beam

    return beam
