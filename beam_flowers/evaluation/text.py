"""Markdown's small parts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_flowers.files.text import visible


def percent(share: float | None) -> str:
    """`0.931` as `93.1 %`; a dash where there is nothing."""
    return "–" if share is None else f"{share:.1%}".replace("%", " %")


def interval(share: Mapping[str, Any], low: str = "low", high: str = "high") -> str:
    """`88.7 % to 96.3 %`, from the two ends of a share's interval."""
    return f"{percent(share[low])} to {percent(share[high])}"


def cell(value: Any) -> str:
    """Any text as itself: nothing in it is Markdown, nothing ends a table's line."""
    text = visible(" ".join(str(value).split()))
    # An underscore inside a word is one already; escaped, no path could be copied.
    return re.sub(r"([\\`*|<>\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in GitHub's Markdown; numbers and shares are aligned to the right."""
    lines = [[cell(value) for value in row] for row in rows]
    rule = [" ---: " if _is_number(column) else " --- " for column in zip(*lines, strict=True)]
    head = [f"| {' | '.join(cell(name) for name in header)} |"]
    head.append(f"|{'|'.join(rule or [' --- '] * len(header))}|")
    return "\n".join(head + [f"| {' | '.join(line)} |" for line in lines])


def _is_number(column: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[\d.]+( %)?|–", text) for text in column)
