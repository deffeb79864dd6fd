"""Paths, whole-file writes and listings, here and behind a scheme."""

import errno
import inspect
import os
import subprocess
import sys
import threading

import pytest
from memory_files import BUSY, MODIFIED, OBJECTS

from beam_flowers import files
from beam_flowers.errors import InputError, StoreError, UnreachableError
from beam_flowers.files import beam


@pytest.fixture(params=["local", "mem"])
def folder(request, tmp_path):
    OBJECTS.clear()
    return str(tmp_path) if request.param == "local" else "mem://bucket/a folder"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/b/../c/", "/a/c"),
        ("file:///a/b%20c", "/a/b%20c"),
        ("/a/y[1].jpg", "/a/y[1].jpg"),
        ("s3://b/a%20b/../c/", "s3://b/a%20b/../c"),
        ("gs://b", "gs://b"),
        ("hdfs:///user/x", "hdfs://user/x"),
    ],
)
def test_absolute(path, expected):
    assert files.absolute(path) == expected


def test_absolute_knows_the_working_folder_and_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/rosa")
    assert files.absolute("a b") == f"{tmp_path}/a b"
    assert files.absolute("~/x") == "/home/rosa/x"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b", "/a"),
        ("/a", "/"),
        ("/", "/"),
        ("s3://b/c/d", "s3://b/c"),
        ("s3://b/c", "s3://b"),
        ("s3://b", "s3://b"),
    ],
)
def test_parent(uri, expected):
    assert files.parent(uri) == expected


def test_join_and_relative():
    assert files.join("/", "a", "b") == "/a/b"
    assert files.join("s3://b/", "c") == "s3://b/c"
    assert files.relative("/a", "/") == "a"
    assert files.relative("s3://b/c/d", "s3://b") == "c/d"


def test_printable_names():
    bad = os.fsdecode(b"r\xff.jpg")
    assert files.printable(bad) == r"r\xff.jpg"
    assert not files.is_text(bad)
    assert not files.is_text("a\0")
    assert not files.is_text("\ud800")
    assert files.is_text("玫瑰\n [1].jpg")


def test_whole_file_life(folder):
    uri = files.join(folder, "deep", "玫 [1].gz")
    files.write_atomic(uri, b"old")
    files.write_atomic(uri, b"\x1f\x8b rose")  # Looks like gzip, by name and by content.
    assert files.read_bytes(uri) == b"\x1f\x8b rose"
    assert files.read_bytes(uri, limit=2) == b"\x1f\x8b"
    assert files.exists(uri)
    assert files.stat(uri).bytes == 7
    assert [entry.name for entry in files.list_folder(files.parent(uri))] == ["玫 [1].gz"]
    files.move(uri, files.join(folder, "new", "b"))
    assert not files.exists(uri)
    files.delete(files.join(folder, "new", "b"))
    files.delete(files.join(folder, "new", "b"))
    assert not files.exists(files.join(folder, "new", "b"))


def test_missing_files(folder):
    missing = files.join(folder, "missing")
    assert not files.exists(missing)
    assert not files.is_folder(missing)
    with pytest.raises(FileNotFoundError):
        files.stat(missing)
    with pytest.raises(OSError, match="missing"):
        files.read_bytes(missing)
    with pytest.raises(FileNotFoundError):
        files.move(missing, files.join(folder, "b"))


def test_listings(folder):
    for name in ("b", "a[1]/x", "a[1]/y/z", "a1/x"):
        files.write_atomic(files.join(folder, name), b"1")
    first = [(entry.name, entry.kind) for entry in files.list_folder(folder)]
    assert first == [("a1", "folder"), ("a[1]", "folder"), ("b", "file")]
    walked = [files.relative(entry.uri, folder) for entry in files.walk(folder)]
    assert walked == ["a1/x", "a[1]/x", "a[1]/y/z", "b"]
    assert files.is_folder(files.join(folder, "a[1]"))
    assert not files.is_folder(files.join(folder, "a"))


def test_microseconds(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"123")
    os.utime(path, ns=(0, 1_234_567_890_123_456_789))
    assert files.stat(str(path)) == (3, 1_234_567_890_123_456, "file", None)
    OBJECTS["mem://bucket/a"] = b"12"
    assert files.stat("mem://bucket/a") == (2, round(MODIFIED * 1e6), "file", None)


def test_write_leaves_nothing_half_done(tmp_path):
    target = tmp_path / "folder"
    (target / "child").mkdir(parents=True)
    with pytest.raises(OSError, match="irectory"):
        files.write_atomic(str(target), b"new")
    assert [entry.name for entry in files.list_folder(str(target))] == ["child"]


def test_write_respects_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        files.write_atomic(str(tmp_path / "a"), b"")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def _refuse_links(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_put_if_absent_has_one_winner(tmp_path, monkeypatch, links):
    if not links:  # As on exFAT.
        monkeypatch.setattr(os, "link", _refuse_links)
    uri, won = str(tmp_path / "commits" / "1.json"), []
    threads = [
        threading.Thread(
            target=lambda i=i: files.put_if_absent(uri, b"%d" % i * 9999) and won.append(i)
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert files.read_bytes(uri) == b"%d" % won[0] * 9999
    assert set(os.listdir(tmp_path / "commits")) - {".lock"} == {"1.json"}


def test_a_writer_killed_in_put_if_absent_blocks_nobody(tmp_path):
    # Without hard links the writer holds a lock; the system takes that back.
    code = (
        "import errno, os, sys\n"
        "def link(*_): raise OSError(errno.EPERM, 'no links')\n"
        "def rename(*_): os.kill(os.getpid(), 9)\n"
        "os.link, os.rename = link, rename\n"
        "from beam_flowers import files\n"
        "files.put_if_absent(sys.argv[1], b'half')"
    )
    uri = str(tmp_path / "1.json")
    done = subprocess.run([sys.executable, "-c", code, uri])
    assert done.returncode == -9
    assert not os.path.exists(uri)
    assert files.put_if_absent(uri, b"whole")
    assert files.read_bytes(uri) == b"whole"


def test_put_if_absent_needs_a_known_scheme():
    with pytest.raises(StoreError, match=r"mem://.*local folder"):
        files.put_if_absent("mem://bucket/a", b"")


@pytest.mark.parametrize("uri", ["nosuch://bucket/a", "nosuch://bucket"])
def test_unknown_scheme(uri):
    with pytest.raises(InputError, match="nosuch://"):
        files.exists(uri)


@pytest.mark.slow
def test_missing_library_names_the_extra():
    # Another process, since this one may have imported the library; None forbids the import.
    code = (
        "import sys; sys.modules['boto3'] = None\n"
        "from beam_flowers import errors, files\n"
        "try: files.exists('s3://bucket/a')\n"
        "except errors.InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'beam-flowers[aws]'" in done.stdout


def test_remote_listing_that_fails_is_reported():
    assert [entry.kind for entry in files.walk("mem://broken/x")] == ["unreadable"]


def impatient(server):
    """Lets requests to a server be given up soon."""
    beam._retries.cache_clear()
    beam._retries(server).first_patience = beam._retries(server).patience = 0.6


def test_a_server_that_does_not_answer_is_no_fault_of_the_file():
    impatient("mem://silent")
    with pytest.raises(UnreachableError, match=r"mem://silent has not.*silent/a: Max retries"):
        files.read_bytes("mem://silent/a")


def test_other_stores_than_s3_are_asked_again_and_it_is_said(caplog):
    beam._retries.cache_clear()
    OBJECTS["mem://bucket/a"], BUSY["mem://bucket/a"] = b"12", 2
    assert files.read_bytes("mem://bucket/a") == b"12"
    (said,) = caplog.messages
    assert said.startswith("mem://bucket/a: Max retries exceeded; trying again for up to 15 sec")


def test_one_object_that_is_never_given_out_is_an_error_of_that_object():
    impatient("mem://bucket")
    OBJECTS["mem://bucket/a"], BUSY["mem://bucket/b"] = b"12", 1000
    with pytest.raises(OSError, match=r"Max retries exceeded \(again and again\).*mem://bucket/b"):
        files.read_bytes("mem://bucket/b")
    assert files.read_bytes("mem://bucket/a") == b"12"


def test_folder_markers_are_no_files():
    OBJECTS.clear()
    OBJECTS.update({"mem://bucket/a/": b"", "mem://bucket/a/b": b"1"})
    assert [entry.name for entry in files.walk("mem://bucket")] == ["b"]


def test_tree_deeper_than_the_recursion_limit(tmp_path):
    deepest = tmp_path.joinpath(*["d"] * 200)
    deepest.mkdir(parents=True)
    (deepest / "a").touch()
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 100)
    try:
        assert [entry.name for entry in files.walk(str(tmp_path))] == ["a"]
    finally:
        sys.setrecursionlimit(limit)


def test_remove_empty_folders(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "file").touch()
    files.remove_empty_folders(str(tmp_path))
    assert os.listdir(tmp_path) == ["c"]


def test_delete_takes_a_folder_but_not_what_a_link_names(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "link").symlink_to(tmp_path / "kept")
    files.delete(str(tmp_path / "gone" / "link"))
    files.delete(str(tmp_path / "gone"))
    assert os.listdir(tmp_path) == ["kept"]
