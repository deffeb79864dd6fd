"""Commands with everything on a real S3 server: the same tables as locally, whatever happens."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time

import gateway
import make_images
import pandas as pd
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import servers
from proxy import BUSY, CUT, RESET, every, for_seconds
from stores import cli, embed, junk, photos, rejects, rows, scenes

from beam_flowers import files
from beam_flowers.errors import UnreachableError
from beam_flowers.files import s3_server
from beam_flowers.head.bundle import read_bundle
from beam_flowers.store.commits import latest
from beam_flowers.store.schema import etags_of

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]
COMMAND = [sys.executable, "-m", "beam_flowers.cli.main"]


def upload(folder, bucket, name="images"):
    """The address of a folder's regular files, hidden ones too, as objects."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink()):
        target = bucket.folder / name / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return files.join(bucket.uri, name)


def section(store):
    """The only section of a table."""
    return next(iter(latest(store).sections.values()))


def vectors(table):
    """What does not depend on where the images lie, by path below their root."""
    return {
        r["relative_path"]: (r["sha256"], r["label"], r["width"], tuple(r["vector"]))
        for r in rows(table)
    }


def below(uris, root):
    return {uri.removeprefix(f"{root}/"): value for uri, value in uris.items()}


def score_rows(uri):
    table = pq.read_table(io.BytesIO(files.read_bytes(uri))).drop_columns(["uri"])
    return sorted(map(str, table.to_pylist()))


def test_the_whole_way_equals_the_local_run(bucket, tmp_path, monkeypatch):
    local = junk(photos(tmp_path / "images"))
    images = upload(local, bucket)
    store, model, out = (files.join(bucket.uri, n) for n in ("store", "a [model] + x", "out"))
    for path in (local / "bad" / "dangling.jpg", local / "bad" / "pipe.jpg"):
        path.unlink()
    assert cli("embed", images, "--store", store, *bucket.flags) == 0
    bucket.proxy.paths.clear()
    assert cli("embed", images, "--store", store, *bucket.flags) == 0
    assert not [p for m, p in bucket.proxy.paths if "/images/" in p], "an image was read again"
    beside, apart = tmp_path / "beside", tmp_path / "apart"
    assert cli("embed", images, "--store", beside, *bucket.flags) == 0
    assert section(store).dataset_hash == section(str(beside)).dataset_hash
    assert cli("embed", local, "--store", apart) == 0
    assert vectors(bucket.folder / "store") == vectors(beside) == vectors(apart)
    assert len(vectors(apart)) == 17
    assert below(rejects(bucket.folder / "store"), images) == below(rejects(apart), str(local))

    assert cli("train", store, "--model", model, *bucket.flags) == 0
    assert cli("train", beside, "--model", tmp_path / "model") == 0
    assert read_bundle(model).labels == read_bundle(str(tmp_path / "model")).labels
    local_model = (tmp_path / "model" / "model.json").read_bytes()
    assert files.read_bytes(files.join(model, "model.json")) == local_model

    score = ["score", "--model", model, *bucket.flags]
    assert cli(*score, images, "--output", f"{out}/pixels.parquet") == 0
    assert cli(*score, store, "--output", f"{out}/store.parquet") == 0
    assert cli(*score, images, "--store", store, "--output", f"{out}/both.parquet") == 0
    assert cli(*score, images, "--output", f"{out}/folder") == 0
    assert cli(*score, images, "--output", f"{out}/table.csv") == 0
    assert cli("score", local, "--model", model, *bucket.flags, "--output", f"{out}/l.parquet") == 0
    expected = score_rows(f"{out}/l.parquet")
    assert len(expected) == 17
    before = section(store)
    copies = ["score", local, "--model", model, "--store", store, *bucket.flags]
    assert cli(*copies, "--output", f"{out}/copies.parquet") == 0
    assert section(store) == before
    assert len(vectors(bucket.folder / "store" / "__scored")) == 17
    for name in ("pixels", "store", "both", "copies"):
        assert score_rows(f"{out}/{name}.parquet") == expected
    assert len(rows(bucket.folder / "out" / "folder")) == 17
    assert len(files.read_bytes(f"{out}/table.csv").splitlines()) >= 18
    assert len(files.read_bytes(f"{out}/table.rejects.csv").splitlines()) > 5
    names = [e.uri for e in files.walk(bucket.uri) if "/leases/run-" not in e.uri]
    leftovers = [name for name in names if ".partial" in name or "/run-" in name]
    assert not leftovers
    evaluate = ["evaluate", store, "--model", model, "--split", "all", "--folds", "0"]
    assert cli(*evaluate, "--output", f"{out}/evaluation", *bucket.flags) == 0
    assert files.exists(f"{out}/evaluation/evaluation.json")
    image = files.join(images, "roses", sorted(p.name for p in (local / "roses").iterdir())[0])
    assert cli("classify", image, "--model", model, *bucket.flags) == 0
    left = files.join(store, "__work", "0123456789abcdef", f"part-{0:024x}.parquet")
    mine = files.join(store, "part-0.parquet")
    for uri in (left, mine):
        files.write_atomic(uri, b"content")
    assert cli("vacuum", store, *bucket.flags) == 0
    assert files.exists(left)
    assert cli("vacuum", store, "--older-than", "0", *bucket.flags) == 0
    assert (files.exists(left), files.exists(mine)) == (False, True)
    files.delete(mine)
    assert len(vectors(bucket.folder / "store")) == 17
    roses = files.join(images, "roses")
    assert cli("forget", store, roses, *bucket.flags) == 0
    assert 0 < len(vectors(bucket.folder / "store")) < 17


def test_a_library_caller_needs_no_more_than_the_pipelines_options(bucket, tmp_path):
    images = upload(photos(tmp_path / "images"), bucket)
    store = files.join(bucket.uri, "store")
    assert embed(images, store, pipeline=bucket.flags).embedded == 10
    assert len(rows(bucket.folder / "store")) == 10


def test_secrets_are_not_shown(bucket, tmp_path, capsys):
    cli("embed", bucket.uri, "--store", tmp_path / "store", *bucket.flags)
    said = "".join(capsys.readouterr())
    assert f"--s3_endpoint_url={bucket.proxy.url}" in said
    assert gateway.SECRET not in said


def test_each_image_takes_one_request(reached, tmp_path):
    images = upload(photos(tmp_path / "images"), reached)
    embed(images, files.join(reached.uri, "store"), shards=1)
    asked = sorted(method for method, path in reached.proxy.paths if "/images/" in path)
    # The one HEAD is the worker's look, once a unit, whether it sees the images at all.
    assert asked == ["GET"] * 10 + ["HEAD"]
    got = [asked for asked in reached.proxy.paths if asked[0] == "GET" and "/images/" in asked[1]]
    assert len(set(got)) == 10
    listings = [path for _, path in reached.proxy.paths if "prefix=images" in path]
    assert len(listings) == 3


def test_a_server_that_fails_now_and_then_loses_nothing(reached, tmp_path, caplog):
    folder = scenes(tmp_path / "images", 40)
    images, store = upload(folder, reached), files.join(reached.uri, "store")
    reached.proxy.fault = every(4, BUSY, RESET, CUT)
    assert embed(images, store, shards=4).embedded == 40
    assert reached.proxy.faults > 10
    assert len(vectors(reached.folder / "store")) == 40
    assert "trying again for up to" in caplog.text
    assert not rejects(reached.folder / "store")
    reached.proxy.fault = every(4, BUSY, RESET, CUT)
    assert embed(images, store).reused == 40


@pytest.mark.parametrize("fault", [BUSY, RESET])
def test_an_outage_of_some_seconds_ends_nothing(reached, tmp_path, fault):
    images = upload(scenes(tmp_path / "images", 12), reached)
    reached.proxy.fault = _from_the_first(reached.proxy, "/images/", for_seconds(4, fault))
    assert embed(images, files.join(reached.uri, "store")).embedded == 12
    assert reached.proxy.faults > 1
    assert not rejects(reached.folder / "store")


def _from_the_first(proxy, part, fault):
    """Everything fails once a path with `part` in it was asked for."""
    return lambda method, path: (
        fault(method, path) if any(part in asked for _, asked in proxy.paths) else "pass"
    )


def test_a_server_that_never_comes_back_is_one_error_and_no_rejects(reached, tmp_path):
    images = upload(scenes(tmp_path / "images", 30), reached)
    store = files.join(reached.uri, "store")
    s3_server._server().retries.patience = 2
    dead = for_seconds(3600, RESET)
    reached.proxy.fault = _from_the_first(reached.proxy, "/images/", dead)
    began = time.monotonic()
    with pytest.raises(Exception, match=r"has not answered for 2 seconds") as caught:
        embed(images, store)
    assert time.monotonic() - began < 100
    assert UnreachableError.__name__ in repr(caught.value) + str(caught.value)
    reached.proxy.fault = lambda method, path: "pass"
    s3_server._connect.cache_clear()
    s3_server._latest = None
    assert embed(images, store).rows == 30
    assert not rejects(reached.folder / "store")


def wait_for_parts(bucket, process, count):
    deadline = time.monotonic() + 300
    while len(list(bucket.folder.glob("store/__work/run-*/*/part-*.parquet"))) < count:
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_half_way_and_run_again(reached, tmp_path):
    images = upload(scenes(tmp_path / "images", 120), reached)
    store = files.join(reached.uri, "store")
    command = [*COMMAND, "embed", images, "--store", store, "--shards", "40"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    wait_for_parts(reached, process, 2)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not list(reached.folder.glob("store/backbone=*"))
    summary = embed(images, store)
    assert summary.rows == 120
    assert 0 < summary.reused < 120
    assert len(vectors(reached.folder / "store")) == 120


def test_two_runs_at_once_make_one_store(reached, tmp_path):
    first = upload(photos(tmp_path / "images"), reached)
    second = upload(scenes(tmp_path / "more", 20), reached, "more")
    store = files.join(reached.uri, "store")
    command = [*COMMAND, "embed", "--store", store, "--shards", "5", first]
    runs = [
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for arguments in (command, [*command, second])
    ]
    for run in runs:
        _, said = run.communicate(timeout=500)
        assert run.returncode == 0, said
    assert len(rows(reached.folder / "store")) == 30


def complaint(capsys, *arguments):
    """The one error that a failing command says; on a busy machine how far it is stands above."""
    assert cli(*arguments) == 1
    (line,) = [s for s in capsys.readouterr().err.splitlines() if not s.startswith("listing")]
    return line


def test_wrong_settings_are_one_error_at_once(bucket, tmp_path, capsys):
    """Few requests stand for little time: none is made again."""
    images = upload(scenes(tmp_path / "images", 1), bucket)
    store = ["--store", str(tmp_path / "store")]
    wrong = [flag.replace(gateway.SECRET, "wrong") for flag in bucket.flags]
    line = complaint(capsys, "embed", images, *store, *wrong)
    assert "SignatureDoesNotMatch" in line
    assert "--s3_secret_access_key" in line
    line = complaint(capsys, "embed", images, *store, bucket.flags[0])
    assert "Unable to locate credentials" in line
    line = complaint(capsys, "embed", "s3://no-such-bucket/a", *store, *bucket.flags)
    assert "NoSuchBucket" in line
    assert "s3://no-such-bucket/a" in line
    line = complaint(capsys, "embed", images, *store, "--s3_endpoint_url=localhost:7070")
    assert "Invalid endpoint: localhost:7070" in line
    assert sum(bucket.proxy.requests.values()) < 5


def test_a_wrong_address_is_said_soon(bucket, tmp_path):
    nowhere = f"--s3_endpoint_url=http://127.0.0.1:{servers.free_port()}"
    began = time.monotonic()
    command = [*COMMAND, "embed", bucket.uri, "--store", str(tmp_path), *bucket.flags, nowhere]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert time.monotonic() - began < 100
    assert "trying again for up to 15 seconds" in lines[0]
    assert "has not answered for 15 seconds; check its address" in lines[-1]
    assert len(lines) < 8


def test_missing_images_are_found_folder_by_folder(reached, tmp_path, capsys):
    uri, store = upload(photos(tmp_path / "images"), reached), files.join(reached.uri, "store")
    embed(uri, store)
    gone = sorted((reached.folder / "images" / "roses").glob("*.jpg"))[0]
    gone.unlink()
    reached.proxy.paths.clear()
    assert cli("forget", store, "--missing", *reached.flags) == 0
    assert "forgot 1 row " in capsys.readouterr().out
    assert len(vectors(reached.folder / "store")) == 9
    listed = [path for _, path in reached.proxy.paths if "prefix=images%2F" in path]
    assert 5 <= len(listed) <= 10
    assert not any(method == "HEAD" and ".jpg" in path for method, path in reached.proxy.paths)


def test_a_renamed_prefix_leaves_no_ghosts(reached, tmp_path):
    uri, store = upload(photos(tmp_path / "images"), reached), files.join(reached.uri, "store")
    embed(uri, store)
    (reached.folder / "images").rename(reached.folder / "renamed")
    assert embed(files.join(reached.uri, "renamed"), store).reused == 10
    assert len(vectors(reached.folder / "store")) == 10


class TestETags:
    """Of S3, beside sizes and times, which tell whole seconds only."""

    @pytest.fixture
    def work(self, reached, tmp_path):
        """Three objects of one size, and a local store of them."""
        for name, content in (("a", 1), ("b", 2), ("c", 3)):
            files.write_atomic(self.uri(reached, name), self.image(content))
        assert cli("embed", f"{reached.uri}/images", "--store", tmp_path / "store") == 0
        return reached, tmp_path / "store"

    def uri(self, bucket, name):
        return f"{bucket.uri}/images/{name}.jpg"

    def image(self, seed):
        return make_images.jpeg(48, 48, seed).ljust(9000, b"\0")

    def overwrite(self, bucket, name, seed, *, tagged=True):
        """Replaces an object by another of the same size in the same second."""
        path, uri = bucket.folder / "images" / f"{name}.jpg", self.uri(bucket, name)
        before = files.stat(uri)
        times = path.stat()
        if tagged:
            files.write_atomic(uri, self.image(seed))
        else:
            path.write_bytes(self.image(seed))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        after = files.stat(uri)
        assert after[:3] == before[:3]
        return before.etag, after.etag

    def embed(self, bucket, store, *flags):
        assert cli("embed", f"{bucket.uri}/images", "--store", store, *flags) == 0
        return {row["uri"]: row["sha256"] for row in rows(store)}

    def digest(self, seed):
        return hashlib.sha256(self.image(seed)).hexdigest()

    def test_an_object_with_another_tag_is_read_again(self, work):
        bucket, store = work
        before, after = self.overwrite(bucket, "a", 4)
        assert before
        assert after
        assert before != after
        found = self.embed(bucket, store)
        assert found[self.uri(bucket, "a")] == self.digest(4)
        assert found[self.uri(bucket, "b")] == self.digest(2)
        # Rows that a commit rewrote keep their tags.
        self.overwrite(bucket, "b", 5)
        assert self.embed(bucket, store)[self.uri(bucket, "b")] == self.digest(5)
        assert cli("forget", store, self.uri(bucket, "c")) == 0
        assert self.uri(bucket, "c").encode() not in b"".join(
            str(etags_of(pq.read_schema(p))).encode() for p in store.glob("backbone=*/*.parquet")
        )
        version = latest(str(store)).version
        self.overwrite(bucket, "a", 6)
        files.delete(self.uri(bucket, "c"))
        assert self.embed(bucket, store)[self.uri(bucket, "a")] == self.digest(6)
        assert latest(str(store)).version == version + 1
        self.embed(bucket, store)
        assert latest(str(store)).version == version + 1

    def test_a_reject_with_another_tag_is_read_again(self, work):
        bucket, store = work
        files.write_atomic(self.uri(bucket, "d"), b"no image".ljust(9000))
        self.embed(bucket, store)
        assert [*rejects(store)] == [self.uri(bucket, "d")]
        self.overwrite(bucket, "d", 7)
        assert self.embed(bucket, store)[self.uri(bucket, "d")] == self.digest(7)
        assert not rejects(store)

    def test_a_missing_tag_is_unknown_and_no_change(self, reached, tmp_path):
        folder, store = reached.folder / "images", tmp_path / "store"
        folder.mkdir()
        for seed, name in enumerate("abc", start=1):
            (folder / f"{name}.jpg").write_bytes(self.image(seed))
        assert [files.stat(self.uri(reached, n)).etag for n in "abc"] == [None] * 3
        self.embed(reached, store)
        # Neither is it a change if there is one now.
        before, after = self.overwrite(reached, "a", 1)
        assert (before, bool(after)) == (None, True)
        version = latest(str(store)).version
        found = self.embed(reached, store)
        self.overwrite(reached, "b", 8, tagged=False)
        assert self.embed(reached, store) == found
        assert latest(str(store)).version == version
        assert self.embed(reached, store, "--verify")[self.uri(reached, "b")] == self.digest(8)
        # What was read now has its tag.
        self.overwrite(reached, "a", 9)
        assert self.embed(reached, store)[self.uri(reached, "a")] == self.digest(9)

    def test_plain_readers_see_the_columns_of_a_local_store(self, work, tmp_path):
        _, store = work
        local = scenes(tmp_path / "local", 3)
        alone = embed(local, tmp_path / "alone").dataset_hash
        embed(local, tmp_path / "again")
        assert section(str(tmp_path / "again")).dataset_hash == alone
        assert cli("embed", local, "--store", store) == 0
        schemas = [pq.read_schema(path) for path in store.glob("backbone=*/*.parquet")]
        assert len(schemas) == 2
        assert schemas[0].equals(schemas[1])
        assert sorted(len(etags_of(schema)) for schema in schemas) == [0, 3]
        assert len(pd.read_parquet(store)) == len(ds.dataset(store).to_table()) == 6

    def test_images_that_were_scored_are_scored_again(self, work, tmp_path):
        bucket, store = work
        local = photos(tmp_path / "photos", 2)
        embed(local, tmp_path / "trained")
        assert cli("train", tmp_path / "trained", "--model", tmp_path / "model") == 0
        score = ("score", f"{bucket.uri}/images", "--model", tmp_path / "model", "--output")
        for flags in ((tmp_path / "table",), (tmp_path / "other", "--store", store)):
            assert cli(*score, *flags) == 0
            self.overwrite(bucket, "a", 20 + len(flags))
            assert cli(*score, *flags) == 0
            found = {row["uri"]: row["sha256"] for row in rows(flags[0])}
            assert found[self.uri(bucket, "a")] == self.digest(20 + len(flags))
