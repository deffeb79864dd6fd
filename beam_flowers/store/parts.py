"""Writes, reads and checks parts: immutable Parquet files, named by their content."""

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
from beam_flowers.files.ranges import RangedFile
from beam_flowers.files.typed import Count
from beam_flowers.records import NOT_AN_IMAGE, Embedding, Reject
from beam_flowers.store.names import (
    DAMAGED,
    REJECTS,
    RETIRED,
    WORK,
    is_digest,
    is_engine,
    is_part,
    writer_of,
)
from beam_flowers.store.schema import (
    encoding_of,
    engine_of,
    etags_of,
    odd_schema,
    odd_values,
    rejects_digest,
    rejects_table,
    with_etags,
)

_REJECTS_PREFIX = "rejects-"
_BLOCK = 1 << 20
_LONGEST_SHOWN = 200
"""Most characters of a foreign value that an error shows."""


def holds_rejects(name: str) -> bool:
    """Tells if a part of that name holds rejects, not rows."""
    return name.startswith(_REJECTS_PREFIX)


class PartKind(Protocol):
    """Kind of the rows in a part: embeddings, scores or rejects."""

    @property
    def identity(self) -> tuple[str, ...]:
        """Columns that identify the file of a row in this table."""

    @property
    def rows_each(self) -> int:
        """Number of rows for each file; they are adjacent."""

    def derived(self, rows: pa.Table) -> pa.Table: ...
    def digest(self, rows: pa.Table) -> int: ...
    def partitions(self, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """Yields (folder, rows) for each partition; the folder is below the section's."""


class RowKind(PartKind, Protocol):
    """Kind of a table's rows, without its rejects: those of a store or of a score table."""

    def table(self, embeddings: Sequence[Embedding]) -> pa.Table: ...


@dataclass(frozen=True)
class RejectRows:
    """Kind of the rows of a reject table."""

    identity = ("uri", "root", "relative_path", "label", "split", "bytes", "modified")
    rows_each = 1

    def table(self, rejects: Sequence[Reject]) -> pa.Table:
        return rejects_table(rejects)

    def derived(self, rows: pa.Table) -> pa.Table:
        return rows

    def digest(self, rows: pa.Table) -> int:
        return rejects_digest(rows)

    def partitions(self, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        yield "", rows


@dataclass(frozen=True)
class Part:
    """File of a table.

    Attributes:
        name: file name, `part-<hash>.parquet` or `rejects-<hash>.parquet`; with the folder of its
            partition in a table that has partitions.
        rows: number of rows.
        digest: sum of the rows' digests, hex.
        failures: number of rejects that are failures; files that are not images do not count.
        bytes: size of the file; None for a part described before layout 3.
        sha256: of the file's bytes, hex; None for a part described before layout 3.
        engine: library that computed its vectors, see `StoreRows.engine`; None if not known.
    """

    name: str
    rows: int
    digest: str
    failures: int = 0
    bytes: int | None = None
    sha256: str | None = None
    engine: str | None = None

    @property
    def is_rejects(self) -> bool:
        return holds_rejects(self.name)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}


class PartFields(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Types of the fields of a `Part` in a file of unknown origin."""

    name: str
    rows: Count
    digest: str
    failures: Count = 0
    bytes: Count | None = None
    sha256: str | None = None
    engine: str | None = None


def checked_parts(found: Sequence[PartFields], file: str, where: str) -> tuple[Part, ...]:
    """Checks parts that were read from a file, as their names become paths.

    Args:
        found: the parts.
        file: address of the file, for errors.
        where: field of the file that holds the parts, for errors.

    Raises:
        StoreFieldError: a name or a digest has not the form that this program writes.
    """
    for index, part in enumerate(found):
        if not is_part(part.name):
            raise foreign(file, f"{where}[{index}].name", part.name)
        if not is_digest(part.digest):
            raise foreign(file, f"{where}[{index}].digest", part.digest)
        if part.sha256 is not None and not is_digest(part.sha256):
            raise foreign(file, f"{where}[{index}].sha256", part.sha256)
        if part.engine is not None and not is_engine(part.engine):
            raise foreign(file, f"{where}[{index}].engine", part.engine)
    return tuple(
        Part(p.name, p.rows, p.digest, p.failures, p.bytes, p.sha256, p.engine) for p in found
    )


def foreign(file: str, field: str, value: object) -> StoreFieldError:
    """Returns the error about a value that no version of this program has written."""
    shown = repr(value)
    shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}..."
    return StoreFieldError(
        f"{file}: {field} is {shown}, which this program never writes. Nothing was touched. Use "
        "this table only if you know who made it; otherwise delete it",
        file,
        field,
    )


@dataclass(frozen=True)
class Place:
    """Addresses of one section of a table.

    Attributes:
        root: folder of the table.
        section: folder below `root`, `backbone=<name>-<fp8>`; empty for a table without sections.
        fingerprint: of the model and recipe that compute the rows; runs never take up unfinished
            work of another fingerprint.
        run: id of the run that writes, 16 hex digits. It is part of its parts' names, so that a
            removed name never comes back, and a name tells the run's folder.
    """

    root: str
    section: str
    fingerprint: str
    run: str = ""

    def published(self, name: str) -> str:
        """Returns the address where plain readers find the part."""
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
        """Folder of the run's parts; without a run, that of parts before layout 4."""
        folders = (f"run-{self.run}",) if self.run else ()
        return files.join(self.root, WORK, *folders, self.fingerprint[:16])

    def retired(self, name: str) -> str:
        """Returns the address where older versions find the part after it was replaced."""
        return files.join(self.root, RETIRED, *self._folders, f"{name}.retired")

    def damaged(self, name: str) -> str:
        """Returns the address for a damaged part; globs for Parquet do not match its ending."""
        return files.join(self.root, DAMAGED, *self._folders, f"{name}.damaged")

    def run_file(self, name: str = "") -> str:
        """Returns the address of a file of this run; without a name, of the run's folder."""
        return files.join(self.root, WORK, f"run-{self.run}", name)

    def locate(self, name: str) -> str:
        """Returns the present address of the part; if it is gone, that of unfinished work."""
        found = (uri for uri in self.addresses(name) if files.exists(uri))
        return next(found, self.work(name))

    def addresses(self, name: str) -> tuple[str, ...]:
        """Returns the addresses where the part may be, in the order to look.

        A publisher may move it from `__work` while a reader tries the first two, and retire it
        after that. So the published address comes twice, and the retired one last.
        """
        published = self.published(name)
        return published, self.work(name), published, self.retired(name)


def located(source: str, places: Sequence[Place]) -> tuple[Place, str]:
    """Splits `<index in places>/<name>` into the place and the name of a part."""
    index, _, name = source.partition("/")
    return places[int(index)], name


def write_parts(place: Place, row_kind: PartKind, rows: pa.Table) -> tuple[Part, ...]:
    """Writes `rows` below `__work`, one part for each of the partitions of `row_kind`."""
    return tuple(
        write_part(place, row_kind, some, folder)
        for folder, some in row_kind.partitions(rows)
        if len(some)
    )


def write_part(place: Place, row_kind: PartKind, rows: pa.Table, folder: str = "") -> Part:
    """Writes `rows` below `__work`, in its subfolder `folder`, whole or not at all.

    The same rows give the same file within a run, so a retried bundle is harmless.
    """
    data = encode(rows)
    sha256 = hashlib.sha256(data).hexdigest()
    name = _name(place, sha256, isinstance(row_kind, RejectRows), folder)
    files.write_atomic(place.work(name), data)
    return _described(name, rows, row_kind, len(data), sha256)


def _described(name: str, rows: pa.Table, row_kind: PartKind, size: int, sha256: str) -> Part:
    failures = 0
    if holds_rejects(name):
        failures = pc.sum(pc.not_equal(rows["error_class"], NOT_AN_IMAGE)).as_py() or 0
    digest, engine = f"{row_kind.digest(rows):064x}", engine_of(rows.schema)
    return Part(name, len(rows), digest, failures, size, sha256, engine)


def copy_part(place: Place, part: Part) -> Part:
    """Writes a part again under a name of this run.

    Raises:
        PartLostError: the part is gone.
        PartDamagedError: its bytes are not those that were written.
    """
    data = _read_bytes(place, part)
    folder = files.parent(part.name) if "/" in part.name else ""
    name = _name(place, hashlib.sha256(data).hexdigest(), part.is_rejects, folder)
    files.write_atomic(place.work(name), data)
    return replace(part, name=name)


def _name(place: Place, sha256: str, is_rejects: bool, folder: str) -> str:
    """Returns the name of a part that this run writes, by the sha256 of its bytes."""
    prefix = _REJECTS_PREFIX if is_rejects else "part-"
    name = f"{prefix}{place.run}-{sha256[:16]}.parquet"
    return files.join(folder, name) if folder else name


def encode(rows: pa.Table) -> bytes:
    """Returns `rows` as a Parquet file, its vectors in the encoding that the schema names."""
    if etags := etags_of(rows.schema):  # They may include those of removed rows.
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
        # So that a flipped bit is an error for readers, instead of a wrong vector.
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


@contextmanager
def open_part(
    place: Place, part: Part | str, wanted: Sequence[str] = ()
) -> Iterator[pq.ParquetFile]:
    """Opens a part at its present address and checks its footer.

    Args:
        place: of the section.
        part: as the manifest describes it; its name if no manifest does.
        wanted: columns that it has to have, beside those that all parts of its kind have.

    Raises:
        PartLostError: the part is gone.
        PartDamagedError: it cannot be read as it was written; also while the block reads from it.
    """
    with _open(place, _name_of(part)) as file, _damage_named(place, part):
        yield _checked(place, part, file, wanted)


def _checked(
    place: Place, part: Part | str, file: Any, wanted: Sequence[str] = ()
) -> pq.ParquetFile:
    """Returns the file of a part, opened as Parquet, after a check of its footer.

    Raises:
        PartDamagedError: its columns are not ours, or its rows not as many as in the manifest.
    """
    opened = pq.ParquetFile(
        file, pre_buffer=not files.is_local(place.root), page_checksum_verification=True
    )
    rows = opened.metadata.num_rows
    reason = odd_schema(opened.schema_arrow, place.section, holds_rejects(_name_of(part)), wanted)
    reason = reason or unpacked_too_far(file)
    if isinstance(part, Part) and rows != part.rows:
        reason = reason or f"it has {rows} rows, its manifest says {part.rows}"
    if reason:
        raise damage(place, part, reason)
    return opened


def _name_of(part: Part | str) -> str:
    return part if isinstance(part, str) else part.name


def _sound(place: Place, part: Part | str, rows: pa.Table) -> pa.Table:
    """Returns rows after a check of their values.

    Raises:
        PartDamagedError: this program cannot have written them.
    """
    if reason := odd_values(rows):
        raise damage(place, part, reason)
    return rows


@contextmanager
def _damage_named(place: Place, part: Part | str) -> Iterator[None]:
    """Turns Arrow's errors about the bytes of a part into errors that name the part."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        # Errors of a disk or a server have an errno, Arrow's own do not.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise damage(place, part, " ".join(str(error).split())) from error


def damage(place: Place, part: Part | str, reason: str) -> PartDamagedError:
    """Returns the error about a part that is not as it was written."""
    name = _name_of(part)
    return PartDamagedError(
        f"{place.locate(name)} is damaged ({reason}): embed its images again, which computes its "
        f"rows anew; `beam-flowers fsck {place.root}` looks for other damage",
        place.root,
        name,
    )


def read_checked(place: Place, part: Part, row_kind: PartKind | None) -> pa.Table:
    """Reads a part to copy its rows, and checks that its bytes are as they were written.

    Checksums of pages do not cover the footer, so the whole file is compared with the manifest: by
    its sha256, or for parts described before layout 3 by the digest of the rows.

    Args:
        place: of the section.
        part: as the manifest describes it.
        row_kind: of the rows; None if they cannot be digested.

    Raises:
        PartLostError: the part is gone.
        PartDamagedError: its bytes are not those that were written.
    """
    rows = _rows_in(place, part, _read_bytes(place, part))
    if part.sha256 is None and row_kind and f"{row_kind.digest(rows):064x}" != part.digest:
        raise damage(place, part, "its rows are not those of the manifest")
    return rows


def _read_bytes(place: Place, part: Part) -> bytes:
    with _open(place, part.name) as file:
        data = file.read()
    if part.sha256 is not None and hashlib.sha256(data).hexdigest() != part.sha256:
        raise damage(place, part, "its sha256 is not that of the manifest")
    return data


def _open(place: Place, name: str) -> BinaryIO:
    file = _open_now(place, name)
    # An open local file can be read even after it is moved or deleted.
    if files.is_local(place.root):
        return file
    return cast(BinaryIO, io.BufferedReader(_Steady(place, name, file), _BLOCK))


def _open_now(place: Place, name: str) -> BinaryIO:
    """Opens the file of a part at its present address.

    Raises:
        PartLostError: the part is gone.
    """
    for uri in place.addresses(name):
        try:
            return files.open_read(uri)
        except FileNotFoundError:
            continue  # Without a second look: a file that has come since is found by the order.
        except OSError:
            if files.exists(uri):
                raise
    raise PartLostError(
        f"{place.published(name)} is gone: deleted, or no version needs it any more; run this "
        "again, and if that does not help, the command that wrote it, which makes its rows anew"
    )


class _Steady(RangedFile):
    """File of a part in an object store; reads on in the retired copy if the part is retired."""

    def __init__(self, place: Place, name: str, file: BinaryIO) -> None:
        super().__init__(file.seek(0, io.SEEK_END))
        self._place, self._name, self._file = place, name, file

    def read_range(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        try:
            return self._file.read(end - start)
        except FileNotFoundError:
            self._file = _open_now(self._place, self._name)
            self._file.seek(start)
            return self._file.read(end - start)


def read_part(place: Place, part: Part | str, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads the rows of a part at its present address; by default all columns."""
    with open_part(place, part, columns or ()) as opened:
        return _sound(place, part, opened.read(list(columns) if columns else None))


def encoded_otherwise(place: Place, names: Iterable[str], encoding: str) -> Iterator[str]:
    """Yields the names of parts of rows whose vectors have another encoding, by their footers."""
    for name in names:
        with open_part(place, name) as part:
            if not holds_rejects(name) and encoding_of(part.schema_arrow) != encoding:
                yield name


def iterate_part(
    place: Place, part: Part | str, columns: Sequence[str], rows: int = 65_536
) -> Iterator[pa.Table]:
    """Yields the part's rows, at most `rows` at a time, without columns that the part lacks."""
    with open_part(place, part) as opened:
        present = [c for c in columns if c in opened.schema_arrow.names]
        for batch in opened.iter_batches(rows, columns=present):
            yield _sound(place, part, pa.Table.from_batches([batch]))


def work_parts(place: Place) -> list[str]:
    """Lists the names of parts that the run has finished and that are not published, sorted."""
    folder = place.work_folder
    if not files.is_folder(folder):
        return []
    found = (files.relative(entry.uri, folder) for entry in files.walk(folder))
    return sorted(name for name in found if is_part(name))


def _rows_in(place: Place, part: Part | str, data: bytes) -> pa.Table:
    with _damage_named(place, part):
        file = _checked(place, part, pa.BufferReader(data))
        # Without threads: a process that ends right after Arrow's threads have read is sometimes
        # aborted on a busy machine ("terminate called without an active exception", 8 of 1,000
        # runs, pyarrow 25).
        return _sound(place, part, file.read(use_threads=False))


def describe_part(place: Place, name: str, row_kind: RowKind) -> Part:
    """Returns the `Part` of a file that no commit describes."""
    with _open(place, name) as file:
        data = file.read()
    rows = _rows_in(place, name, data)
    own = RejectRows() if holds_rejects(name) else row_kind
    return _described(name, rows, own, len(data), hashlib.sha256(data).hexdigest())


def derive(source: pa.Table, images: pa.Table, key: str, row_kind: PartKind) -> pa.Table:
    """Returns rows of `source` under other identities, of kept, relabelled, moved or copied files.

    Args:
        source: rows of a part.
        images: the new identities in `IMAGE_SCHEMA`, one row for each file; the result keeps their
            order.
        key: column to find the source row by, `uri` or `sha256`.
        row_kind: of the rows.
    """
    places = find_rows(source, images[key], key)
    if row_kind.rows_each > 1:
        images = images.take(np.arange(len(images)).repeat(row_kind.rows_each))
        places = np.add.outer(places, np.arange(row_kind.rows_each)).ravel()
    return identified(source.take(places), images, row_kind)


def identified(rows: pa.Table, images: pa.Table, row_kind: PartKind) -> pa.Table:
    """Returns `rows` with the identities in `images`, which has as many rows."""
    for name in row_kind.identity:
        index = rows.schema.get_field_index(name)
        rows = rows.set_column(index, rows.schema.field(index), images[name])
    etags = zip(images["uri"].to_pylist(), images["etag"].to_pylist(), strict=True)
    return with_etags(row_kind.derived(rows), dict(etags))


def find_rows(source: pa.Table, keys: pa.ChunkedArray, key: str) -> npt.NDArray[np.int64]:
    """Returns, for each of `keys`, the index of the first row of `source` with it in column `key`.

    Raises:
        StoreError: no row has one of the keys.
    """
    found = pc.index_in(keys, value_set=source[key].combine_chunks())
    if found.null_count:
        absent = keys.filter(pc.is_null(found))[0].as_py()
        raise StoreError(f"a part has no row with {key} {absent!r} any more; run this again")
    return found.to_numpy().astype(np.int64)
