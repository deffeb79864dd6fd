"""Recognises camera raw files that are laid out as TIFF, of which Pillow reads a thumbnail."""

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
"""How much is looked at: real files have some hundred entries and three directories."""


class _Form(NamedTuple):
    """How numbers are laid out in a TIFF or a BigTIFF.

    Attributes:
        order: `<` or `>`.
        entries: struct's letter for the number of entries.
        entry: likewise for tag, type, number of values and the four or eight bytes of a value.
        offset: likewise for a place in the file.
    """

    order: str
    entries: str
    entry: str
    offset: str


def camera_raw(data: bytes) -> str | None:
    """Returns the kind of camera raw that a TIFF is, such as `NEF`, or None if it is a picture.

    It is camera raw if one of its first directories describes a sensor's data, or if it says
    that it is a DNG and begins with a thumbnail. Programs copy the tags of a DNG into pictures
    made of it; these are no thumbnails.

    Args:
        data: the whole file; its first four bytes are those of a TIFF.
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
    return next((kind for name, kind in _MAKERS.items() if maker.startswith(name)), "unknown kind")


def _directories(data: bytes) -> Iterator[dict[int, int | str]]:
    """Tags of the first directory, of those below it and behind it."""
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
        except struct.error:  # Behind the end of the file: Pillow's to tell.
            continue
        yield tags
        waiting += more


def _directory(data: bytes, at: int, form: _Form) -> tuple[dict[int, int | str], list[int]]:
    """The tags that tell a raw file, and where the directories below and behind this one lie."""
    order, entry = form.order, struct.Struct(form.order + form.entry)
    (count,) = struct.unpack_from(order + form.entries, data, at)
    at += struct.calcsize(order + form.entries)
    tags: dict[int, int | str] = {}
    more: list[int] = []
    for n in range(min(count, _MOST_ENTRIES)):
        tag, type_, values, content = entry.unpack_from(data, at + n * entry.size)
        place = struct.unpack(order + form.offset, content)[0]
        if tag == _MAKE:
            tags[tag] = data[place : place + 20].decode("ascii", "replace").upper()
        elif tag == _BELOW:
            letters = f"{order}{min(values, _MOST_DIRECTORIES)}{form.offset}"
            inline = values * struct.calcsize(form.offset) <= len(content)
            more += [place] if inline else struct.unpack_from(letters, data, place)
        elif tag in (_SUBFILE, _COMPRESSION, _PHOTOMETRIC, _DNG):
            tags[tag] = struct.unpack_from(order + ("H" if type_ == 3 else "I"), content)[0]
    if count <= _MOST_ENTRIES:
        more += struct.unpack_from(order + form.offset, data, at + count * entry.size)
    return tags, [place for place in more if place]
