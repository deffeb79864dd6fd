"""Recognises camera raw files in the layout of TIFF, of which Pillow reads only a thumbnail."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_SUBFILE, _COMPRESSION, _PHOTOMETRIC, _MAKE, _BELOW, _DNG = 254, 259, 262, 271, 330, 50706

_SENSOR = (32803, 34892)
"""Values of PhotometricInterpretation: colour filter array, linear raw (TIFF/EP, DNG)."""
_OF_CAMERAS = (32767, 32769, 32770, 34713, 65000, 65535)
"""Values of Compression: Sony, packed raw, Samsung, Nikon, Kodak, Pentax."""

_MAKERS = {
    "NIKON": "NEF",
    "SONY": "ARW",
    "PENTAX": "PEF",
    "RICOH": "PEF",
    "SAMSUNG": "SRW",
    "HASSELBLAD": "3FR",
    "SEIKO EPSON": "ERF",
    "KODAK": "DCR",
    "EASTMAN KODAK": "DCR",
    "MAMIYA": "MEF",
    "LEAF": "MOS",
    "PHASE ONE": "IIQ",
}

_MOST_ENTRIES, _MOST_DIRECTORIES = 1_000, 8
"""Bounds of the search: real files have some hundred entries and three directories."""


class _Form(NamedTuple):
    """Holds the layout of numbers in a TIFF or a BigTIFF.

    Attributes:
        order: byte order, `<` or `>`.
        entries: struct's letter for the number of entries.
        entry: struct's letters for tag, type, number of values and the bytes of a value.
        offset: struct's letter for an offset in the file.
    """

    order: str
    entries: str
    entry: str
    offset: str


def camera_raw(data: bytes) -> str | None:
    """Returns the camera raw format of a TIFF, such as `NEF`, or None for an image.

    A file is camera raw if one of its first directories describes a sensor's data, or if it has
    the tag of DNG and begins with a thumbnail. Programs copy the tags of a DNG into images made
    from it, which do not begin with a thumbnail.

    Args:
        data: the whole file, which begins with the four bytes of a TIFF.
    """
    if data[8:12] in (b"IIII", b"MMMM"):
        return "IIQ"
    directories = list(_directories(data))
    has_sensor = any(
        d.get(_PHOTOMETRIC, b"") in _SENSOR or d.get(_COMPRESSION, b"") in _OF_CAMERAS
        for d in directories
    )
    main = directories[0] if directories else {}
    if _DNG in main and (has_sensor or main.get(_SUBFILE) == 1):
        return "DNG"
    if not has_sensor:
        return None
    maker = str(main.get(_MAKE, ""))
    return next((raw for name, raw in _MAKERS.items() if maker.startswith(name)), "unknown kind")


def _directories(data: bytes) -> Iterator[dict[int, int | str]]:
    """Yields the tags of the first directory, and of those below and after it."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in data[2:4]
    form = _Form(order, "Q", "HHQ8s", "Q") if is_big else _Form(order, "H", "HHI4s", "I")
    head = data.ljust(16, b"\0")
    waiting = list(struct.unpack_from(order + form.offset, head, 8 if is_big else 4))
    for _ in range(_MOST_DIRECTORIES):
        if not waiting:
            return
        try:
            tags, more = _directory(data, waiting.pop(0), form)
        except struct.error:  # It is behind the end of the file, which Pillow reports.
            continue
        yield tags
        waiting += more


def _directory(data: bytes, at: int, form: _Form) -> tuple[dict[int, int | str], list[int]]:
    """Returns the tags that identify raw files, and the offsets of further directories."""
    order, entry = form.order, struct.Struct(form.order + form.entry)
    (count,) = struct.unpack_from(order + form.entries, data, at)
    at += struct.calcsize(order + form.entries)
    tags: dict[int, int | str] = {}
    more: list[int] = []
    for n in range(min(count, _MOST_ENTRIES)):
        tag, type_, values, content = entry.unpack_from(data, at + n * entry.size)
        offset = struct.unpack(order + form.offset, content)[0]
        if tag == _MAKE:
            tags[tag] = data[offset : offset + 20].decode("ascii", "replace").upper()
        elif tag == _BELOW:
            letters = f"{order}{min(values, _MOST_DIRECTORIES)}{form.offset}"
            inline = values * struct.calcsize(form.offset) <= len(content)
            more += [offset] if inline else struct.unpack_from(letters, data, offset)
        elif tag in (_SUBFILE, _COMPRESSION, _PHOTOMETRIC, _DNG):
            tags[tag] = struct.unpack_from(order + ("H" if type_ == 3 else "I"), content)[0]
    if count <= _MOST_ENTRIES:
        more += struct.unpack_from(order + form.offset, data, at + count * entry.size)
    return tags, [offset for offset in more if offset]
