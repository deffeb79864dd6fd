"""Makes names of folders from labels."""

from __future__ import annotations

import re

from beam_flowers.errors import InputError

_LONGEST = 255
_SPECIAL = re.compile("[\x00-\x1f\x7f\"#%'*/:=?\\\\{\\[\\]^]")
"""Characters that Hive and Spark escape (ExternalCatalogUtils.charToEscape); 玫瑰 stays."""


def partition_folder(label: str) -> str:
    """Returns `label=<escaped>`, as Hive writes and its readers decode it.

    Raises:
        InputError: if the label is empty, or too long for the name of a folder.
    """
    return _checked(f"label={_escape(label)}", label)


def label_folder(label: str) -> str:
    """Returns a folder name, different for each label; never `.`, `..` or a hidden name.

    Raises:
        InputError: if the label is empty, or too long for the name of a folder.
    """
    name = _escape(label)
    return _checked(f"%2E{name[1:]}" if name.startswith(".") else name, label)


def _escape(label: str) -> str:
    return _SPECIAL.sub(lambda found: f"%{ord(found[0]):02X}", label)


def _checked(name: str, label: str) -> str:
    if not label:
        raise InputError("the model has an empty label, which cannot be the name of a folder")
    if len(name.encode()) > _LONGEST:
        raise InputError(f"the label {label!r} is too long for the name of a folder")
    return name
