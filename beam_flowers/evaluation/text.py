"""Writes the small parts of Markdown: shares, cells, tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from beam_flowers.files.text import visible


def percent(share: float | None) -> str:
    """Returns `0.931` as `93.1 %`; None as a dash."""
    return "–" if share is None else f"{share:.1%}".replace("%", " %")


def interval(share: Mapping[str, Any], low: str = "low", high: str = "high") -> str:
    """Returns `88.7 % to 96.3 %`, from the two ends of a share's interval."""
    return f"{percent(share[low])} to {percent(share[high])}"


def cell(value: Any) -> str:
    """Returns a value as text that Markdown shows as it is, on one line."""
    text = visible(" ".join(str(value).split()))
    # Markdown leaves an underscore inside a word alone; escaped, no path could be copied.
    return re.sub(r"([\\`*|<>\[\]]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table in GitHub's Markdown; numbers and shares are aligned to the right."""
    lines = [[cell(value) for value in row] for row in rows]
    rule = [
        " ---: " if all(re.fullmatch(r"[\d.]+( %)?|–", text) for text in column) else " --- "
        for column in zip(*lines, strict=True)
    ]
    head = [f"| {' | '.join(cell(name) for name in header)} |"]
    head.append(f"|{'|'.join(rule or [' --- '] * len(header))}|")
    return "\n".join(head + [f"| {' | '.join(line)} |" for line in lines])
