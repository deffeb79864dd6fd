"""Checks a PNG's chunks as libpng does, before Pillow opens the file."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from beam_flowers.errors import ImageError

_SIGNATURE_BYTES = 8
_NAME = re.compile(rb"\w{4}")
"""Names of chunks that Pillow accepts."""
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


class _Chunk(NamedTuple):
    """Holds one chunk.

    Attributes:
        name: four letters; a small first letter marks a chunk that readers may skip.
        content: all bytes of the chunk, from its length to its checksum.
        is_sound: False if the checksum differs. True if the file ends before the checksum.
    """

    name: bytes
    content: bytes
    is_sound: bool


def without_damaged_texts(file: BinaryIO) -> bytes | None:
    """Returns the file without ancillary chunks of wrong checksums, None if all are right.

    Pillow refuses an image for one wrong bit in a text, and never compares the checksums of the
    pixels. libpng, and so every browser, discards such texts. One damaged chunk of an animation
    drops all of its chunks: the still image remains, which is the one that is decoded.

    Raises:
        ImageError: `Undecodable` if a critical chunk (header, palette, pixels) has a wrong
            checksum, or if the header is not the first chunk or comes twice: Pillow would take
            the size of the last.
    """
    is_damaged = is_animation_damaged = False
    for n, (name, _, is_sound) in enumerate(_chunks(file)):
        if (name == b"IHDR") != (n == 0):
            raise ImageError("Undecodable", "PNG cannot be decoded: its header is not the first")
        if is_sound:
            continue
        if name[:1].isupper():
            raise ImageError(
                "Undecodable", f"PNG cannot be decoded: wrong checksum in {name.decode('ascii')}"
            )
        is_damaged = True
        is_animation_damaged |= name in _ANIMATION
    if not is_damaged:
        return None
    file.seek(0)
    kept = bytearray(file.read(_SIGNATURE_BYTES))
    for name, content, is_sound in _chunks(file):
        if is_sound and not (is_animation_damaged and name in _ANIMATION):
            kept += content
    return bytes(kept + file.read())


def _chunks(file: BinaryIO) -> Iterator[_Chunk]:
    """Yields the chunks up to IEND or the first incomplete one, which Pillow reports."""
    file.seek(_SIGNATURE_BYTES)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        is_name = _NAME.fullmatch(name)
        body = file.read(length) if is_name else b""
        if len(body) < length or not is_name:
            file.seek(-len(head) - len(body), 1)
            return
        checksum = file.read(4)
        computed = zlib.crc32(body, zlib.crc32(name))
        # The end of a file holds no data that could be damaged.
        is_sound = (
            name == b"IEND" or len(checksum) < 4 or int.from_bytes(checksum, "big") == computed
        )
        yield _Chunk(name, head + body + checksum, is_sound)
        if name == b"IEND":
            return
