"""`embed` of images in tars and TFRecord files, and of a list of files."""

import io
import os

import pytest
from shards import example, record, write_tar, write_zip
from stores import cli, embed, photos, rejects, rows


@pytest.mark.slow
def test_shards_through_the_pipeline(tmp_path, monkeypatch, capsys):
    """The same images in a folder, in shards, a zip and records have the same vectors."""
    folder = photos(tmp_path / "images", 1)
    paths = sorted(folder.rglob("*.jpg"))
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(2):
        own = [(str(p.relative_to(folder)), p.read_bytes()) for p in paths[number::2]]
        write_tar(shards / f"{number}.tar", [*own, (f"tulips/bad{number}.jpg", b"no image")])
    examples = [example(image=p.read_bytes(), label=p.parent.name.encode()) for p in paths]
    (shards / "x.tfrecord").write_bytes(b"".join(map(record, examples)))
    own = [(f"{p.parent.name}/{p.name}", p.read_bytes()) for p in paths]
    write_zip(shards / "y.zip", own)
    cut = (shards / "0.tar").read_bytes()[:3000]
    (shards / "2.tar").write_bytes(cut)

    store, summary = tmp_path / "store", embed(f"{shards}/*", tmp_path / "store")
    assert (summary.rows, summary.embedded, summary.rejected) == (15, 5, 3)
    assert set(rejects(store).values()) == {"NotAnImage", "DamagedShard"}
    assert f"{shards}/2.tar" in rejects(store)
    assert sorted(row["label"] for row in rows(store)) == sorted(
        p.parent.name for p in paths for _ in range(3)
    )
    vectors = {row["sha256"]: row["vector"] for row in rows(store)}
    embed(folder, tmp_path / "plain")
    assert vectors == {row["sha256"]: row["vector"] for row in rows(tmp_path / "plain")}

    again = embed(f"{shards}/*", store)
    assert (again.embedded, again.reused, again.rejected) == (0, 15, 3)
    # A shard that loses a member: its row leaves with the next listing, the rest is copied.
    write_tar(
        shards / "1.tar", [(f"{p.parent.name}/{p.name}", p.read_bytes()) for p in paths[3::2]]
    )
    third = embed(f"{shards}/*", store)
    assert (third.embedded, third.rows) == (0, 14)

    stdin = io.TextIOWrapper(io.BytesIO(b"\0".join(os.fsencode(p) for p in paths)))
    monkeypatch.setattr("sys.stdin", stdin)
    code = cli("embed", "--files-from", "-", "--store", tmp_path / "listed")
    assert (code, len(rows(tmp_path / "listed"))) == (0, 5)
