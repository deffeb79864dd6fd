"""Defines the columns of the store's tables, and the digests that make datasets comparable.

`odd_schema` and `odd_values` check that a part of unknown origin has such columns and values.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_flowers.errors import StoreError
from beam_flowers.files.text import without_secrets
from beam_flowers.images.labels import normalize
from beam_flowers.images.rules import RULES
from beam_flowers.records import Embedding, Image, Reject
from beam_flowers.store.names import is_engine

_TIME = pa.timestamp("us", tz="UTC")

ENCODINGS = ("split", "plain")
"""Encodings of the vectors in Parquet: BYTE_STREAM_SPLIT, which is smaller, or PLAIN, which older
readers such as Spark 3.5 need. benchmarks/store_size.py compares them."""

_ENCODING = "vector_encoding"
_RULES = "decode_rules"
_ENGINE = "engine"
_ETAGS = "etags"
_MOST_ETAGS = 64 << 20
"""Most bytes of a part's ETags; compressed ones of a foreign part could unpack to any size."""
_ARROW = {"float32": pa.float32(), "float16": pa.float16()}

IMAGE_FIELDS = (
    pa.field("uri", pa.string()),
    pa.field("root", pa.string()),
    pa.field("relative_path", pa.string()),
    pa.field("label", pa.string()),
    pa.field("split", pa.string()),
    pa.field("bytes", pa.int64()),
    pa.field("modified", _TIME),
)
IMAGE_SCHEMA = pa.schema(
    [*IMAGE_FIELDS, pa.field("etag", pa.string()), pa.field("sha256", pa.string())]
)
REJECT_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("error_class", pa.string()),
        pa.field("message", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        *[f for f in IMAGE_FIELDS if f.name not in ("uri", "bytes")],
    ]
)

_LONGEST_VECTOR = 1 << 20
"""Most numbers of a vector. The longest vectors of known backbones have 100,000."""
_TEXTS = ["label_normalized", "format", "fingerprint", "label_text", "model_id", "rule"]
_TYPES = {
    **{field.name: field.type for field in (*IMAGE_FIELDS, *REJECT_SCHEMA)},
    **dict.fromkeys(_TEXTS, pa.string()),
    **dict.fromkeys(("width", "height", "k"), pa.int32()),
    "score": pa.float32(),
    "label_id": pa.int64(),
}
_RANK = re.compile(r"(label|score)_[0-9]+")
_NEEDED_ROWS = (*(field.name for field in IMAGE_FIELDS), "sha256", "fingerprint", "vector")
_NEEDED_SCORES = ("uri", "sha256", "score", "model_id")
_NEEDED_REJECTS = ("uri", "sha256", "stage", "error_class", "message")


@dataclass(frozen=True)
class StoreRows:
    """Kind of the rows of a store, made from embeddings.

    Attributes:
        fingerprint: of the backbone and its recipe, hex.
        backbone: name of the backbone, kept in the metadata of the files.
        vectors: dtype of the vectors, float32 or float16.
        encoding: one of `ENCODINGS`.
        engine: library that computes the vectors, kept in the metadata of the files, as float32
            vectors of engines differ in their last bits; empty if not known.
    """

    fingerprint: str
    backbone: str
    vectors: str = "float32"
    encoding: str = ENCODINGS[0]
    engine: str = ""

    identity = tuple(f.name for f in IMAGE_FIELDS)
    key: ClassVar[tuple[str, ...]] = ("uri", "sha256", "label", "fingerprint")
    rows_each = 1

    def schema(self, vector_length: int) -> pa.Schema:
        """Returns the columns; `vector` is fixed_size_list<float or halffloat>[vector_length]."""
        fields = [
            *IMAGE_FIELDS[:4],
            pa.field("label_normalized", pa.string()),
            *IMAGE_FIELDS[4:],
            pa.field("sha256", pa.string()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("format", pa.string()),
            pa.field("fingerprint", pa.string()),
            pa.field("vector", pa.list_(_ARROW[self.vectors], vector_length)),
        ]
        return pa.schema(fields, self._metadata)

    @property
    def _metadata(self) -> dict[str, str]:
        about = {"backbone": self.backbone, "fingerprint": self.fingerprint}
        engine = {_ENGINE: self.engine} if self.engine else {}
        return about | {_ENCODING: self.encoding} | engine | rules_record()

    def table(self, embeddings: Sequence[Embedding]) -> pa.Table:
        """Returns the rows of at least one embedding, in the given order."""
        vectors = self._numbers(embeddings)
        schema = self.schema(vectors.shape[1])
        columns = images_table([b.image for b in embeddings]).to_pydict()
        columns |= {
            "label_normalized": [_normalized(b.image.label) for b in embeddings],
            "sha256": [b.sha256 for b in embeddings],
            "width": [b.width for b in embeddings],
            "height": [b.height for b in embeddings],
            "format": [b.format for b in embeddings],
            "fingerprint": [self.fingerprint] * len(embeddings),
            "vector": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1]),
        }
        arrays = [pa.array(columns[n], schema.field(n).type) for n in schema.names]
        return with_etags(pa.table(arrays, schema), {b.image.uri: b.image.etag for b in embeddings})

    def _numbers(self, embeddings: Sequence[Embedding]) -> np.ndarray:
        vectors = np.stack([b.vector for b in embeddings])
        with np.errstate(over="ignore"):
            numbers = vectors.astype(self.vectors, copy=False)
        if lost := np.flatnonzero((np.isinf(numbers) & np.isfinite(vectors)).any(axis=1)).tolist():
            raise StoreError(
                f"the vector of {embeddings[lost[0]].image.uri!r} has numbers beyond those of"
                f" {self.vectors}, {np.finfo(self.vectors).max:g}; store it as float32"
            )
        return numbers

    def derived(self, rows: pa.Table) -> pa.Table:
        """Returns `rows` with the encoding, and the columns that follow from others, updated.

        Their metadata keeps the rules and the engine that they were made by.
        """
        kept = (_RULES, _ENGINE)
        metadata = {key: value for key, value in self._metadata.items() if key not in kept}
        recorded = rows.schema.metadata or {}
        metadata |= {k: recorded[k.encode()].decode() for k in kept if k.encode() in recorded}
        rows = rows.replace_schema_metadata(metadata)
        normalized = pa.array([_normalized(v) for v in rows["label"].to_pylist()], pa.string())
        index = rows.schema.get_field_index("label_normalized")
        return rows.set_column(index, rows.schema.field(index), normalized)

    def partitions(self, rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
        """Yields all rows under an empty folder, as the sections of a store have no partitions."""
        yield "", rows

    def digest(self, rows: pa.Table) -> int:
        """Returns the sum of the rows' digests; see `add_digests`."""
        return digest_rows(rows, self.key)


def digest_rows(rows: pa.Table, key: Sequence[str]) -> int:
    """Returns the sum of the digests of a store's rows, over the columns `key` and the vectors."""
    keys = zip(*(rows[n].cast(pa.string()).to_pylist() for n in key), strict=True)
    return add_digests(
        _digest(*values, vector=vector)
        for values, vector in zip(keys, vectors_of(rows), strict=True)
    )


def _normalized(label: str | None) -> str | None:
    return None if label is None else normalize(label)


def images_table(images: Sequence[Image], sha256: Sequence[str | None] | None = None) -> pa.Table:
    """Returns an Arrow table of `images` in `IMAGE_SCHEMA`."""
    columns: list[Sequence[object]] = list(zip(*images, strict=True)) or [()] * len(Image._fields)
    columns.append(sha256 or [None] * len(images))
    return pa.table(
        [pa.array(c, f.type) for c, f in zip(columns, IMAGE_SCHEMA, strict=True)], IMAGE_SCHEMA
    )


def with_etags(rows: pa.Table, etags: Mapping[str, str | None]) -> pa.Table:
    """Returns rows with the ETags of their files, by uri, in the table's metadata.

    A column in some parts only would break `datasets.load_dataset` (5.2: CastError, if a part
    without it comes first). Plain readers ignore the metadata. Without ETags the rows stay as they
    are.
    """
    known = {uri: etag for uri, etag in etags.items() if etag}
    metadata = dict(rows.schema.metadata or {})
    if metadata.pop(_ETAGS.encode(), None) is None and not known:
        return rows
    if known:
        # base64, as metadata has to be text.
        data = zlib.compress(json.dumps(known).encode())
        metadata[_ETAGS.encode()] = base64.b64encode(data)
    return rows.replace_schema_metadata(metadata)


def etags_of(schema: pa.Schema) -> dict[str, str]:
    """Reads the ETags that `with_etags` wrote, by uri; empty if the metadata has another form."""
    data = (schema.metadata or {}).get(_ETAGS.encode())
    if data is None:
        return {}
    try:
        found = json.loads(zlib.decompressobj().decompress(base64.b64decode(data), _MOST_ETAGS))
    except (ValueError, zlib.error, RecursionError):
        return {}
    texts = found.items() if isinstance(found, dict) else ()
    return {uri: etag for uri, etag in texts if isinstance(etag, str)}


def images_of(table: pa.Table) -> list[Image]:
    """Returns the `Image`s of a table; None for columns that it lacks."""
    columns = []
    if (etags := etags_of(table.schema)) and "etag" not in table.schema.names:
        tags = [etags.get(uri) for uri in table["uri"].to_pylist()]
        table = table.append_column("etag", pa.array(tags, pa.string()))
    for name in Image._fields:
        column = table[name] if name in table.schema.names else pa.nulls(len(table))
        columns.append(column.cast(pa.int64()) if name == "modified" else column)
    return [Image(*row) for row in zip(*(c.to_pylist() for c in columns), strict=True)]


def vectors_of(table: pa.Table) -> np.ndarray:
    """Returns the vectors of a store's table: float32 [N, D]."""
    return stored_vectors(table).astype(np.float32, copy=False)


def stored_vectors(table: pa.Table) -> np.ndarray:
    """Returns the vectors of a store's table in their stored dtype: float32 or float16 [N, D]."""
    column = table["vector"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)


def encoding_of(schema: pa.Schema) -> str:
    """Returns the encoding of the vectors of tables with this schema, one of `ENCODINGS`."""
    found: bytes = (schema.metadata or {}).get(_ENCODING.encode(), ENCODINGS[0].encode())
    return found.decode()


def engine_of(schema: pa.Schema) -> str | None:
    """Returns the engine that computed the vectors of rows with this schema; None if not known."""
    found = (schema.metadata or {}).get(_ENGINE.encode(), b"").decode("ascii", "replace")
    return found if is_engine(found) else None


def rules_record() -> dict[str, str]:
    """Returns the schema metadata for rows and rejects of files read now; see `images.rules`."""
    return {_RULES: json.dumps(RULES, sort_keys=True)}


def rules_of(schema: pa.Schema) -> dict[str, int]:
    """Reads the versions of the rules that rows or rejects with this schema were made by.

    Parts from before this record have none; that means version 1 of each rule.
    """
    recorded = (schema.metadata or {}).get(_RULES.encode(), b"{}")
    try:
        found = json.loads(recorded)
    except (ValueError, RecursionError):
        found = None
    # No rule has version 0, so that a run reads all of these files again.
    return found if isinstance(found, dict) else dict.fromkeys(RULES, 0)


def embeddings_of(table: pa.Table) -> list[Embedding]:
    """Returns the embeddings of a store's table."""
    names = ("sha256", "width", "height", "format")
    columns = zip(*(table[name].to_pylist() for name in names), strict=True)
    return [
        Embedding(image, sha, width, height, format_, vector)
        for image, (sha, width, height, format_), vector in zip(
            images_of(table), columns, vectors_of(table), strict=True
        )
    ]


def rejects_table(rejects: Sequence[Reject]) -> pa.Table:
    """Returns an Arrow table of `rejects` in `REJECT_SCHEMA`."""
    # Messages of file systems and their servers may repeat the address with its password.
    rows = [
        {**r.image._asdict(), **r._asdict(), "message": without_secrets(r.message)} for r in rejects
    ]
    columns = [pa.array([row[f.name] for row in rows], f.type) for f in REJECT_SCHEMA]
    table = pa.table(columns, REJECT_SCHEMA.with_metadata(rules_record()))
    return with_etags(table, {r.image.uri: r.image.etag for r in rejects})


def rejects_digest(rows: pa.Table) -> int:
    """Returns the sum of the rejects' digests over uri and error class."""
    keys = zip(rows["uri"].to_pylist(), rows["error_class"].to_pylist(), strict=True)
    return add_digests(_digest(*key) for key in keys)


def _digest(*texts: str | None, vector: np.ndarray | None = None) -> int:
    h = hashlib.sha256("\0".join("\1" if t is None else t for t in texts).encode())
    if vector is not None:
        h.update(b"\0" + np.ascontiguousarray(vector).tobytes())
    return int.from_bytes(h.digest(), "big")


def add_digests(digests: Iterable[int]) -> int:
    """Returns the sum of digests modulo 2**256.

    A sum does not depend on order or on how rows are cut into parts, so the hash of a whole
    dataset follows from its parts' without reading them again (AdHash: Bellare and Micciancio,
    "A New Paradigm for Collision-free Hashing", 1997).
    """
    return sum(digests) % 2**256


def odd_schema(schema: pa.Schema, section: str, is_rejects: bool, wanted: Iterable[str]) -> str:
    """Returns the first difference of a part's columns from ours, as text; empty if none differs.

    Args:
        schema: of the part.
        section: folder of its section; empty for a table of scores.
        is_rejects: True for a part of rejects.
        wanted: further columns that it has to have.
    """
    needed = _NEEDED_REJECTS if is_rejects else _NEEDED_ROWS if section else _NEEDED_SCORES
    for name in (*needed, *wanted):
        if schema.get_field_index(name) < 0:
            return f"it has no column {name}, or two"
    for field in schema:
        expected = _TYPES.get(field.name)
        if rank := _RANK.fullmatch(field.name):
            expected = pa.string() if rank[1] == "label" else pa.float32()
        if expected is not None and field.type != expected:
            return f"its column {field.name} is {field.type}, not {expected}"
        if field.name == "vector" and not _is_vector(field.type):
            return f"its vectors are {field.type}"
    return ""


def _is_vector(data_type: pa.DataType) -> bool:
    return (
        pa.types.is_fixed_size_list(data_type)
        and data_type.value_type in (pa.float32(), pa.float16())
        and 1 <= data_type.list_size <= _LONGEST_VECTOR
    )


def odd_values(rows: pa.Table) -> str:
    """Returns a reason why values of a part cannot be ours, as text; empty if they can.

    Raises:
        pa.ArrowInvalid: a text is not UTF-8.
    """
    for field in rows.schema:
        column = rows[field.name]
        column.validate(full=True)
        if field.name in ("uri", "vector") and column.null_count:
            return f"its column {field.name} has empty rows"
        if field.name == "sha256":
            matches = pc.match_substring_regex(column, "^[0-9a-f]{64}$")
            if pc.all(matches, skip_nulls=True, min_count=0).as_py() is False:
                return "its column sha256 has other values than digests"
    return ""
