"""Makes text from others safe for terminals, logs and spreadsheets."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

MOST_SHOWN = 300
"""Characters of a file, such as the names of its columns, that an error shows."""
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_NAMES = (
    r"secret|token|passw|pwd|credential|signature|api_?key|account_?key|access_?key|shared_?access"
    r"|connection_?string"
)
_HIDDEN = re.compile(
    # https://user:password@host/
    r"(?P<before>://)[^/?#\s'\"\\]*(?=@)"
    # ?sig=..., AccountKey=...;, --s3_session_token=..., 's3_secret_access_key': '...'
    rf"|(?P<name>(?:[\w.-]*(?:{_NAMES})[\w.-]*|\bsig)(?:['\"]?\s*=\s*['\"]?|['\"]\s*:\s*['\"]))"
    r"[^&;,\s'\"\\]+"
    r"|(?P<scheme>\b(?:bearer|basic)\s+)[\w.~+/=-]{16,}"
    # Tokens by their prefixes: Hugging Face, GitHub, Slack, AWS, JSON web tokens.
    r"|\b(?:hf_|gh[pousr]_|github_pat_|xox[abp]-|AKIA|ASIA)[\w-]{12,}"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def visible(text: str, kept: str = "") -> str:
    r"""Writes control characters as `\n`, `\x1b`, ..., except those in `kept`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in _INVISIBLE and c not in kept
        else c
        for c in text
    )


def without_secrets(text: str) -> str:
    """Replaces passwords, keys, signatures and tokens in addresses and settings by `...`."""
    return _HIDDEN.sub(
        lambda m: f"{m['before'] or ''}{m['name'] or ''}{m['scheme'] or ''}...", text
    )


def guarded(cell: T) -> T | str:
    """Returns a table's cell so that no spreadsheet takes it for a formula; keeps numbers.

    A `'` goes before text that begins with a formula's sign, also behind other `'`: `unguarded`
    removes one.
    """
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def unguarded(cell: str) -> str:
    """Returns the text from which `guarded` made a cell."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def unguarded_table(table: pa.Table) -> pa.Table:
    """Undoes `guarded` in the columns of text."""
    # Imported late: commands that read no table start faster without it.
    import pyarrow as pa
    import pyarrow.compute as pc

    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            cells = pc.replace_substring_regex(table[number], r"^'('*[=+\-@\t\r])", r"\1")
            table = table.set_column(number, field, cells)
    return table
