"""Parts: immutable Parquet files, written whole under a name that follows from the content."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, BinaryIO, Protocol, cast

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_flowers import files
from beam_flowers.errors import PartDamagedError, PartLostError, StoreError, StoreFieldError
from beam_flowers.files.parquet import unpacked_too_far
from beam_flowers.files.typed import Count
from beam_flowers.records import NOT_AN_IMAGE, Bottleneck, Reject
from beam_flowers.store.names import (
    DAMAGED,
    REJECTS,
    RETIRED,
    WORK,
    is_digest,
    is_part,
    writer_of,
)
from beam_flowers.store.part_check import odd_schema, odd_values
from beam_flowers.store.schema import (
    encoding_of,
    etags_of,
    rejects_digest,
    rejects_table,
    with_etags,
)

_REJECTS_PREFIX = "rejects-"
_BLOCK = 1 << 20
_TOLD = 200
"""Characters of a foreign value that an error shows."""


def holds_rejects(name: str) -> bool:
    """Whether a part of that name holds rejects, not rows."""
    return name.startswith(_REJECTS_PREFIX)


class RowKind(Protocol):
    """What a table's rows are: the store's, or a score table's."""

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns that say which file a row is of, in this table."""

    @property
    def rows_each(self) -> int:
        """Rows of one file; they stand together."""

    def table(self, bottlenecks: Sequence[Bottleneck]) -> pa.Table: ...
    def derived(self, rows: pa.Table) -> pa.Table: ...
    def digest(self, rows: pa.Table) -> int: ...
    def partitions(self, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """The rows by the folder, below the section's, that they belong into."""


class Digests(Protocol):
    """Rows that can be compared with what a manifest says of them."""

    def digest(self, rows: pa.Table) -> int: ...


@dataclass(frozen=True)
class RejectRows:
    """The rows of a reject table."""

    identity = ("uri", "root", "relative_path", "label", "split", "bytes", "modified")
    rows_each = 1

    def table(self, rejects: Sequence[Reject]) -> pa.Table:
        return rejects_table(rejects)

    def derived(self, rows: pa.Table) -> pa.Table:
        return rows

    def digest(self, rows: pa.Table) -> int:
        return rejects_digest(rows)


@dataclass(frozen=True)
class Part:
    """One file of a table.

    Attributes:
        name: file name, `part-<hash>.parquet` or `rejects-<hash>.parquet`; below a partition's
            folder where the table has such.
        rows: number of rows.
        digest: sum of the rows' digests, hex.
        failures: rejects that count as failures (a file that is no image does not).
        bytes: size of the file; None for a part that was described before layout 3.
        sha256: of the file's bytes, hex; None likewise.
    """

    name: str
    rows: int
    digest: str
    failures: int = 0
    bytes: int | None = None
    sha256: str | None = None

    @property
    def is_rejects(self) -> bool:
        return holds_rejects(self.name)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


class PartFields(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Types of the fields of a `Part` in a file that may come from anybody."""

    name: str
    rows: Count
    digest: str
    failures: Count = 0
    bytes: Count | None = None
    sha256: str | None = None


def checked_parts(found: Sequence[PartFields], file: str, where: str) -> tuple[Part, ...]:
    """Check parts from a file: a name becomes a path, a digest a number.

    Args:
        found: the parts.
        file: address, for errors.
        where: place of the list in the file.

    Raises:
        StoreFieldError: one has not the form of our own.
    """
    for index, part in enumerate(found):
        if not is_part(part.name):
            raise foreign(file, f"{where}[{index}].name", part.name)
        if not is_digest(part.digest):
            raise foreign(file, f"{where}[{index}].digest", part.digest)
        if part.sha256 is not None and not is_digest(part.sha256):
            raise foreign(file, f"{where}[{index}].sha256", part.sha256)
    return tuple(Part(p.name, p.rows, p.digest, p.failures, p.bytes, p.sha256) for p in found)


def foreign(file: str, field: str, value: object) -> StoreFieldError:
    """Make the error about a field that no version of this program has written so."""
    told = repr(value)
    told = told if len(told) <= _TOLD else f"{told[:_TOLD]}..."
    return StoreFieldError(
        f"{file}: {field} is {told}, which this program never writes. Nothing was touched. Use "
        "this table only if you know who made it; otherwise delete it",
        file,
        field,
    )


@dataclass(frozen=True)
class Place:
    """Where one section of a table lies.

    Attributes:
        root: the table's folder.
        section: folder below it, `backbone=<name>-<fp8>`; empty for a table without sections.
        fingerprint: of what computes the rows; unfinished work of another is never taken up.
        run: id of the run that writes, 16 hex digits. The names of its parts have it, so that a
            name that was once removed never comes back, and tells the folder of the part.
    """

    root: str
    section: str
    fingerprint: str
    run: str = ""

    def published(self, name: str) -> str:
        """Where a plain reader finds the part."""
        if holds_rejects(name):
            return files.join(self.root, REJECTS, *self._folders, name)
        return files.join(self.root, *self._folders, name)

    @property
    def _folders(self) -> tuple[str, ...]:
        return (self.section,) if self.section else ()

    def work(self, name: str) -> str:
        """Returns the address of the part before it is published, in the folder of its run."""
        return files.join(replace(self, run=writer_of(name)).work_folder, name)

    @property
    def work_folder(self) -> str:
        """Returns the folder of the run's parts; without a run, of those before layout 4."""
        folders = (f"run-{self.run}",) if self.run else ()
        return files.join(self.root, WORK, *folders, self.fingerprint[:16])

    def retired(self, name: str) -> str:
        """Returns the address where older versions find the part once it was replaced."""
        return files.join(self.root, RETIRED, *self._folders, f"{name}.retired")

    def damaged(self, name: str) -> str:
        """Returns the address for a damaged part; its ending keeps globs for Parquet from it."""
        return files.join(self.root, DAMAGED, *self._folders, f"{name}.damaged")

    def run_file(self, name: str = "") -> str:
        """A file of this run's own."""
        return files.join(self.root, WORK, f"run-{self.run}", name)

    def locate(self, name: str) -> str:
        """Returns the address where the part lies now; if it is nowhere, of unfinished work."""
        found = (uri for uri in self.addresses(name) if files.exists(uri))
        return next(found, self.work(name))

    def addresses(self, name: str) -> tuple[str, ...]:
        """Returns the addresses where the part may lie, in the order to look.

        A publisher may move it from `__work` while the first two are looked at, and retire it
        after that: so the published address comes twice, and the retired one last.
        """
        published = self.published(name)
        return published, self.work(name), published, self.retired(name)


def located(source: str, places: Sequence[Place]) -> tuple[Place, str]:
    """Returns the place and the name of a part given as `<index in places>/<name>`."""
    index, _, name = source.partition("/")
    return places[int(index)], name


def write_parts(place: Place, kind: RowKind, rows: pa.Table) -> tuple[Part, ...]:
    """Writes `rows` below `__work`, one part for each of the kind's partitions."""
    return tuple(
        write_part(place, kind, some, folder) for folder, some in kind.partitions(rows) if len(some)
    )


def write_part(place: Place, kind: RowKind | RejectRows, rows: pa.Table, folder: str = "") -> Part:
    """Writes `rows` below `__work`, in `folder` there, whole or not at all.

    Writing the same rows again in one run writes the same file: a retried bundle is harmless.
    """
    data = encode(rows)
    content = hashlib.sha256(data)
    is_rejects = isinstance(kind, RejectRows)
    failures = pc.sum(pc.not_equal(rows["error_class"], NOT_AN_IMAGE)).as_py() if is_rejects else 0
    part = Part(
        _name(place, content, is_rejects, folder),
        len(rows),
        f"{kind.digest(rows):064x}",
        failures or 0,
        len(data),
        content.hexdigest(),
    )
    files.write_atomic(place.work(part.name), data)
    return part


def copy_part(place: Place, part: Part) -> Part:
    """Writes a part again under a name of this run.

    Raises:
        PartLostError: it is nowhere.
        PartDamagedError: it is another file.
    """
    data = _read_bytes(place, part)
    folder = files.parent(part.name) if "/" in part.name else ""
    name = _name(place, hashlib.sha256(data), part.is_rejects, folder)
    files.write_atomic(place.work(name), data)
    return replace(part, name=name)


def _name(place: Place, content: hashlib._Hash, is_rejects: bool, folder: str) -> str:
    """Returns the name of a part that this run writes, by the sha256 of its bytes."""
    prefix = _REJECTS_PREFIX if is_rejects else "part-"
    name = f"{prefix}{place.run}-{content.hexdigest()[:16]}.parquet"
    return files.join(folder, name) if folder else name


def encode(rows: pa.Table) -> bytes:
    """`rows` as a Parquet file, its vectors by the encoding that the schema names."""
    if etags := etags_of(rows.schema):  # Of rows that were taken out as well.
        kept = {uri: etags.get(uri) for uri in rows["uri"].to_pylist()}
        rows = with_etags(rows, kept)
    sink = pa.BufferOutputStream()
    has_vector = "vector" in rows.schema.names
    splits = has_vector and encoding_of(rows.schema) == "split"
    plain = [name for name in rows.schema.names if name != "vector"]
    pq.write_table(
        rows,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=plain if has_vector else True,
        use_byte_stream_split=["vector.list.element"] if splits else False,
        # A flipped bit is an error of the reader then, and no other vector.
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


@contextmanager
def open_part(
    place: Place, part: Part | str, wanted: Sequence[str] = ()
) -> Iterator[pq.ParquetFile]:
    """The part, wherever it lies now, its footer read and compared with what we write.

    Args:
        place: of the section.
        part: as the manifest describes it, or its name where none does.
        wanted: columns that it has to have, beside those that all parts of its kind have.

    Raises:
        PartLostError: it is nowhere.
        PartDamagedError: it cannot be read as it was written; also from what the part is asked
            for inside of the `with`.
    """
    name = part if isinstance(part, str) else part.name
    with _open(place, name) as file, _damage_named(place, name):
        yield _checked(place, part, file, wanted)


def _checked(
    place: Place, part: Part | str, file: Any, wanted: Sequence[str] = ()
) -> pq.ParquetFile:
    """Opens the file of a part.

    Raises:
        PartDamagedError: it is none that we write, or another one than the manifest says.
    """
    name = part if isinstance(part, str) else part.name
    opened = pq.ParquetFile(
        file, pre_buffer=not files.is_local(place.root), page_checksum_verification=True
    )
    rows = opened.metadata.num_rows
    reason = odd_schema(opened.schema_arrow, place.section, holds_rejects(name), wanted)
    reason = reason or unpacked_too_far(file)
    if isinstance(part, Part) and rows != part.rows:
        reason = reason or f"it has {rows} rows, its manifest says {part.rows}"
    if reason:
        raise damage(place, name, reason)
    return opened


def _sound(place: Place, name: str, rows: pa.Table) -> pa.Table:
    """Returns rows if their values can be ours.

    Raises:
        PartDamagedError: they cannot.
    """
    if reason := odd_values(rows):
        raise damage(place, name, reason)
    return rows


@contextmanager
def _damage_named(place: Place, name: str) -> Iterator[None]:
    """Names the part in what Arrow says of its bytes."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        # A disk's or a server's errors have a number, Arrow's own have none.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damage(place, name, " ".join(str(error).split())) from error


def damage(place: Place, name: str, reason: str) -> PartDamagedError:
    """The error about a part that is not as it was written."""
    return PartDamagedError(
        f"{place.locate(name)} is damaged ({reason}): embed its images again, which computes its "
        f"rows anew; `beam-flowers fsck {place.root}` looks for other damage",
        place.root,
        name,
    )


def read_checked(place: Place, part: Part, kind: Digests | None) -> pa.Table:
    """Reads a part whose rows are to be copied, if its bytes are those that were written.

    Checksums of pages leave out the footer, so the whole file is compared with what the manifest
    says of it: by its sha256, or of parts described before layout 3 by the digest of the rows.

    Args:
        place: of the section.
        part: as the manifest describes it.
        kind: of the rows; None where they cannot be digested.

    Raises:
        PartLostError: it is nowhere.
        PartDamagedError: it is another file.
    """
    rows = _rows_in(place, part, _read_bytes(place, part))
    if part.sha256 is None and kind and f"{kind.digest(rows):064x}" != part.digest:
        raise damage(place, part.name, "its rows are not those of the manifest")
    return rows


def _read_bytes(place: Place, part: Part) -> bytes:
    with _open(place, part.name) as file:
        data = file.read()
    if part.sha256 is not None and hashlib.sha256(data).hexdigest() != part.sha256:
        raise damage(place, part.name, "its sha256 is not that of the manifest")
    return data


def _open(place: Place, name: str) -> BinaryIO:
    file = _open_now(place, name)
    # On this machine an open file stays, whatever becomes of its name.
    if files.is_local(place.root):
        return file
    return cast(BinaryIO, io.BufferedReader(_Steady(place, name, file), _BLOCK))


def _open_now(place: Place, name: str) -> BinaryIO:
    """Opens the file of a part, wherever it lies now.

    Raises:
        PartLostError: it is nowhere.
    """
    for uri in place.addresses(name):
        try:
            return files.open_read(uri)
        except FileNotFoundError:
            continue  # Not asked again: it may have come since, and the order finds it then.
        except OSError:
            if files.exists(uri):
                raise
    raise PartLostError(
        f"{place.published(name)} is gone: deleted, or no version needs it any more; run this "
        "again, and if that does not help, the command that wrote it, which makes its rows anew"
    )


class _Steady(io.RawIOBase):
    """A part in an object store; if it is retired while it is read, reading goes on in the copy."""

    def __init__(self, place: Place, name: str, file: BinaryIO) -> None:
        self._place = place
        self._name = name
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        position = self._file.tell()
        try:
            data = self._file.read(len(buffer))
        except FileNotFoundError:
            self._file = _open_now(self._place, self._name)
            self._file.seek(position)
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def read_part(place: Place, part: Part | str, columns: Sequence[str] | None = None) -> pa.Table:
    """The part's rows, wherever it lies now."""
    name = part if isinstance(part, str) else part.name
    with open_part(place, part, columns or ()) as opened:
        return _sound(place, name, opened.read(list(columns) if columns else None))


def encoded_otherwise(place: Place, names: Iterable[str], encoding: str) -> Iterator[str]:
    """Those of the parts of rows whose vectors lie in another encoding, by their footers."""
    for name in names:
        with open_part(place, name) as part:
            if not holds_rejects(name) and encoding_of(part.schema_arrow) != encoding:
                yield name


def iterate_part(
    place: Place, part: Part | str, columns: Sequence[str], rows: int = 65_536
) -> Iterator[pa.Table]:
    """The part's rows, so many at a time; columns that the part lacks are left out."""
    name = part if isinstance(part, str) else part.name
    with open_part(place, part) as opened:
        present = [c for c in columns if c in opened.schema_arrow.names]
        for batch in opened.iter_batches(rows, columns=present):
            yield _sound(place, name, pa.Table.from_batches([batch]))


def work_parts(place: Place) -> list[str]:
    """Lists the names of the parts that the run has finished and nobody has published, sorted."""
    folder = place.work_folder
    if not files.is_folder(folder):
        return []
    found = (files.relative(entry.uri, folder) for entry in files.walk(folder))
    return sorted(name for name in found if is_part(name))


def _rows_in(place: Place, part: Part | str, data: bytes) -> pa.Table:
    name = part if isinstance(part, str) else part.name
    with _damage_named(place, name):
        file = _checked(place, part, pa.BufferReader(data))
        # A process that ends right after Arrow's threads have read is aborted now and then on a
        # busy machine ("terminate called without an active exception", 8 of 1,000 runs, pyarrow
        # 25).
        return _sound(place, name, file.read(use_threads=False))


def describe_part(place: Place, name: str, kind: RowKind) -> Part:
    """The `Part` of a file that is not described by any commit."""
    with _open(place, name) as file:
        data = file.read()
    rows = _rows_in(place, name, data)
    written = (len(data), hashlib.sha256(data).hexdigest())
    if holds_rejects(name):
        failures = sum(c != NOT_AN_IMAGE for c in rows["error_class"].to_pylist())
        return Part(name, len(rows), f"{rejects_digest(rows):064x}", failures, *written)
    return Part(name, len(rows), f"{kind.digest(rows):064x}", 0, *written)


def derive(source: pa.Table, images: pa.Table, key: str, kind: RowKind | RejectRows) -> pa.Table:
    """Rows of `source` under other identities: kept, relabelled, moved or copied files.

    Args:
        source: a part's rows.
        images: `IMAGE_SCHEMA`; one file each, in this order.
        key: column that finds the source row, `uri` or `sha256`.
        kind: of the rows.
    """
    places = find_rows(source, images[key], key)
    if kind.rows_each > 1:
        images = images.take(np.arange(len(images)).repeat(kind.rows_each))
        places = np.add.outer(places, np.arange(kind.rows_each)).ravel()
    return identified(source.take(places), images, kind)


def identified(rows: pa.Table, images: pa.Table, kind: RowKind | RejectRows) -> pa.Table:
    """`rows` as those of `images`, which has as many."""
    for name in kind.identity:
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(index), images[name])
    etags = zip(images["uri"].to_pylist(), images["etag"].to_pylist(), strict=True)
    return with_etags(kind.derived(rows), dict(etags))


def find_rows(source: pa.Table, keys: pa.ChunkedArray, key: str) -> npt.NDArray[np.int64]:
    """For each of `keys` the first row of `source` whose column `key` holds it.

    Raises:
        StoreError: one is not there.
    """
    found = pc.index_in(keys, value_set=source[key].combine_chunks())
    if found.null_count:
        absent = keys.filter(pc.is_null(found))[0].as_py()
        raise StoreError(f"a part has no row with {key} {absent!r} any more; run this again")
    return found.to_numpy().astype(np.int64)
