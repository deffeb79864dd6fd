"""Corrections as a manifest that `train --labels` takes, whole on disk after every change."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import NamedTuple

from beam_flowers import files
from beam_flowers.errors import OutputError
from beam_flowers.files.text import guarded, unguarded
from beam_flowers.images.outputs import HEAD, require_ending

_COLUMNS = ["sha256", "uri", "label"]


class Decision(NamedTuple):
    """What a person says of a picture.

    Attributes:
        sha256: hex digest of its content, by which `train` finds it and its copies.
        uri: where it lay.
        label: verbatim; empty takes the picture out of the training.
    """

    sha256: str
    uri: str
    label: str


class Decisions:
    """The manifest at `output`; what lies in it is kept.

    A person's work is only ever continued: nothing else that lies there is replaced.

    Raises:
        OutputError: if something else lies there, or it is no `.csv`.
    """

    def __init__(self, output: str) -> None:
        require_ending(output, [".csv"], "a file of corrections")
        # Behind a link the file itself is continued.
        uri = files.absolute(output)
        self._uri = files.resolve(uri) if files.is_local(uri) else uri
        self._rows = {row.sha256: row for row in self._read()}

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._rows

    def __iter__(self) -> Iterator[Decision]:
        """In the order in which they were made."""
        return iter(self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, decision: Decision) -> None:
        """Takes a decision, in place of an earlier one about the same content."""
        others = {k: row for k, row in self._rows.items() if k != decision.sha256}
        self._replace({**others, decision.sha256: decision})

    def remove(self, sha256: str) -> None:
        """Takes the decision about a content back."""
        self._replace({k: row for k, row in self._rows.items() if k != sha256})

    def _replace(self, rows: dict[str, Decision]) -> None:
        """Writes first: what is said to be saved is on disk."""
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
            # A file of something else may be of any size: its beginning says that it is one.
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
            f"{self._uri!r} has the columns {header!r} and not {_COLUMNS!r} of this command's "
            "corrections, which are only ever continued, never replaced (there is no --overwrite "
            "here); name another --output"
        )
