"""Text from elsewhere, as terminals, logs and spreadsheets may have it."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

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
    # As services write their tokens: Hugging Face, GitHub, Slack, AWS, JSON web tokens.
    r"|\b(?:hf_|gh[pousr]_|github_pat_|xox[abp]-|AKIA|ASIA)[\w-]{12,}"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def visible(text: str, kept: str = "") -> str:
    r"""`text` with its control characters as `\n`, `\x1b`, ..., but for those `kept`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode()
        if unicodedata.category(c) in _INVISIBLE and c not in kept
        else c
        for c in text
    )


def without_secrets(text: str) -> str:
    """`text` with `...` for passwords, keys, signatures and tokens in addresses and settings."""
    return _HIDDEN.sub(
        lambda m: f"{m['before'] or ''}{m['name'] or ''}{m['scheme'] or ''}...", text
    )


def guarded(cell: T) -> T | str:
    """Returns a table's cell as no spreadsheet takes it for a formula; numbers stay.

    A `'` goes before text that begins with a formula's sign, and before a `'` that stands there
    already: `unguarded` takes off one.
    """
    if isinstance(cell, str) and _FORMULA.match(cell) and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def unguarded(cell: str) -> str:
    """Returns the text that `guarded` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def unguarded_table(table: pa.Table) -> pa.Table:
    """Undoes `guarded` in the columns of text."""
    # Commands that read no table start without it.
    import pyarrow as pa
    import pyarrow.compute as pc

    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            cells = pc.replace_substring_regex(table[number], r"^'('*[=+\-@\t\r])", r"\1")
            table = table.set_column(number, field, cells)
    return table
