"""Keeps corrections as a manifest for `train --labels`, written anew after every change."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import NamedTuple

from beam_flowers import files
from beam_flowers.errors import OutputError
from beam_flowers.files.text import MOST_SHOWN, guarded, unguarded
from beam_flowers.images.outputs import HEAD, require_ending

_COLUMNS = ["sha256", "uri", "label"]


class Decision(NamedTuple):
    """A person's label for an image.

    Attributes:
        sha256: hex digest of its content, by which `train` finds it and its copies.
        uri: of the image when it was scored.
        label: verbatim; empty takes the image out of the training.
    """

    sha256: str
    uri: str
    label: str


class Decisions:
    """The decisions in the manifest at `output`.

    An existing manifest is continued; any other file there is left alone.

    Raises:
        OutputError: if another file is there, or the name does not end in `.csv`.
    """

    def __init__(self, output: str) -> None:
        require_ending(output, [".csv"], "a file of corrections")
        # Replacing a link by a file would leave the file behind it as it is.
        uri = files.absolute(output)
        self._uri = files.resolve(uri) if files.is_local(uri) else uri
        self._rows = {row.sha256: row for row in self._read()}

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._rows

    def __iter__(self) -> Iterator[Decision]:
        """Yields the decisions in the order in which they were made."""
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, decision: Decision) -> None:
        """Adds a decision; an earlier one about the same content goes."""
        others = {k: row for k, row in self._rows.items() if k != decision.sha256}
        self._replace({**others, decision.sha256: decision})

    def remove(self, sha256: str) -> None:
        """Removes the decision about a content."""
        self._replace({k: row for k, row in self._rows.items() if k != sha256})

    def _replace(self, rows: dict[str, Decision]) -> None:
        """Writes the rows, then keeps them: a decision counts as saved once it is on disk."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(map(guarded, row) for row in rows.values())
        files.write_atomic(self._uri, text.getvalue().encode())
        self._rows = rows

    def _read(self) -> list[Decision]:
        if not files.exists(self._uri):
            return []
        try:
            # Another file may be of any size: its beginning tells that it is another.
            head = files.read_bytes(self._uri, HEAD).decode(errors="replace")
            header = next(csv.reader(io.StringIO(head, newline="")), [])
            if not header:
                raise ValueError("it is empty")
            if header == _COLUMNS:
                text = files.read_bytes(self._uri).decode()
                rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
                return [Decision(*map(unguarded, row)) for row in rows[1:]]
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise OutputError(
                f"{self._uri!r} cannot be read as corrections: {error}; name another --output"
            ) from error
        raise OutputError(
            f"{self._uri!r} has the columns {', '.join(header)[:MOST_SHOWN]} and not "
            f"{', '.join(_COLUMNS)} of "
            "this command's corrections, which are only ever continued, never replaced (there is "
            "no --overwrite here); name another --output"
        )
