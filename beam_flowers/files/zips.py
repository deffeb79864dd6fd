"""Finds the members of a zip by the list at its end, and unpacks them one by one.

Python's zipfile keeps a kilobyte for each member, accepts members that overlap, and unpacks by
libraries without a bound of memory. So the list is read here
(https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT), and zlib unpacks.
"""

from __future__ import annotations

import stat
import struct
import zlib
from array import array
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import BinaryIO, NamedTuple

import numpy as np

from beam_flowers.files.paths import MemberError
from beam_flowers.files.tar import Damaged, plain_name

_LARGEST_LIST = 1 << 29
_MOST_MEMBERS = 1 << 21
"""ImageNet's zip on Kaggle has 2.03 million. A member takes 300 bytes on the driver."""
_LARGEST_RATIO = 200
_SMALL = 1 << 20
"""Bytes of a member that may have any ratio: too few for a bomb."""
_LARGEST_WHOLE = 1 << 30
"""Bytes of the largest member that is read without a limit."""
_CHUNK = 1 << 20

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_IN_64_BITS = 0xFFFFFFFF
_IS_ENCRYPTED, _IS_UTF8 = 0x2041, 0x800

_STORED, _DEFLATED = 0, 8
_METHODS = {
    1: "shrink",
    6: "implode",
    9: "Deflate64, which Windows uses for large files",
    12: "bzip2",
    14: "LZMA",
    93: "Zstandard",
    95: "xz",
    98: "PPMd",
}
_ENCRYPTED, _LINK, _BOMB, _OVERLAPPING, _OUTSIDE = (number << 16 for number in range(1, 6))
_REFUSALS = {
    _ENCRYPTED: ("Encrypted", "it is encrypted; unpack the zip with its password"),
    _LINK: ("NotARegularFile", "a link or a device"),
    _BOMB: ("TooCompressed", f"it would unpack to more than {_LARGEST_RATIO} times its size"),
    _OVERLAPPING: ("OverlappingMember", "it begins within another member, as in a zip bomb"),
    _OUTSIDE: ("DamagedMember", "it does not lie in the file"),
}


class Member(NamedTuple):
    """Describes one file in a zip.

    Attributes:
        name: path with `/`, without `./` before it.
        offset: byte in the zip at which its local header begins.
        size: bytes of its content, by the list.
        packed: bytes of its compressed content.
        crc: checksum of its content.
        way: number of the compression method; above 65,535 the reason why it is not read.
    """

    name: str
    offset: int
    size: int
    packed: int
    crc: int
    way: int

    @property
    def modified(self) -> int:
        """Returns 0: times in zips have no time zone, so the time of the zip itself counts."""
        return 0

    @property
    def span(self) -> tuple[int, ...]:
        """Returns the numbers by which `read` finds the member."""
        return self[1:]

    @property
    def refusal(self) -> tuple[str, str] | None:
        """Returns class and message of the member's reject, or None if it can be read."""
        return _refusal(self.way)


class _List(NamedTuple):
    """Locates the list of members.

    Attributes:
        start: byte in the file at which the list begins.
        size: bytes of the list.
        entries: number of members that the list should have.
        shift: bytes before the zip itself: self-extracting zips begin as programs.
        is_64: the zip has the 64-bit form of the list's end.
    """

    start: int
    size: int
    entries: int
    shift: int
    is_64: bool


def is_one(data: bytes) -> bool:
    """Tells if a file begins as a zip does."""
    return data.startswith((b"PK\3\4", b"PK\5\6"))


def members(file: BinaryIO, size: int) -> tuple[dict[str, Member], str | None]:
    """Returns the members by name, the later of two equal ones, and why some may be missing."""
    by_name: dict[str, Member] = {}
    problem = None
    try:
        for member in scan(file, size):
            by_name[member.name] = member
    except Damaged as damage:
        problem = str(damage)
    return by_name, problem


def places(file: BinaryIO, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields name and span of each member, including those that `read` refuses."""
    with suppress(Damaged):
        for member in scan(file, size):
            yield member.name, member.span


def scan(file: BinaryIO, size: int) -> Iterator[Member]:
    """Yields the members in the order of the list, without folders.

    Members that begin within another one come a second time at the end, refused.

    Args:
        file: a zip, seekable.
        size: bytes of the zip.

    Raises:
        Damaged: after the last member, if the list is missing or breaks off.
    """
    listing = _find_list(file, size)
    starts, ends, damage = array("Q"), array("Q"), None
    try:
        for member in _entries(file, listing):
            starts.append(member.offset)
            is_inside = member.way != _OUTSIDE
            ends.append(member.offset + _LOCAL.size + member.packed if is_inside else 0)
            if not member.name.endswith("/"):
                yield member
    except Damaged as error:
        damage = error
    numbers = _overlapping(starts, ends)
    if numbers:
        for number, member in enumerate(islice(_entries(file, listing), len(starts))):
            if number in numbers and not member.refusal and not member.name.endswith("/"):
                yield member._replace(way=_OVERLAPPING)
    if damage:
        raise damage


def _overlapping(starts: array[int], ends: array[int]) -> set[int]:
    """Returns the numbers of the entries that begin before an earlier one ends."""
    order = np.argsort(np.asarray(starts), kind="stable")
    reach = np.maximum.accumulate(np.asarray(ends)[order])
    return set(order[1:][np.asarray(starts)[order[1:]] < reach[:-1]].tolist())


def _find_list(file: BinaryIO, size: int) -> _List:
    file.seek(max(0, size - _END.size - 0xFFFF))
    tail = file.read(min(size, _END.size + 0xFFFF))
    at = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    if at < 0:
        raise Damaged("it is no zip, or is cut short: the list of its members is not at its end")
    _, disk, _, _, count, length, offset, _ = _END.unpack_from(tail, at)
    end, is_64 = max(0, size - _END.size - 0xFFFF) + at, False
    if disk not in (0, 0xFFFF):
        raise Damaged("it is one of several files that make up a zip; join them")
    locator = tail[max(0, at - _LOCATOR.size) : at]
    if locator.startswith(b"PK\6\7") and len(locator) == _LOCATOR.size:
        for end_64 in (_LOCATOR.unpack(locator)[2], end - _LOCATOR.size - _END_64.size):
            if 0 <= end_64 <= end - _LOCATOR.size - _END_64.size:
                file.seek(end_64)
                record = file.read(_END_64.size)
                if record.startswith(b"PK\6\6") and len(record) == _END_64.size:
                    *_, count, length, offset = _END_64.unpack(record)
                    end, is_64 = end_64, True
                    break
    shift = end - length - offset
    if shift < 0:
        raise Damaged("it is damaged: the list of its members would begin before the file")
    if length > _LARGEST_LIST:
        raise Damaged(
            f"the list of its members has {length} bytes, above {_LARGEST_LIST}; make several zips"
        )
    return _List(end - length, length, count, shift, is_64)


def _entries(file: BinaryIO, listing: _List) -> Iterator[Member]:
    """Yields each entry of the list."""
    file.seek(listing.start)
    data, at, left, count = b"", 0, listing.size, 0
    while left or at < len(data):
        if left and len(data) - at < _CHUNK:
            block = file.read(min(left, _CHUNK))
            left -= len(block)
            if not block:
                raise Damaged("it is cut short within the list of its members")
            data, at = data[at:] + block, 0
        if len(data) - at < _ENTRY.size or not data.startswith(b"PK\1\2", at):
            raise Damaged(f"it is damaged: the list of its members breaks off after {count}")
        _, made, _, flags, method, _, _, crc, packed, size, *lengths, _, _, mode, offset = (
            _ENTRY.unpack_from(data, at)
        )
        at += _ENTRY.size
        name, extra, _ = lengths
        if sum(lengths) > len(data) - at:
            raise Damaged(f"it is damaged: the list of its members breaks off after {count}")
        if count >= _MOST_MEMBERS:
            raise Damaged(f"it has more than {_MOST_MEMBERS} members; make several zips of it")
        if _IN_64_BITS in (size, packed, offset):
            fields = data[at + name : at + name + extra]
            size, packed, offset = _in_64_bits(fields, size, packed, offset)
        raw, at = data[at : at + name], at + sum(lengths)
        offset += listing.shift
        # Only zips from Unix (3) and macOS (19) have a file mode in this field.
        mode = stat.S_IFMT(mode >> 16) if made >> 8 in (3, 19) else 0
        way = method
        if offset + _LOCAL.size + packed > listing.start:
            # The numbers may be too large for seek() and for the index.
            way, offset, size, packed = _OUTSIDE, 0, 0, 0
        elif flags & _IS_ENCRYPTED:
            way = _ENCRYPTED
        elif mode not in (0, stat.S_IFREG):
            way = _LINK
        elif size > max(_SMALL, _LARGEST_RATIO * packed):
            way = _BOMB
        text = _decoded(raw, bool(flags & _IS_UTF8))
        yield Member(plain_name(text), offset, size, packed, crc, way)
        count += 1
    # Old programs write only the lower 16 bits of a larger number.
    if count != listing.entries and (listing.is_64 or count % 0x10000 != listing.entries):
        raise Damaged(f"it is damaged: the list of its members has {count} of {listing.entries}")


def _in_64_bits(extra: bytes, *numbers: int) -> list[int]:
    """Returns the numbers of an entry; takes those beyond 32 bits from its extra fields."""
    at = 0
    while at + 4 <= len(extra):
        field_id, length = struct.unpack_from("<2H", extra, at)
        if field_id == 1:
            field = extra[at + 4 : at + 4 + length]
            wide = iter(struct.unpack_from(f"<{len(field) // 8}Q", field))
            return [next(wide, n) if n == _IN_64_BITS else n for n in numbers]
        at += 4 + length
    return list(numbers)


def _decoded(name: bytes, is_utf8: bool) -> str:
    if is_utf8:
        return name.decode("utf-8", "surrogateescape")
    # Many programs write UTF-8 without its flag, and text in code page 437 is rarely valid UTF-8.
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437")


def _refusal(way: int) -> tuple[str, str] | None:
    if way in (_STORED, _DEFLATED):
        return None
    if way in _REFUSALS:
        return _REFUSALS[way]
    name = _METHODS.get(way, f"method {way}")
    return (
        "UnsupportedCompression",
        f"it is packed by {name}; make the zip anew with deflate, or unpack it",
    )


def read(file: BinaryIO, span: tuple[int, ...], limit: int | None) -> bytes:
    """Reads a member, or its first `limit` bytes; compares the checksum of a whole one.

    Args:
        file: the zip.
        span: numbers of `Member.span`.
        limit: bytes to read; None reads all, at most 1 GiB.

    Raises:
        MemberError: the member cannot be used.
    """
    offset, _, packed, crc, way = span
    size = size_of(span)
    if limit is None and size > _LARGEST_WHOLE:
        raise MemberError("TooLarge", f"it has {size} bytes, above {_LARGEST_WHOLE}")
    file.seek(offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise MemberError("DamagedMember", "it is not where the zip's list says")
    *_, name, extra = _LOCAL.unpack(header)
    file.seek(offset + _LOCAL.size + name + extra)
    wanted = size if limit is None else min(size, limit)
    data = file.read(min(packed, wanted)) if way == _STORED else _inflated(file, packed, wanted)
    if len(data) < wanted:
        raise MemberError("DamagedMember", f"it unpacks to {len(data)} bytes of {size}")
    if wanted == size and zlib.crc32(data) != crc:
        raise MemberError("BadChecksum", "it does not unpack to what was packed")
    return data


def size_of(span: tuple[int, ...]) -> int:
    """Returns the size of a member's content.

    Raises:
        MemberError: the member cannot be read.
    """
    _, size, _, _, way = span
    if refusal := _refusal(way):
        raise MemberError(*refusal)
    return size


def _inflated(file: BinaryIO, packed: int, most: int) -> bytes:
    inflater, pieces, held = zlib.decompressobj(-zlib.MAX_WBITS), [], 0
    while held < most and not inflater.eof:
        block = inflater.unconsumed_tail
        if not block:
            block = file.read(min(packed, _CHUNK))
            packed -= len(block)
            if not block:
                break
        try:
            pieces.append(inflater.decompress(block, most - held))
        except zlib.error as error:
            raise MemberError("DamagedMember", f"it cannot be unpacked: {error}") from error
        held += len(pieces[-1])
    return b"".join(pieces)
