"""Rows of lists and manifests from anyone: each costs itself, and uses no rights but its own.

What whoever writes a list would gain: objects that only this machine may read, a run that hangs or
ends, memory for what a header claims.
"""

import json
import os
import struct
import tarfile
import tracemalloc

import make_images
import pytest
from memory_files import OBJECTS, MemoryFileSystem
from stores import cli, embed, rejects, rows

from beam_flowers.errors import InputError, OutputError, UnreachableError
from beam_flowers.files import MemberError, tfrecord
from beam_flowers.images.find import find_images
from beam_flowers.images.outputs import Writing
from beam_flowers.records import Image, Reject, RootListed

SOUND = "a.jpg"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / SOUND).write_bytes(make_images.jpeg(seed=1))
    return tmp_path / "images"


def manifest(folder, *names, suffix="csv"):
    path = folder / f"names.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps({"uri": name}) + "\n" for name in names))
    else:
        path.write_text("\n".join(["uri"] * (suffix == "csv") + list(names)) + "\n")
    return path


def listed(source, schemes=()):
    found = list(find_images([str(source)], schemes))
    assert isinstance(found.pop(), RootListed)
    return found


@pytest.fixture
def closed(monkeypatch):
    """A function that has questions for some objects of `mem://` fail."""

    def close(prefix, error):
        metadata = MemoryFileSystem.metadata

        def refused(self, path):
            if path.startswith(prefix):
                raise error
            return metadata(self, path)

        monkeypatch.setattr(MemoryFileSystem, "metadata", refused)

    return close


class TestSchemes:
    @pytest.mark.parametrize("suffix", ["csv", "txt", "jsonl"])
    @pytest.mark.parametrize(
        "name", ["s3://secret/a.jpg", "S3://secret/a.jpg", "http://10.0.0.1/a", "gs://b/a.jpg"]
    )
    def test_others_than_the_manifests_own_are_rejects(self, folder, name, suffix):
        first, second = listed(manifest(folder, SOUND, name, suffix=suffix))
        assert isinstance(first, Image)
        assert isinstance(second, Reject)
        assert (second.stage, second.error_class) == ("find", "SchemeNotAllowed")
        assert f"--manifest-schemes {name.partition(':')[0]}" in second.message

    @pytest.mark.parametrize(
        "name", ["tar+s3://b/x.tar!/a", "zip+s3://b/x.zip!/a", "tar+zip+s3://b/x.tar!/a!/b"]
    )
    def test_so_are_members_of_archives_there(self, folder, name):
        (found,) = listed(manifest(folder, name))
        assert found.error_class == "SchemeNotAllowed"

    def test_a_list_of_paths_is_held_to_it_too(self, folder):
        path = manifest(folder, "s3://secret/a.jpg", suffix="list")
        (found,) = listed(f"files-from:{path}")
        assert found.error_class == "SchemeNotAllowed"

    def test_a_row_costs_itself_where_another_of_its_scheme_can_be_looked_at(self, folder, closed):
        OBJECTS.clear()
        OBJECTS["mem://b/a.jpg"] = b"12345"
        path = manifest(folder, SOUND, "mem://b/a.jpg", "mem://closed/a.jpg", "mem://b/none.jpg")
        closed("mem://closed/", InputError("no such bucket"))
        first, second, third, last = listed(path, ["mem"])
        assert (first.bytes, second.bytes) == (os.stat(folder / SOUND).st_size, 5)
        assert (third.stage, third.error_class) == ("find", "UnknownAddress")
        assert last.error_class == "NotFound"

    @pytest.mark.parametrize("error", [InputError("no library"), PermissionError(13, "no right")])
    def test_if_no_row_of_a_scheme_can_be_looked_at_the_listing_ends(self, folder, closed, error):
        path = manifest(folder, SOUND, "mem://b/a.jpg", SOUND, "mem://b/b.jpg")
        closed("mem://", error)
        with pytest.raises(InputError) as ended:
            listed(path, ["mem"])
        assert f"{str(path)!r}: no file that it names by mem:// can be read (2 rows)" in str(
            ended.value
        )
        assert str(error.args[-1]) in str(ended.value)

    def test_a_server_that_does_not_answer_is_no_fault_of_a_row(self, folder, closed):
        path = manifest(folder, SOUND, "mem://b/a.jpg", "mem://b/b.jpg")
        closed("mem://b/a", UnreachableError("no answer"))
        with pytest.raises(UnreachableError):
            listed(path, ["mem"])

    def test_a_run_says_so_and_goes_on(self, folder, tmp_path):
        summary = embed(manifest(folder, SOUND, "s3://secret/a.jpg"), tmp_path / "store")
        assert (summary.rows, summary.rejected, summary.total) == (1, 1, 2)
        assert rejects(tmp_path / "store") == {"s3://secret/a.jpg": "SchemeNotAllowed"}

    def test_the_flag_is_taken(self, folder, tmp_path, capsys):
        path = manifest(folder, SOUND, "other://b/a.jpg")
        flags = ["--manifest-schemes", "s3,other"]
        assert cli("embed", path, "--store", tmp_path / "store", *flags) == 1
        said = capsys.readouterr().err
        assert "no file that it names by other:// can be read (1 rows)" in said
        assert "no file system for other://" in said
        assert not (tmp_path / "store" / "__commits").exists()

    def test_the_check_of_outputs_looks_at_none_either(self, folder, closed):
        path = manifest(folder, SOUND, "mem://b/a.jpg")
        closed("mem://", AssertionError("was looked at"))
        terms = Writing(overwrite=True).listing([str(path)])
        with pytest.raises(OutputError, match="is one of the images to read"):
            terms.refuse_listed("mem://b/a.jpg")


class TestPipes:
    """Whoever opens one waits for ever."""

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("name", ["x.jpg", "x.csv", "x.tar", "x.zip", "x.tfrecord"])
    def test_as_a_source(self, tmp_path, name):
        os.mkfifo(tmp_path / name)
        (found,) = listed(tmp_path / name)
        assert found.error_class == "NotARegularFile"

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("name", ["x.jpg", "x.tar"])
    def test_as_a_row_of_a_list_and_in_a_pattern(self, folder, name):
        os.mkfifo(folder / name)
        (folder / "link.jpg").symlink_to(folder / name)
        for found in (listed(manifest(folder, name, "link.jpg")), listed(folder / "*")):
            kinds = [f.error_class for f in found if isinstance(f, Reject)]
            assert "NotARegularFile" in kinds

    @pytest.mark.timeout(60)
    def test_a_device_is_not_read(self, folder, tmp_path):
        (found,) = listed(manifest(folder, "/dev/zero"))
        assert found.error_class == "NotARegularFile"


class TestText:
    @pytest.mark.parametrize("field", ["uri", "label"])
    def test_lone_surrogates(self, folder, tmp_path, field):
        row = {"uri": "b.jpg", "label": "daisy", field: "\ud800"}
        path = folder / "names.jsonl"
        path.write_text(json.dumps({"uri": SOUND, "label": "rose"}) + "\n" + json.dumps(row) + "\n")
        (folder / "b.jpg").write_bytes(make_images.jpeg(seed=2))
        summary = embed(path, tmp_path / "store")
        assert summary.rows + summary.rejected == summary.total == 2


def header(name, size, time=0):
    info = tarfile.TarInfo(name)
    info.size, info.mtime = 0, 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = number(size)
    block[136:148] = number(time)
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def number(value):
    """GNU's form for what does not fit into octal digits."""
    if 0 <= value < 8**11:
        return f"{value:011o}\0".encode()
    return (b"\x80" if value >= 0 else b"\xff") + (value % 256**11).to_bytes(11, "big")


def padded(data):
    return data + b"\0" * (-len(data) % 512)


class TestTars:
    @pytest.mark.timeout(60)
    @pytest.mark.parametrize(
        ("size", "time"),
        [(-1, 0), (-512, 0), (-1024, 0), (2**62, 0), (2**80, 0), (100, 2**70), (100, -(2**70))],
    )
    def test_sizes_and_times_that_no_file_has(self, tmp_path, size, time):
        image = make_images.jpeg(seed=3)
        data = header(SOUND, len(image)) + padded(image) + header("b.jpg", size, time)
        (tmp_path / "x.tar").write_bytes(data + padded(b"x" * 100) + b"\0" * 1024)
        summary = embed(tmp_path / "x.tar", tmp_path / "store")
        assert summary.rows == 1
        assert summary.rows + summary.rejected == summary.total
        assert [row["relative_path"] for row in rows(tmp_path / "store")] == [SOUND]

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("times", [2, 3])
    def test_members_of_members(self, folder, tmp_path, times):
        name = f"{'tar+' * (times - 1)}tar://{folder}/x.tar!/y.tar!/a.jpg"
        path = manifest(folder, SOUND, name)
        summary = embed(path, tmp_path / "store")
        assert (summary.rows, summary.rejected) == (1, 1)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("length", [2**63, 2**40, 2**64 - 1])
def test_a_tfrecord_that_claims_more_than_there_is(tmp_path, length):
    path = tmp_path / "x.tfrecord"
    path.write_bytes(struct.pack("<Q", length) + b"\0" * 100)
    with pytest.raises(InputError, match="usable image"):
        embed(path, tmp_path / "store")
    assert len(rejects(tmp_path / "store")) == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_record_of_nothing_but_empty_fields(depth):
    """For protobuf each is an object: a gigabyte of them takes thirty."""
    data = b"\x0a\x00" * 2_000_000
    for _ in range(depth - 1):
        data = b"\x0a" + varint(len(data)) + data
    tracemalloc.start()
    with pytest.raises(MemberError, match=r"above|no image/encoded"):
        tfrecord.parse(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def varint(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)
