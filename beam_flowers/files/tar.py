"""Members of a tar file, found without unpacking it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

_BLOCK = 512
_LARGEST_HEADER = 1 << 20
"""Of names and attributes that do not fit into a block; tarfile reads them in one piece."""
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
    """Why the rest of a file cannot be used."""


class Member(NamedTuple):
    """One file in a tar.

    Attributes:
        name: with `/`, without `./` before it.
        offset: of its content, in bytes.
        size: likewise.
        modified: in microseconds since the epoch.
        link: what a hard link is another name of; "?" for what holds no content of its own.
    """

    name: str
    offset: int
    size: int
    modified: int
    link: str | None = None

    @property
    def span(self) -> tuple[int, ...]:
        """Returns all that `read` needs."""
        return self.offset, self.size

    @property
    def refusal(self) -> tuple[str, str] | None:
        """Returns class and message of the reject that the member is, or None."""
        if self.link is None:
            return None
        return "NotARegularFile", "a link, a device or a file with holes"


class _Header(tarfile.TarInfo):
    """Refuses sizes that no header has; tarfile reads all of the file for a negative one."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _EXTENDED and self.size > _LARGEST_HEADER):
            raise Damaged(f"it is damaged: {self.name!r} says that it has {self.size} bytes")
        found: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return found


def is_one(data: bytes) -> bool:
    """Tells if a file that is called a tar begins as one, packed or not."""
    return data[257:262] == b"ustar" or data.startswith(tuple(_COMPRESSED))


def refuse_compressed(file: BinaryIO) -> None:
    """Raises Damaged for a compressed file; the file stands at its beginning again."""
    start = file.read(8)
    file.seek(0)
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            raise Damaged(
                f"it is compressed with {name}, so that no picture in it can be read by itself; "
                "unpack it, or make it a plain .tar or a .zip"
            )


def scan(file: BinaryIO, size: int) -> Iterator[Member]:
    """The members that are whole, in their order.

    Args:
        file: a tar, seekable.
        size: its bytes.

    Raises:
        Damaged: after the last one, if it ends too early or is no tar from there on.
    """
    refuse_compressed(file)
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", tarinfo=_Header) as archive:
            while (found := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # It would keep them all.
                # Attributes behind a header may give it another size.
                if found.size < 0 or archive.offset <= found.offset:
                    raise Damaged(f"it is damaged: {found.name!r} ends before it begins")
                if found.offset_data + _stored(found) > size:
                    raise Damaged(f"it is cut short within {found.name!r}")
                if not found.isdir():
                    yield _member(found)
            _require_end(file, archive.offset, size)
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise Damaged(f"it is no tar, or is cut short: {error}") from error


def _stored(found: tarfile.TarInfo) -> int:
    return found.size if found.isreg() and not found.issparse() else 0


def _member(found: tarfile.TarInfo) -> Member:
    link = None
    if found.islnk():
        link = plain_name(found.linkname)
    elif not found.isreg() or found.issparse():
        link = "?"
    modified = int(found.mtime * 1_000_000)
    # One that no file can have is unknown; then the tar's own counts.
    modified = modified if 0 <= modified < 2**63 else 0
    return Member(plain_name(found.name), found.offset_data, found.size, modified, link)


def plain_name(name: str) -> str:
    """Takes `./` and `/` off the beginning of a member's name."""
    while name.startswith("./"):
        name = name[2:].lstrip("/")
    return name.lstrip("/")


def _require_end(file: BinaryIO, offset: int, size: int) -> None:
    """A tar ends with blocks of zeros; tarfile takes whatever it does not know for an end."""
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
    """By name, hard links as what they lead to, and why there may be more.

    Of two members of one name the later counts, as where a tar is unpacked.
    """
    found: dict[str, Member] = {}
    problem = None
    try:
        for member in scan(file, size):
            target = found.get(member.link) if member.link else None
            if target:
                member = member._replace(offset=target.offset, size=target.size, link=target.link)
            found.pop(member.name, None)
            found[member.name] = member
    except Damaged as damage:
        problem = str(damage)
    return found, problem


def places(file: BinaryIO, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields name and span of each member that has content."""
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
