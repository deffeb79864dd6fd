"""Reads untrusted JSON by types, with a bound for all that grows.

Damage raises a `FieldError`, which names the file and the field.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from beam_flowers.errors import FieldError

T = TypeVar("T")

MOST_BYTES = 256 << 20
"""Bytes of a document. A part takes 330 in a manifest, so that 800,000 parts fit. Fifty million
images make some 10,000 parts, 3 MB, and 100,000 if each run adds few."""
MOST_ITEMS = 1_000_000
"""Items of a list, such as the parts of a section or its roots. One takes 300 bytes of memory."""
MOST_FREE_BYTES = 8 << 20
"""Bytes of a value of any type, such as the description of a section. The longest are file names
from a command line, which Linux bounds by 6 MB. As Python objects it may be 50 times as large."""
MOST_DEPTH = 32
"""Levels of lists and objects in a value of any type. Our own have 4 at most."""
_MOST_REASON = 300
"""Characters of a reason that an error shows."""
_ESCAPE, _TEXT = re.compile(rb"\\[^\r\n]"), re.compile(rb'"[^"\r\n]*"?')
"""In two steps: one pattern for both would take 100 bytes of memory a byte. A text ends with its
line, as Arrow starts anew behind one and parses several blocks of lines at a time."""
_MOST_NUMBER = 1 << 53

Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST_NUMBER)]
"""A number of rows or bytes. The sum of a million such numbers fits into 64 bits in Arrow."""
Items = msgspec.Meta(max_length=MOST_ITEMS)
"""The bound of a list: `Annotated[list[str], Items]`."""


class Form(Generic[T]):
    """Reads one kind of document.

    Args:
        document: type of the document, made of dataclasses, `msgspec.Struct`s and plain types.
        error: class to raise, that of the store, model or input with the document.
        advice: next step for the user, after the reason.
        most: bytes of the document.
    """

    def __init__(
        self, document: type[T], error: type[FieldError], advice: str, *, most: int = MOST_BYTES
    ) -> None:
        self._decoder = msgspec.json.Decoder(document)
        self._error = error
        self._advice = advice
        self.most = most

    def read(self, data: bytes | msgspec.Raw, file: str, where: str = "") -> T:
        """Decodes a document, or a part of it.

        Args:
            data: JSON.
            file: address of the document, for errors.
            where: path of the field in the document that `data` comes from, if not the whole.

        Raises:
            FieldError: `data` has another form, or is too large.
        """
        if len(memoryview(data)) > self.most:
            raise self.wrong(file, where, f"more than {self.most} bytes")
        try:
            try:
                return self._decoder.decode(data)
            except msgspec.ValidationError:
                raise
            except msgspec.DecodeError:
                return self._decoder.decode(_without_nan(bytes(data)))
        except msgspec.ValidationError as error:
            raise self.wrong(file, *_field_and_reason(str(error), where)) from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise self.wrong(file, where, str(error)) from error

    def wrong(self, file: str, field: str, reason: str) -> FieldError:
        """Makes the error about a field, or about the whole file if `field` is empty."""
        place = f"{field}: " if field else ""
        # A reason may quote a name of any length.
        reason = reason if len(reason) <= _MOST_REASON else f"{reason[:_MOST_REASON]}..."
        return self._error(f"{file} is damaged ({place}{reason}); {self._advice}", file, field)


def read_free(form: Form[Any], data: msgspec.Raw, file: str, where: str) -> Any:
    """Decodes a value of any type by a form with a lower bound of bytes.

    Raises:
        FieldError: `data` has another form, is too large or too deep.
    """
    content = form.read(data, file, where)
    level, depth = [content], 0
    while level := [item for value in level for item in _inside(value)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise form.wrong(file, where, f"more than {MOST_DEPTH} levels deep")
    return content


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _field_and_reason(message: str, where: str) -> tuple[str, str]:
    """Splits a message of msgspec into the field and the reason."""
    reason, _, path = message.partition(" - at `")
    path = path.rstrip("`").removeprefix("$")
    if reason.startswith("Object missing required field `"):
        path += "." + reason.split("`")[1]
    return f"{where}{path}".removeprefix("."), reason


def _without_nan(data: bytes) -> bytes:
    """Replaces numbers that Python writes and JSON lacks, such as NaN, by null."""
    if not any(name in data for name in (b"NaN", b"Infinity")):
        return data
    try:
        return msgspec.json.encode(json.loads(data, parse_constant=lambda _: None))
    except (ValueError, RecursionError):
        return data


def require_shallow(data: bytes, error: type[FieldError], file: str) -> None:
    """Checks JSON lines for Arrow, whose parser overflows the stack if they are nested deeply.

    Raises:
        FieldError: a line has more than `MOST_DEPTH` levels.
    """
    import numpy as np

    signs = np.frombuffer(_TEXT.sub(b"", _ESCAPE.sub(b"", data)), np.uint8)
    steps = np.isin(signs, np.frombuffer(b"[{", np.uint8)).astype(np.int8)
    steps -= np.isin(signs, np.frombuffer(b"]}", np.uint8))
    levels = steps.cumsum(dtype=np.int64)
    # From any place on: signs that close nothing must not hide others.
    lowest = np.minimum.accumulate(np.minimum(levels, 0))
    if (levels - lowest).max(initial=0) > MOST_DEPTH:
        raise error(f"{file}: more than {MOST_DEPTH} levels of lists and objects", file)
