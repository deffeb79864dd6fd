"""The module that reaches an address: they have the same functions."""

from __future__ import annotations

from types import ModuleType

from beam_flowers.files import local
from beam_flowers.files.paths import scheme


def backend(uri: str) -> ModuleType:
    """Finds the module for a file that lies in no other file."""
    name = scheme(uri)
    if not name:
        return local
    # These take seconds to import: a run on local files that finds nothing to do goes without.
    if name == "s3":
        from beam_flowers.files import s3

        return s3
    from beam_flowers.files import beam

    return beam
