"""Files on a real S3 server: names, listings, ranges, conditions, and what each costs."""

import io
import random
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from proxy import (
    AGAIN,
    BUSY,
    CHANGES,
    CUT,
    FAILED,
    FIRST_OF_TWO,
    LAST_OF_TWO,
    LOST,
    PASS,
    RESET,
    SLOW,
    every,
)

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.files import s3_server
from beam_flowers.images.find import find_images
from beam_flowers.records import Image

pytestmark = pytest.mark.engines

NAMES = [
    "a b.jpg",
    "y[1].jpg",
    "x*?.jpg",
    "per%20cent.jpg",
    "a+b.jpg",
    "amp&equals=#.jpg",
    "ほうせんか é.jpg",
    "é decomposed.jpg",
    "quote'\"<>.jpg",
    "new\nline.jpg",
    "back\\slash.jpg",
    "z.gz",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_that_name_and_no_other(reached, name):
    uri = files.join(reached.uri, "a [folder] + more", name)
    files.write_atomic(uri, b"\x1f\x8b rose")
    assert (reached.folder / "a [folder] + more" / name).read_bytes() == b"\x1f\x8b rose"
    assert files.read_bytes(uri) == b"\x1f\x8b rose"
    assert files.read_bytes(uri, limit=2) == b"\x1f\x8b"
    assert files.stat(uri).bytes == 7
    assert [e.uri for e in files.list_folder(files.parent(uri))] == [uri]
    assert [e.uri for e in files.walk(reached.uri)] == [uri]
    moved = files.join(reached.uri, "to", name)
    files.move(uri, moved)
    assert not files.exists(uri)
    assert files.read_bytes(moved) == b"\x1f\x8b rose"
    files.delete(moved)
    files.delete(moved)
    assert list(files.walk(reached.uri)) == []


def test_listings(reached):
    for name in ("b", "a[1]/x", "a[1]/y/z", "a1/x", "a1-/x", "empty/", "top//double"):
        path = reached.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_bytes(b"1")
    found = sorted((e.name, e.kind) for e in files.list_folder(reached.uri))
    assert ("a1", "folder") in found
    assert ("b", "file") in found
    assert len([name for name, _ in found if name == "a1"]) == 1
    walked = {files.relative(e.uri, reached.uri) for e in files.walk(reached.uri)}
    assert walked >= {"a1-/x", "a1/x", "a[1]/x", "a[1]/y/z", "b"}
    assert files.is_folder(files.join(reached.uri, "a[1]"))
    assert not files.is_folder(files.join(reached.uri, "a"))
    assert not files.exists(files.join(reached.uri, "a"))
    assert files.is_folder(reached.uri)


def test_a_listing_comes_page_by_page(reached):
    (reached.folder / "many").mkdir()
    for number in range(2500):
        (reached.folder / "many" / f"{number:04d}.jpg").touch()
    listing = files.walk(files.join(reached.uri, "many"))
    first = next(listing)
    assert first.name == "0000.jpg"
    assert reached.proxy.requests == {"GET": 1}
    assert len(list(listing)) == 2499
    assert reached.proxy.requests == {"GET": 3}


def test_listing_and_asking_agree_on_the_time(reached):
    uri = files.join(reached.uri, "a.jpg")
    files.write_atomic(uri, b"1")
    asked, (listed,) = files.stat(uri), files.walk(reached.uri)
    assert (asked.bytes, asked.modified) == (listed.bytes, listed.modified)


def test_missing_files(reached):
    missing = files.join(reached.uri, "missing")
    assert not files.exists(missing)
    for ask in (files.stat, files.read_bytes, files.open_read):
        with pytest.raises(FileNotFoundError, match="missing"):
            ask(missing)
    with pytest.raises(FileNotFoundError):
        files.move(missing, files.join(reached.uri, "b"))


@pytest.mark.parametrize("size", [0, 1, 70_000, 1_500_000])
def test_reading_by_ranges(reached, size):
    data, uri = random.Random(size).randbytes(size), files.join(reached.uri, "a")
    files.write_atomic(uri, data)
    with files.open_read(uri) as file:
        assert file.read() == data
        for start in (0, size // 3, max(0, size - 10), size, size + 5):
            file.seek(start)
            assert file.read(1000) == data[start : start + 1000]
        assert file.seek(0, io.SEEK_END) == size
        assert file.read(1) == b""


def test_a_file_that_is_replaced_while_it_is_read_is_an_error(reached):
    uri = files.join(reached.uri, "a")
    files.write_atomic(uri, bytes(1_500_000))
    with files.open_read(uri) as file:
        files.write_atomic(uri, b"1" * 1_500_000)
        with pytest.raises(OSError, match="replaced"):
            file.read(100)


def test_requests_each_thing_takes(reached):
    uri, table = files.join(reached.uri, "a"), pa.table({"n": range(100_000)})
    files.write_atomic(uri, b"1" * 1000)
    assert reached.proxy.requests == {"PUT": 1}
    files.read_bytes(uri, limit=10**9)
    assert reached.proxy.requests == {"PUT": 1, "GET": 1}
    assert files.exists(uri)
    assert reached.proxy.requests == {"PUT": 1, "GET": 1, "HEAD": 1}
    with files.open_read(uri) as file:
        assert len(file.readlines()) == 1
    assert reached.proxy.requests == {"PUT": 1, "GET": 2, "HEAD": 1}
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="none", use_dictionary=False)
    files.write_atomic(uri, sink.getvalue())
    reached.proxy.requests.clear()
    with files.open_read(uri) as file:
        assert pq.ParquetFile(file, pre_buffer=True).read() == table
    assert reached.proxy.requests == {"GET": 2}


def test_a_listing_of_images_opens_none(reached):
    for number in range(20):
        files.write_atomic(files.join(reached.uri, "roses", f"{number}.jpg"), b"1")
    reached.proxy.requests.clear()
    images = [found for found in find_images([reached.uri]) if isinstance(found, Image)]
    assert {image.label for image in images} == {"roses"}
    assert len(images) == 20
    assert reached.proxy.requests == {"GET": 3}


def test_put_if_absent_has_one_winner(reached):
    uri, won = files.join(reached.uri, "commits", "1.json"), []

    def put(number):
        if files.put_if_absent(uri, b"%d" % number * 9999):
            won.append(number)

    threads = [threading.Thread(target=put, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert files.read_bytes(uri) == b"%d" % won[0] * 9999


def first_change(*faults):
    """The faults for the first changes, one each."""
    left = list(faults)
    return lambda method, path: left.pop(0) if left and method in CHANGES else PASS


@pytest.mark.parametrize("fault", [LOST, CUT, LAST_OF_TWO])
def test_put_if_absent_may_find_its_own_file(reached, fault):
    uri = files.join(reached.uri, "commits", "1.json")
    reached.proxy.fault = first_change(fault)
    assert not files.put_if_absent(uri, b"rose")
    assert files.read_bytes(uri) == b"rose"


@pytest.mark.parametrize(
    "faults",
    [
        [FAILED],
        *([fault] for fault in (LOST, CUT, FIRST_OF_TWO, LAST_OF_TWO)),
        *([PASS, fault] for fault in (LOST, CUT, FIRST_OF_TWO, LAST_OF_TWO)),
    ],
    ids="-".join,
)
def test_a_move_is_whole_whatever_becomes_of_its_copy_or_deletion(reached, faults):
    source, target = (files.join(reached.uri, name) for name in ("work/a", "b"))
    files.write_atomic(source, b"rose")
    reached.proxy.fault = first_change(*faults)
    files.move(source, target)
    assert reached.proxy.faults == 1
    assert files.read_bytes(target) == b"rose"
    assert not files.exists(source)


def test_the_proxy_carries_a_request_out_again_before_the_third_that_follows(reached):
    first, *others = (files.join(reached.uri, name) for name in "abcd")
    reached.proxy.fault = first_change(AGAIN)
    files.write_atomic(first, b"rose")
    files.delete(first)
    files.write_atomic(others[0], b"1")
    assert not files.exists(first)
    files.write_atomic(others[1], b"1")
    assert files.read_bytes(first) == b"rose"
    assert reached.proxy.repeated == [("PUT", f"{reached.uri[4:]}/a", 200)]
    reached.proxy.fault = first_change(AGAIN)
    files.delete(others[1])
    files.write_atomic(others[1], b"2")
    reached.proxy.repeat()
    assert not files.exists(others[1])


def test_an_answer_that_is_later_than_the_clients_patience(reached, monkeypatch):
    config, uri = s3_server.Config, files.join(reached.uri, "a")
    monkeypatch.setattr(s3_server, "Config", lambda **g: config(**{**g, "read_timeout": 0.5}))
    reached.proxy.fault = first_change(SLOW)
    files.write_atomic(uri, b"rose")
    assert reached.proxy.requests["PUT"] == 2
    assert files.read_bytes(uri) == b"rose"


def test_files_survive_a_server_that_fails_now_and_then(reached):
    data = random.Random(0).randbytes(200_000)
    reached.proxy.fault = every(3, BUSY, RESET, CUT)
    for number in range(5):
        uri = files.join(reached.uri, f"{number}")
        files.write_atomic(uri, data)
        assert files.read_bytes(uri) == data
        with files.open_read(uri) as file:
            assert file.read() == data
    assert len(list(files.walk(reached.uri))) == 5
    assert reached.proxy.faults > 6


def test_a_file_at_fault_is_no_fault_of_the_server(reached):
    files.write_atomic(files.join(reached.uri, "good"), b"1")
    reached.proxy.fault = lambda method, path: BUSY if path.endswith("bad") else "pass"
    s3_server._server().retries.patience = 1
    with pytest.raises(OSError, match="503: SlowDown"):
        files.read_bytes(files.join(reached.uri, "bad"))
    assert files.read_bytes(files.join(reached.uri, "good")) == b"1"


def test_wrong_credentials_are_told_at_once(reached, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match=r"SignatureDoesNotMatch.*AWS_SECRET_ACCESS_KEY"):
        files.read_bytes(files.join(reached.uri, "a"))
    assert sum(reached.proxy.requests.values()) == 1


@pytest.mark.parametrize("uri", ["s3://no-such-bucket", "s3://no-such-bucket/a/b", "s3://a"])
def test_a_bucket_that_is_not_there(reached, uri):
    with pytest.raises(InputError, match=r"check the bucket's name|Invalid bucket name"):
        files.exists(uri)
