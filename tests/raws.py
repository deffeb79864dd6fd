"""Makes camera raw files laid out as TIFF, and images that resemble them."""

from __future__ import annotations

import struct
from typing import Any

THUMBNAIL = {254: 1, 256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 277: 1, 278: 8, 279: 64}
IMAGE = {**THUMBNAIL, 254: 0}
SENSOR = {254: 0, 256: 4000, 257: 3000, 258: 14, 259: 1, 262: 32803}
LINEAR = {**SENSOR, 262: 34892}


def tiff(
    tags: dict[int, Any],
    below: tuple[dict[int, Any], ...] = (),
    *,
    order: str = "<",
    head: bytes = b"",
) -> bytes:
    """A TIFF of 8 x 8 pixels with these tags, and directories below it."""
    start = 8 + len(head)
    pixels = bytes(range(64))
    out = bytearray(pixels)
    places = []
    for directory in below:
        places.append(start + len(out))
        out += _directory(directory, start + len(out), order)
    tags = {**tags, 273: start}
    if places:
        tags[330] = places
    at = start + len(out)
    out += _directory(tags, at, order)
    return struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, at) + head + bytes(out)


def _directory(tags: dict[int, Any], at: int, order: str) -> bytes:
    """Numbers as LONG, bytes as ASCII."""
    entries, behind = b"", b""
    end = at + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        type_, content = 4, b""
        if isinstance(value, bytes):
            type_, count, content = 2, len(value), value
        else:
            values = value if isinstance(value, list) else [value]
            count, content = len(values), struct.pack(f"{order}{len(values)}I", *values)
        entries += struct.pack(f"{order}HHI", tag, type_, count)
        if len(content) > 4:
            entries += struct.pack(f"{order}I", end + len(behind))
            behind += content
        else:
            entries += content.ljust(4, b"\0")
    return struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + behind


RAWS = {
    "DNG": tiff({**THUMBNAIL, 50706: b"\1\4\0\0"}, (SENSOR,)),
    "DNG of a phone": tiff({**SENSOR, 50706: b"\1\4\0\0"}),
    "DNG linear": tiff({**THUMBNAIL, 50706: b"\1\4\0\0"}, (LINEAR,)),
    "DNG with a thumbnail only": tiff({**THUMBNAIL, 50706: b"\1\4\0\0"}),
    "NEF": tiff({**THUMBNAIL, 271: b"NIKON CORPORATION\0"}, (THUMBNAIL, SENSOR), order=">"),
    "ARW": tiff({**THUMBNAIL, 259: 6, 271: b"SONY\0\0"}, ({**SENSOR, 259: 32767},)),
    "PEF": tiff({**SENSOR, 259: 65535, 271: b"PENTAX Corporation\0"}, order=">"),
    "SRW": tiff({**THUMBNAIL, 271: b"SAMSUNG\0"}, (SENSOR,)),
    "IIQ": tiff({**IMAGE, 271: b"Phase One A/S\0"}, head=b"IIII\1\0\0\0"),
    "unknown": tiff({**IMAGE, 271: b"Nobody\0\0"}, (SENSOR,)),
    "CR2": tiff({**IMAGE, 271: b"Canon\0\0"}, head=b"CR\2\0\0\0\0\0"),
}  # fmt: skip
