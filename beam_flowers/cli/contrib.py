"""Loads modules of `beam_flowers.contrib`, which nothing imports by name."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def contrib(name: str) -> Any:
    """Loads a module of contrib, when its command or flag is used.

    The core and the commands work without contrib, which import-linter holds by seeing no import.

    Args:
        name: below `beam_flowers.contrib`, such as `augment.job`.
    """
    return import_module(f"beam_flowers.contrib.{name}")
