"""Reads JSON that may come from anybody: each field has a type, and all that grows has a bound.

What is wrong raises one kind of error, a `FieldError`, which names the file and the field.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from beam_flowers.errors import FieldError

T = TypeVar("T")

MOST_BYTES = 256 << 20
"""Of a document. A part takes 330 in a manifest, so this is one of 800,000 parts. Fifty million
images lie in some 10,000 parts, 3 MB, and in 100,000 where each run adds few."""
MOST_ITEMS = 1_000_000
"""Of a list, such as the parts of a section or its roots. An item takes 300 bytes of memory."""
MOST_FREE_BYTES = 8 << 20
"""Of a value of any type, such as the description of a section. The longest are names of files
from a command line, which Linux bounds by 6 MB. As Python's objects it may be 50 times as large."""
MOST_DEPTH = 32
"""Of lists and objects inside of each other, in a value of any type. Ours have 4 at most."""
_TOLD = 300
"""Characters of a reason that an error shows."""
_TEXT = re.compile(rb'"(?:[^"\\]|\\[\s\S])*"')
_MOST_NUMBER = 1 << 53

Count = Annotated[int, msgspec.Meta(ge=0, le=_MOST_NUMBER)]
"""A number of rows or bytes. Sums of a million still are numbers of 64 bits in Arrow."""
Items = msgspec.Meta(max_length=MOST_ITEMS)
"""Bound of a list: `Annotated[list[str], Items]`."""


class Form(Generic[T]):
    """The form of one kind of document.

    Args:
        kind: type of the document, of dataclasses, `msgspec.Struct`s and plain types.
        error: what is raised; the error of what the document belongs to.
        advice: next step for the user, after the reason.
        most: bytes.
    """

    def __init__(
        self, kind: type[T], error: type[FieldError], advice: str, *, most: int = MOST_BYTES
    ) -> None:
        self._decoder = msgspec.json.Decoder(kind)
        self._error = error
        self._advice = advice
        self.most = most

    def read(self, data: bytes | msgspec.Raw, file: str, where: str = "") -> T:
        """Decode a document, or a part of it.

        Args:
            data: JSON.
            file: address, for errors.
            where: place in the file of what `data` is a part of it.

        Raises:
            FieldError: it has another form, or is too large.
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
            raise self.wrong(file, *_told(str(error), where)) from error
        except (msgspec.DecodeError, RecursionError) as error:
            raise self.wrong(file, where, str(error)) from error

    def wrong(self, file: str, field: str, reason: str) -> FieldError:
        """Make the error about a field, or about the whole file where `field` is empty."""
        place = f"{field}: " if field else ""
        # It may quote a name of any length.
        reason = reason if len(reason) <= _TOLD else f"{reason[:_TOLD]}..."
        return self._error(f"{file} is damaged ({place}{reason}); {self._advice}", file, field)


def read_free(form: Form[Any], data: msgspec.Raw, file: str, where: str) -> Any:
    """Decode a value of any type by a form of its own, which has a lower bound of bytes.

    Raises:
        FieldError: it is no such value, too large or too deep.
    """
    found = form.read(data, file, where)
    level, depth = [found], 0
    while level := [item for value in level for item in _inside(value)]:
        depth += 1
        if depth > MOST_DEPTH:
            raise form.wrong(file, where, f"more than {MOST_DEPTH} levels deep")
    return found


def _inside(value: Any) -> Any:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _told(message: str, where: str) -> tuple[str, str]:
    """Splits what msgspec says into the field and the reason."""
    reason, _, path = message.partition(" - at `")
    path = path.rstrip("`").removeprefix("$")
    if reason.startswith("Object missing required field `"):
        path += "." + reason.split("`")[1]
    return f"{where}{path}".removeprefix("."), reason


def _without_nan(data: bytes) -> bytes:
    """Puts null in the place of numbers that Python writes and JSON has not, such as NaN."""
    if not any(name in data for name in (b"NaN", b"Infinity")):
        return data
    try:
        return msgspec.json.encode(json.loads(data, parse_constant=lambda _: None))
    except (ValueError, RecursionError):
        return data


def require_shallow(data: bytes, error: type[FieldError], file: str) -> None:
    """Check JSON lines for Arrow, whose parser overflows the stack where they are nested deeply.

    Raises:
        FieldError: they have more than `MOST_DEPTH` levels.
    """
    import numpy as np

    signs = np.frombuffer(_TEXT.sub(b"", data), np.uint8)
    steps = np.isin(signs, np.frombuffer(b"[{", np.uint8)).astype(np.int8)
    steps -= np.isin(signs, np.frombuffer(b"]}", np.uint8))
    if steps.cumsum(dtype=np.int64).max(initial=0) > MOST_DEPTH:
        raise error(f"{file}: more than {MOST_DEPTH} levels of lists and objects", file)
