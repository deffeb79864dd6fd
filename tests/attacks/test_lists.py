"""Lists and manifests from anyone: none costs more than a little, and none ends more than itself.

What whoever writes a list would gain: the end of the machine's memory by 500 bytes of Parquet, the
end of a whole worker by a crash in C, a run that never ends, an error that no program expects.

`LISTS=100000 SEED=1 pytest tests/attacks/test_lists.py -k mutated` tries so many mutated ones of
each kind. Of Parquet it is a hundredth, as each takes a process.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import make_images
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from beam_flowers.errors import InputError
from beam_flowers.images import parquet_rows
from beam_flowers.images.find import FILES_FROM, find_images
from beam_flowers.images.manifest import read_manifest, read_paths
from beam_flowers.records import Image, Reject, RootListed

MIB = 2**20
LISTS, SEED = (int(os.environ.get(n, d)) for n, d in (("LISTS", 100), ("SEED", 0)))


def written(path: Path, columns: dict[str, object], **options: object) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def one_name(text: str, rows: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), [text])


def refused(path: Path | str) -> str:
    with pytest.raises(InputError) as error:
        list(read_manifest(str(path)))
    assert str(error.value).startswith(f"{str(path)!r}")
    assert len(str(error.value)) < 700
    return str(error.value)


class TestParquet:
    def test_a_long_text_that_every_row_has(self, tmp_path):
        path = written(
            tmp_path / "m.parquet",
            {"uri": one_name("x" * 100_000, 100_000)},
            compression="zstd",
            dictionary_pagesize_limit=2**30,
        )
        assert path.stat().st_size < 1000
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert "row 1: uri of 100,000 characters, more than 8,192" in refused(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024

    def test_a_text_without_an_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(parquet_rows, "_MOST_MEMORY", 32 * MIB)
        path = written(
            tmp_path / "m.parquet",
            {"label": ["x" * (40 * MIB)], "uri": ["a.jpg"]},
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
        )
        assert path.stat().st_size < 20_000
        assert "takes more than 32 MiB of memory" in refused(path)

    def test_more_rows_than_names_fit_into_the_file(self, tmp_path):
        path = written(tmp_path / "m.parquet", {"uri": one_name("a.jpg", 3_000_000)})
        assert "it has 3,000,000 rows or more in" in refused(path)

    def test_a_schema_that_is_too_deep_for_the_library(self, tmp_path):
        path = tmp_path / "m.parquet"
        path.write_bytes(deep_parquet(20_000))
        assert "it ends the process that reads it (SIGSEGV)" in refused(path)

    def test_what_is_no_text(self, tmp_path):
        path = written(tmp_path / "m.parquet", {"uri": [["a.jpg"]]})
        assert "uri is of type list<" in refused(path)

    def test_text_that_is_not_utf_8(self, tmp_path):
        buffers = pa.array([b"\xff.jpg"], pa.binary()).buffers()
        column = pa.Array.from_buffers(pa.string(), 1, buffers)
        assert "utf-8" in refused(written(tmp_path / "m.parquet", {"uri": column}))

    def test_a_row_that_is_wrong_is_named(self, tmp_path):
        path = written(tmp_path / "m.parquet", {"uri": ["a.jpg"] * 300 + [None]})
        assert refused(path).startswith(f"{str(path)!r}, row 301: uri is empty")

    def test_all_kinds_of_text_are_read(self, tmp_path):
        names, labels = ["a.jpg", "玫瑰.jpg"] * 300, ["rose", None] * 300
        columns = {
            "file_name": pa.array(names, pa.string_view()),
            "label": pa.array(labels).dictionary_encode(),
            "split": pa.array(["val"] * 600, pa.large_string()),
        }
        found = list(read_manifest(str(written(tmp_path / "m.parquet", columns))))
        images = [one.image for one in found if isinstance(one, Reject)]
        assert [image.relative_path for image in images] == names
        assert [image.label for image in images] == labels
        assert {image.split for image in images} == {"validation"}

    def test_who_stops_early_leaves_no_process(self, tmp_path, monkeypatch):
        started, start = [], subprocess.Popen

        def recorded(*arguments, **options):
            started.append(start(*arguments, **options))
            return started[-1]

        monkeypatch.setattr(subprocess, "Popen", recorded)
        path = written(tmp_path / "m.parquet", {"uri": [f"{i}.jpg" for i in range(10_000)]})
        with path.open("rb") as file:
            rows = parquet_rows.parquet_rows(file, ["uri"], [])
            assert next(rows) == {"uri": "0.jpg"}
            rows.close()
        assert [process.returncode for process in started] == [-signal.SIGKILL]


class TestLines:
    """A file without a newline is one line, however many gigabytes it has."""

    @pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.txt", "m.list"])
    def test_one_without_an_end(self, tmp_path, name):
        path = sparse(tmp_path / name, b"a.jpg\n" if name != "m.jsonl" else b'{"uri": "a.jpg"}\n')
        said = refused(path)
        assert "line 2: longer than 1,048,576 bytes" in said
        assert said.count("line 2") == 1

    @pytest.mark.parametrize("beginning", [b"a.jpg\n", b"a.jpg\0"])
    def test_a_list_of_paths(self, tmp_path, beginning):
        path = sparse(tmp_path / "paths", beginning, b"x")
        with pytest.raises(InputError, match=r"paths', (line|name) 2: longer than 1,048,576"):
            list(read_paths(str(path)))

    def test_a_row_of_csv_that_goes_on_over_lines(self, tmp_path):
        path = tmp_path / "m.csv"
        path.write_text("uri,label\n" + '"a\n",' * 300_000)
        assert "a row that is longer than 1,048,576 characters; check its quotes" in refused(path)

    @pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.txt"])
    @pytest.mark.parametrize("length", [8192, 8193])
    def test_a_name(self, tmp_path, name, length):
        text = "x" * (length - 4) + ".jpg"
        path = tmp_path / name
        path.write_text(json.dumps({"uri": text}) if name == "m.jsonl" else text)
        if length > 8192:
            assert "of 8,193 characters, more than 8,192" in refused(path)
            assert "line 1" in refused(path)
        else:
            assert len(list(read_manifest(str(path)))) == 1

    @pytest.mark.parametrize(
        "text", ["[" * 200_000, '{"uri":' * 100_000, '{"uri": ' + "9" * 10_000]
    )
    def test_json_that_is_too_much_for_its_reader(self, tmp_path, text):
        path = tmp_path / "m.jsonl"
        path.write_text(text)
        assert "line 1: " in refused(path)


def sparse(path: Path, beginning: bytes, then: bytes = b"") -> Path:
    """A file of 4 GiB that takes no room on the disk."""
    with path.open("wb") as file:
        file.write(beginning + then * 2 * MIB)
        if not then:
            file.truncate(4 << 30)
    return path


def deep_parquet(levels: int) -> bytes:
    """A Parquet file without rows, of a column `uri` and one inside of so many groups."""
    leaf, group = 6, None
    elements = [element(b"schema", group, 2), element(b"uri", leaf)]
    elements += [element(b"x", group, 1) for _ in range(levels)] + [element(b"x", leaf)]
    # Thrift's compact protocol: version, schema, number of rows, row groups.
    about = b"\x15\x02" + b"\x19\xfc" + varint(len(elements)) + b"".join(elements)
    about += b"\x16\x00" + b"\x19\x0c" + b"\0"
    return b"PAR1" + about + struct.pack("<I", len(about)) + b"PAR1"


def element(name: bytes, kind: int | None, children: int = 0) -> bytes:
    of_kind = b"" if kind is None else b"\x15" + varint(2 * kind)
    repetition = (b"\x35" if kind is None else b"\x25") + varint(2)
    number = b"\x15" + varint(2 * children) if children else b""
    return of_kind + repetition + b"\x18" + varint(len(name)) + name + number + b"\0"


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


TOKENS = [
    *(b'"', b"'", b",", b"\t", b"\n", b"\r", b"\r\n", b"\0", b"\\", b"#", b"\xef\xbb\xbf", b"~/"),
    *(b"../", b"/", b"//", b"file://", b"s3://b/", b"S3://", b"tar://", b"tar+tar+s3://", b"!/"),
    *(b"tfrecord://", b"://", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u0000", b"\xe2\x80\xa8"),
    *(b"{", b"}", b"[", b"]" * 9, b"null", b"NaN", b"1e999", b"-1", b"true", b"9" * 5000),
    *(b"uri", b"path", b"file_name", b"label", b"split", b"sha256", b"train", b"'=", b"x" * 9000),
]
ROWS = [{"uri": "a.jpg", "label": "rose", "split": "train"}, {"uri": "玫瑰.jpg", "label": "玫"}]
SOUND = {
    "m.csv": 'uri,label,split\na.jpg,rose,train\n"b, [1].jpg",,\n玫瑰.jpg,玫,val\n'.encode(),
    "m.tsv": "path\tlabel\r\na.jpg\trose\r\n玫瑰.jpg\t玫\r\n".encode(),
    "m.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode(),
    "m.txt": "\ufeff# images\na.jpg\n./玫瑰.jpg\ntar://x.tar!/a.jpg\n".encode(),
    "paths": "a.jpg\nsub/玫瑰.jpg\n".encode(),
    "paths0": "a.jpg\0sub/玫瑰.jpg\0".encode(),
}


def mutated(data: bytes, seed: int) -> bytes:
    """Some damage of bytes, then some words that mean something to one reader or another."""
    draw = random.Random(seed)
    for _ in range(draw.randrange(3)):
        data = make_images.mutated(data or b"x", draw.getrandbits(32))
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(data) + 1)
        data = data[:at] + draw.choice(TOKENS) * draw.choice((1, 1, 1, 2, 2000)) + data[at:]
    return data


def parquet_seeds() -> Iterator[bytes]:
    names = [f"{i}.jpg" for i in range(500)]
    table = pa.table({"uri": names, "label": ["rose", None] * 250, "size": range(500)})
    for codec in ("none", "snappy", "zstd", "gzip"):
        for options in (
            {},
            {"use_dictionary": False, "column_encoding": {"uri": "DELTA_BYTE_ARRAY"}},
            {"use_dictionary": False, "data_page_version": "2.0", "row_group_size": 100},
        ):
            file = io.BytesIO()
            pq.write_table(table, file, compression=codec, **options)
            yield file.getvalue()


def listed(path: Path) -> int:
    """Counts what a file names, 0 if that is refused; any other error, or a minute, fails."""
    source = f"{FILES_FROM}{path}" if path.name.startswith("paths") else str(path)
    said, begun = "", time.monotonic()
    try:
        found = list(find_images([source]))
    except InputError as error:
        said = str(error)
    assert time.monotonic() - begun < 60
    if said:
        assert str(path) in said
        assert len(said) < 1000
        return 0
    assert isinstance(found.pop(), RootListed)
    for one in found:
        image = one.image if isinstance(one, Reject) else one
        assert isinstance(image, Image)
        "".join(text or "" for text in image[:5]).encode()
    return len(found)


@pytest.mark.timeout(300 + LISTS)
@pytest.mark.parametrize("name", [*SOUND, "m.parquet"])
def test_mutated_lists_give_rows_rejects_or_one_kind_of_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"123")
    seeds = list(parquet_seeds()) if name == "m.parquet" else [SOUND[name]]
    count = max(3, LISTS // 100) if name == "m.parquet" else LISTS
    for sound in seeds[: count // 3]:
        (tmp_path / name).write_bytes(sound)
        assert listed(tmp_path / name) >= 2
    before, rows, errors = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0, 0
    for number in range(SEED * count, (SEED + 1) * count):
        (tmp_path / name).write_bytes(mutated(seeds[number % len(seeds)], number))
        try:
            found = listed(tmp_path / name)
        except BaseException:
            print("seed", number)
            raise
        rows, errors = rows + found, errors + (not found)
    assert rows
    assert errors
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024
