"""Holds limits of lists and manifests; no real list of images exceeds them."""

from __future__ import annotations

from beam_flowers.errors import InputError

MOST_CHARACTERS = 8192
"""Characters of a name or a label. Linux takes paths of 4,096 bytes, S3 keys of 1,024, servers
addresses of some 8,000. A thousand rows are in memory at a time."""

MOST_LINE_BYTES = 1 << 20
"""Bytes of a line with all its columns, or of a CSV row over several lines."""


def too_long(what: str, text: str) -> str:
    """Returns the error about a text of more than `MOST_CHARACTERS`."""
    return (
        f"{what} of {len(text):,} characters, more than {MOST_CHARACTERS:,}; no image is named so: "
        "delete that row"
    )


_SMALL, _ROWS_A_BYTE = 1_000_000, 10
"""Rows that any Parquet file may have, and further rows for each of its bytes. Different names take
at least a third of a byte each."""


def require_plausible(rows: int, size: int) -> None:
    """Raises InputError if a Parquet file of `size` bytes has more rows than it can hold names."""
    if rows > _SMALL + _ROWS_A_BYTE * size:
        raise InputError(
            f"it has {rows:,} rows or more in {size:,} bytes, so that nearly all name the same "
            "file; name each once"
        )
