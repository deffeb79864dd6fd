"""Numbers and names as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from beam_flowers.evaluation import text


def percent(share: float | None) -> str:
    """`0.931` as `93.1 %`, never broken over two lines; a dash where there is nothing."""
    return text.percent(share).replace(" ", "\N{NO-BREAK SPACE}")


def interval(share: Mapping[str, Any], low: str = "low", high: str = "high") -> str:
    """`88.7 % to 96.3 %`, from the two ends of a share's interval."""
    return f"{percent(share[low])} to {percent(share[high])}"


def short_name(uri: str) -> str:
    """A picture's folder and name."""
    return "/".join(uri.rsplit("/", 2)[-2:])


def counted(number: int, one: str, more: str = "") -> str:
    """`1 picture`, `1,500 pictures`."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def size(number: int) -> str:
    """`8.3 MB`: a number of bytes, in thousands as disks are sold."""
    value, unit = float(number), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if unit != "bytes" else counted(number, "byte")


def shown(part: int, total: int, order: str) -> str:
    """Says so where not all are shown."""
    return "" if part >= total else f" Shown are {part:,} of {total:,}, {order}."


def share_of(found: Mapping[str, Any]) -> str:
    """The interval of a share, and of how many pictures it is."""
    return f"95 % interval {interval(found)}, {found['right']:,} of {found['pictures']:,}"


def settings(values: Mapping[str, Any]) -> str:
    """`name lbfgs, l2 0.01`: what is None is left out."""
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def listed(values: Iterable[str], most: int = 12) -> str:
    """The first of some names, and how many there are beside."""
    names = list(values)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
