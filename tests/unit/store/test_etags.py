"""ETags in the metadata of parts: they follow their rows, and no reader sees a column."""

import base64
import json
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_flowers.records import Embedding, Image, Reject
from beam_flowers.store.parts import RejectRows, derive, encode
from beam_flowers.store.schema import (
    StoreRows,
    etags_of,
    images_of,
    images_table,
    rejects_table,
    with_etags,
)

KIND = StoreRows("ab" * 32, "tiny")


def image(name, etag=None):
    return Image(f"s3://b/{name}", "s3://b", name, "rose", None, 10, 1, etag)


def table(*images):
    vector = np.zeros(2, np.float32)
    return KIND.table(
        [Embedding(i, f"{n:064x}", 4, 4, "JPEG", vector) for n, i in enumerate(images)]
    )


def written(rows):
    return pq.read_table(pa.BufferReader(encode(rows)))


A, B, UNTAGGED = image("a", "t1"), image("b", "t2"), image("c")


def rejected(*images):
    return rejects_table([Reject(image, "decode", "Truncated", "it ends") for image in images])


@pytest.mark.parametrize("make", [table, rejected])
def test_they_come_back_with_their_images(make):
    back = written(make(A, UNTAGGED, B))
    assert images_of(back) == [A, UNTAGGED, B]
    assert back.schema.names == make(UNTAGGED).schema.names


def test_parts_without_any_are_the_bytes_of_before():
    assert b"etags" not in encode(table(UNTAGGED))
    assert (
        with_etags(table(UNTAGGED), {"s3://b/c": None}).schema.metadata == KIND.schema(2).metadata
    )


def test_those_of_rows_that_leave_are_not_written():
    """People may have to erase names."""
    left = table(A, B).filter(pa.array([False, True]))
    assert etags_of(written(left).schema) == {B.uri: "t2"}
    assert etags_of(written(left.slice(1)).schema) == {}


def test_rows_of_a_file_that_moved_have_its_tag():
    moved = images_table([image("new", "t9"), UNTAGGED], [f"{0:064x}", f"{1:064x}"])
    rows = derive(table(A, B), moved, "sha256", KIND)
    assert [found.etag for found in images_of(rows)] == ["t9", None]
    again = images_table([A._replace(etag="t3")], [None])
    again = derive(rejected(A), again, "uri", RejectRows())
    assert images_of(again)[0].etag == "t3"


@pytest.mark.parametrize(
    "data",
    [
        b"no base64",
        base64.b64encode(b"not compressed"),
        base64.b64encode(zlib.compress(b"no JSON")),
        base64.b64encode(zlib.compress(b"[1]")),
        base64.b64encode(zlib.compress(json.dumps({"s3://b/a": 1}).encode())),
        base64.b64encode(zlib.compress(b" " * (65 << 20) + b"{}")),
        base64.b64encode(zlib.compress(b"[" * 100_000)),
    ],
)
def test_what_a_stranger_wrote_there_is_unknown(data):
    schema = table(UNTAGGED).schema.with_metadata({"etags": data})
    assert etags_of(schema) == {}
