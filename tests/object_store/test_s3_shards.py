"""Shards and the commands for people, with everything on a real S3 server."""

import re

import pytest
from shards import example, record, write_tar, write_zip
from stores import cli, embed, labels, photos, rejects, rows

from beam_flowers import files

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]


def put(bucket, name, data):
    target = bucket.folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


@pytest.fixture
def shards(bucket, tmp_path):
    """Five photographs in a tar, a WebDataset shard, a zip and as records; their folder here."""
    folder = photos(tmp_path / "images", 1)
    paths = sorted(folder.rglob("*.jpg"))
    plain = [(f"{p.parent.name}/{p.name}", p.read_bytes()) for p in paths]
    web = [(f"{i}.jpg", p.read_bytes()) for i, p in enumerate(paths)]
    web += [(f"{i}.cls", p.parent.name.encode()) for i, p in enumerate(paths)]
    for name, contents in (("plain", plain), ("web", sorted(web))):
        archive = write_tar(tmp_path / f"{name}.tar", contents)
        put(bucket, f"shards/{name}.tar", archive.read_bytes())
    archive = write_zip(tmp_path / "x.zip", plain)
    put(bucket, "shards/x.zip", archive.read_bytes())
    examples = [example(image=p.read_bytes(), label=p.parent.name.encode()) for p in paths]
    put(bucket, "shards/x.tfrecord", b"".join(map(record, examples)))
    return folder


def test_shards_on_an_object_store_give_the_vectors_of_their_files(bucket, shards, tmp_path):
    store = f"{bucket.uri}/store"
    assert cli("embed", f"{bucket.uri}/shards/*", "--store", store, *bucket.flags) == 0
    found = rows(bucket.folder / "store")
    assert len(found) == 20
    assert {row["uri"].partition("://")[0] for row in found} == {
        "tar+s3", "zip+s3", "tfrecord+s3",
    }  # fmt: skip
    assert files.read_bytes(found[0]["uri"], 3) == b"\xff\xd8\xff"
    embed(shards, tmp_path / "plain")
    own = {row["sha256"]: (row["label"], tuple(row["vector"])) for row in rows(tmp_path / "plain")}
    assert {row["sha256"]: (row["label"], tuple(row["vector"])) for row in found} == own
    bucket.proxy.paths.clear()
    assert cli("embed", f"{bucket.uri}/shards/*", "--store", store, *bucket.flags) == 0
    assert len(rows(bucket.folder / "store")) == 20


def test_a_shard_that_cannot_be_read_costs_its_images_alone(bucket, shards, capsys):
    whole = (bucket.folder / "shards" / "plain.tar").read_bytes()
    put(bucket, "shards/cut.tar", whole[:20_000])
    put(bucket, "shards/z.tar", b"\x1f\x8b\x08" + bytes(600))
    store = f"{bucket.uri}/store"
    assert cli("embed", f"{bucket.uri}/shards/*.tar", "--store", store, *bucket.flags) == 0
    reasons = rejects(bucket.folder / "store")
    assert reasons.keys() == {f"{bucket.uri}/shards/{name}.tar" for name in ("cut", "z")}
    assert len(labels(bucket.folder / "store")) == 10


def test_pages_about_what_lies_on_an_object_store(bucket, shards, tmp_path):
    pytest.importorskip("vl_convert", reason="the report's extra is not installed")
    at = bucket.uri
    assert cli("doctor", f"{at}/shards/*", "--output", f"{at}/d.html", *bucket.flags) == 0
    page = (bucket.folder / "d.html").read_text("utf-8")
    # Each photograph four times, in four shards: one group of copies for each.
    assert "The same bytes more than once" in page
    assert page.count("data:image/webp") == 20
    assert cli("embed", f"{at}/shards/x.zip", "--store", f"{at}/store", *bucket.flags) == 0
    assert cli("report", f"{at}/store", "--output", f"{at}/r.html", *bucket.flags) == 0
    page = (bucket.folder / "r.html").read_text("utf-8")
    assert re.search(r'"href": null, "name": "\w+/[\w.]+", "problem": null, "thumb": "data:', page)
