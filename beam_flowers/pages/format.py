"""Formats numbers and names for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from beam_flowers.evaluation import text


def percent(share: float | None) -> str:
    """Returns `0.931` as `93.1 %`, never broken over two lines; None as a dash."""
    return text.percent(share).replace(" ", "\N{NO-BREAK SPACE}")


def short_name(uri: str) -> str:
    """Returns the last folder and the name of a file."""
    return "/".join(uri.rsplit("/", 2)[-2:])


def counted(number: int, one: str, more: str = "") -> str:
    """Returns `1 image` or `1,500 images`; `more` is a plural that does not end in s."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def size(number: int) -> str:
    """Returns a number of bytes as `8.3 MB`, in thousands as disks are sold."""
    value, unit = float(number), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if unit != "bytes" else counted(number, "byte")


def shown(part: int, total: int, order: str) -> str:
    """Returns a sentence if only a part is shown, else nothing."""
    return "" if part >= total else f" Shown are {part:,} of {total:,}, {order}."


def share_of(share: Mapping[str, Any]) -> str:
    """Returns the interval of a share and its number of images."""
    return (
        f"95 % interval {percent(share['low'])} to {percent(share['high'])}, "
        f"{share['right']:,} of {share['images']:,}"
    )


def settings(values: Mapping[str, Any]) -> str:
    """Returns `name lbfgs, l2 0.01`, without settings that are None."""
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def listed(values: Iterable[str], most: int = 12) -> str:
    """Returns the first of some names, and the number of further ones."""
    names = list(values)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
