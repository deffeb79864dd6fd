"""Finds and reads the members of a tar without unpacking it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_BLOCK = 512
_LARGEST_HEADER = 1 << 20
"""Bytes of names and attributes that do not fit into a block; tarfile reads them at once."""
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x1f\x9d": "compress",
}


class Damaged(Exception):
    """Reports why the rest of a file cannot be used."""


class Member(NamedTuple):
    """Describes one file in a tar.

    Attributes:
        name: path with `/`, without `./` before it.
        offset: byte in the tar at which its content begins.
        size: bytes of its content.
        modified: last change in microseconds since the epoch.
        link: name of the member that a hard link leads to; "?" for other members without content.
    """

    name: str
    offset: int
    size: int
    modified: int
    link: str | None = None

    @property
    def span(self) -> tuple[int, ...]:
        """Returns the numbers by which `read` finds the member."""
        return self.offset, self.size

    @property
    def refusal(self) -> tuple[str, str] | None:
        """Returns class and message of the member's reject, or None if it can be read."""
        if self.link is None:
            return None
        return "NotARegularFile", "a link, a device or a file with holes"


class _Header(tarfile.TarInfo):
    """Refuses impossible sizes; tarfile reads the whole file for a negative one."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _EXTENDED and self.size > _LARGEST_HEADER):
            raise Damaged(f"it is damaged: {self.name!r} says that it has {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def is_one(data: bytes) -> bool:
    """Tells if a file whose name ends as a tar's begins as one, compressed or not."""
    return data[257:262] == b"ustar" or data.startswith(tuple(_COMPRESSED))


def refuse_compressed(file: BinaryIO) -> None:
    """Raises Damaged for a compressed file; leaves the file at its beginning."""
    start = file.read(8)
    file.seek(0)
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise Damaged(
                f"it is compressed with {name}, so that no image in it can be read by itself; "
                "unpack it, or make it a plain .tar or a .zip"
            )


def scan(file: BinaryIO, size: int) -> Iterator[Member]:
    """Yields the complete members in their order.

    Args:
        file: a tar, seekable.
        size: bytes of the tar.

    Raises:
        Damaged: after the last member, if the tar ends too early or is damaged from there on.
    """
    refuse_compressed(file)
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", tarinfo=_Header) as archive:
            while (header := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # It would keep them all.
                # Attributes behind a header may give it another size.
                if header.size < 0 or archive.offset <= header.offset:
                    raise Damaged(f"it is damaged: {header.name!r} ends before it begins")
                stored = header.size if header.isreg() and not header.issparse() else 0
                if header.offset_data + stored > size:
                    raise Damaged(f"it is cut short within {header.name!r}")
                if not header.isdir():
                    yield _member(header)
            _require_end(file, archive.offset, size)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise Damaged(f"it is no tar, or is cut short: {error}") from error


def _member(header: tarfile.TarInfo) -> Member:
    link = None
    if header.islnk():
        link = plain_name(header.linkname)
    elif not header.isreg() or header.issparse():
        link = "?"
    modified = int(header.mtime * 1_000_000)
    # An impossible time counts as unknown: the time of the tar replaces 0.
    modified = modified if 0 <= modified < 2**63 else 0
    return Member(plain_name(header.name), header.offset_data, header.size, modified, link)


def plain_name(name: str) -> str:
    """Takes `./` and `/` off the beginning of a member's name."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name.lstrip("/")


def _require_end(file: BinaryIO, offset: int, size: int) -> None:
    """Checks that a tar ends with blocks of zeros; tarfile takes any unknown block for an end."""
    file.seek(offset)
    rest = file.read(_BLOCK)
    if len(rest) < _BLOCK:
        raise Damaged(f"it is cut short: it ends after {size} bytes without the mark of the end")
    if any(rest):
        raise Damaged(f"it is damaged from byte {offset} on")
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise Damaged("there is more behind its end: tars put together are read one by one")


def members(file: BinaryIO, size: int) -> tuple[dict[str, Member], str | None]:
    """Returns the members by name, and why the list may be incomplete.

    A hard link has the place of its target. The later of two equal names counts, as when a tar is
    unpacked.
    """
    by_name: dict[str, Member] = {}
    problem = None
    try:
        for member in scan(file, size):
            target = by_name.get(member.link) if member.link else None
            if target:
                member = member._replace(offset=target.offset, size=target.size, link=target.link)
            by_name.pop(member.name, None)
            by_name[member.name] = member
    except Damaged as damage:
        problem = str(damage)
    return by_name, problem


def places(file: BinaryIO, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields name and span of each member with content."""
    for member in members(file, size)[0].values():
        if member.link is None:
            yield member.name, member.span


def read(file: BinaryIO, span: tuple[int, ...], limit: int | None) -> bytes:
    """Reads a member, or its first `limit` bytes."""
    offset, size = span
    file.seek(offset)
    return file.read(size if limit is None else min(size, limit))


def size_of(span: tuple[int, ...]) -> int:
    """Returns the size of a member's content."""
    return span[1]
