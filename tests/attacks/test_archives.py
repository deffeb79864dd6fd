"""Zips from anyone: each member costs itself, and no more than it has.

What whoever sends one would gain: memory and hours for a few bytes, images nobody sees damaged, a
run that ends. Tars and TFRecords are in `test_rows.py`, mutated archives in `test_fuzz.py`.
"""

import json
import random
import re
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import make_images
import pytest
from shards import example, record, write_tar, write_zip
from stores import cli, rejects, rows

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.files import zips
from beam_flowers.images.find import find_images
from beam_flowers.records import Image, Reject, RootListed

A, B = make_images.jpeg(seed=1), make_images.png(seed=2)


def found(source):
    return list(find_images([str(source)]))


def reasons(source):
    """Class of the reject of each member: that of the listing, or of reading it."""
    given = {}
    for one in found(source):
        if isinstance(one, Reject):
            given[one.image.relative_path] = one.error_class
        elif isinstance(one, Image):
            try:
                files.read_bytes(one.uri)
            except files.MemberError as error:
                given[one.relative_path] = error.error_class
    return given


def patched(path, *, entry=0, **fields):
    """Changes fields of the entry of that number in the list of a zip."""
    places = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<L"), "packed": (20, "<L")}
    places |= {"size": (24, "<L"), "offset": (42, "<L")}
    data = bytearray(path.read_bytes())
    at = -1
    for _ in range(entry + 1):
        at = data.index(b"PK\1\2", at + 1)
    for name, value in fields.items():
        place, form = places[name]
        struct.pack_into(form, data, at + place, value)
    path.write_bytes(data)
    return path


@pytest.fixture
def pair(tmp_path):
    return write_zip(tmp_path / "x.zip", [("r/a.jpg", A), ("r/b.png", B)])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"flags": 0x1}, "Encrypted"),
        ({"flags": 0x40 | 0x1}, "Encrypted"),
        ({"flags": 0x2000}, "Encrypted"),
        ({"method": 9}, "UnsupportedCompression"),
        ({"method": 99, "flags": 1}, "Encrypted"),
        ({"method": 65535}, "UnsupportedCompression"),
        ({"method": 0}, "DamagedMember"),
        ({"crc": 1}, "BadChecksum"),
        ({"size": len(A) + 1}, "DamagedMember"),
        ({"size": len(A) - 1}, "BadChecksum"),
        ({"size": 0}, "BadChecksum"),
        ({"size": 2**31}, "TooCompressed"),
        ({"packed": 0}, "DamagedMember"),
        ({"packed": 10}, "DamagedMember"),
        ({"packed": 2**32 - 2}, "DamagedMember"),
        ({"offset": 1}, "DamagedMember"),
        ({"offset": 2**32 - 2}, "DamagedMember"),
    ],
)
def test_an_entry_that_is_not_true_costs_its_member(pair, fields, reason):
    patched(pair, **fields)
    assert reasons(pair) == {"r/a.jpg": reason}
    assert found(pair)[-1] == RootListed(str(pair), True)


@pytest.mark.parametrize(
    ("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")]
)
def test_packers_whose_memory_has_no_bound_are_named(tmp_path, method, name):
    write_zip(tmp_path / "x.zip", [("a.jpg", A)], method)
    (reject,) = (f for f in found(tmp_path / "x.zip") if isinstance(f, Reject))
    assert reject.error_class == "UnsupportedCompression"
    assert f"packed by {name};" in reject.message


def test_what_zip_encrypts(tmp_path):
    if not shutil.which("zip"):
        pytest.skip("needs Info-ZIP")
    (tmp_path / "a.jpg").write_bytes(A)
    command = ["zip", "-q", "-P", "secret", "x.zip", "a.jpg"]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert reasons(tmp_path / "x.zip") == {"a.jpg": "Encrypted"}


class TestBombs:
    def test_zeros(self, tmp_path):
        path = write_zip(tmp_path / "x.zip", [("a.bmp", bytes(10 << 20)), ("b.png", B)])
        assert reasons(path) == {"a.bmp": "TooCompressed"}

    @pytest.mark.parametrize("size", [0, 1000, 1 << 20])
    def test_zeros_that_say_they_are_less(self, tmp_path, size):
        path = write_zip(tmp_path / "x.zip", [("a.bmp", bytes(10 << 20))])
        patched(path, size=size)
        tracemalloc.start()
        assert reasons(path) == {"a.bmp": "BadChecksum"}
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5 << 20

    def test_of_a_larger_member_only_the_beginning_is_unpacked(self, tmp_path):
        noise = random.Random(0).randbytes(1 << 18)
        path = write_zip(tmp_path / "x.zip", [("a.bmp", noise * 16)])
        tracemalloc.start()
        assert files.read_bytes(f"zip://{path}!/a.bmp", 1000) == noise[:1000]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 << 20

    def test_members_within_members(self, tmp_path):
        """As in David Fifield's zip bomb: each member packs all that come behind it."""
        kernel = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = kernel.compress(bytes(1 << 20)) + kernel.flush()
        local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 0, 0, 0, 0, 1, 0)
        count = 30
        data = b"".join(local + bytes([97 + i % 26]) for i in range(count)) + packed
        entries = b""
        for number in range(count):
            name = f"{number:02}.bmp".encode()
            size = len(data) - number * (len(local) + 1) - len(local) - 1
            sizes = (0, size, 1 << 20, len(name), 0, 0, 0, 0, 0, number * (len(local) + 1))
            entries += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 8, 0, 0, *sizes) + name
        end = (0, 0, count, count, len(entries), len(data), 0)
        path = tmp_path / "x.zip"
        path.write_bytes(data + entries + struct.pack("<4s4H2LH", b"PK\5\6", *end))
        given = reasons(path)
        assert [given[f"{n:02}.bmp"] for n in range(1, count)] == ["OverlappingMember"] * 29

    def test_two_names_of_one_member(self, pair):
        patched(pair, entry=1, offset=0)
        assert reasons(pair) == {"r/b.png": "OverlappingMember"}

    def test_a_deflate_stream_that_gives_nothing(self, tmp_path):
        """Ten million empty blocks: linear in what the file has, and never in memory."""
        empty = b"\0\0\0\xff\xff" * 200_000
        path = write_zip(tmp_path / "x.zip", [("a.jpg", empty)], zipfile.ZIP_STORED)
        patched(path, method=8, size=5)
        assert reasons(path) == {"a.jpg": "DamagedMember"}


class TestNesting:
    def test_archives_in_archives_are_named(self, tmp_path):
        inner = write_zip(tmp_path / "i.zip", [("a.jpg", A)]).read_bytes()
        tar = write_tar(tmp_path / "i.tar", [("a.jpg", A)]).read_bytes()
        contents = [("a.jpg", A), ("i.zip", inner), ("x.jpg", inner), ("i.tar", tar)]
        contents += [("i.tar.gz", b"\x1f\x8b" + tar), ("photo.tar", B)]
        (tmp_path / "x.tfrecord").write_bytes(record(example(image=inner)))
        write_zip(tmp_path / "x.zip", contents)
        write_tar(tmp_path / "x.tar", contents)
        for kind in ("zip", "tar"):
            given = reasons(tmp_path / f"x.{kind}")
            assert given == dict.fromkeys(("i.zip", "x.jpg", "i.tar", "i.tar.gz"), "NestedArchive")
        (tmp_path / "m.csv").write_text(f"uri\nzip+zip://{tmp_path}/x.zip!/i.zip!/a.jpg\n")
        assert list(reasons(tmp_path / "m.csv").values()) == ["UnknownAddress"]
        # Not gone into by its address either.
        uri = f"zip://{tmp_path}/x.zip!/i.zip"
        with pytest.raises(InputError, match="archive inside of another"):
            list(find_images([f"tfrecord://{tmp_path}/x.tfrecord!/0"]))
        assert [f.uri for f in found(uri) if isinstance(f, Image)] == [uri]


class TestTheList:
    @pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.99])
    def test_a_truncated_zip_is_one_reject(self, pair, kept):
        data = pair.read_bytes()
        pair.write_bytes(data[: int(len(data) * kept)])
        assert reasons(pair) == {"x.zip": "DamagedShard"}
        assert found(pair)[-1] == RootListed(str(pair), False)

    def test_what_stands_before_its_damage_is_used(self, pair):
        data = bytearray(pair.read_bytes())
        data[data.rindex(b"PK\1\2")] = 0
        pair.write_bytes(data)
        assert [f.relative_path for f in found(pair) if isinstance(f, Image)] == ["r/a.jpg"]
        assert reasons(pair) == {"x.zip": "DamagedShard"}

    @pytest.mark.parametrize(
        ("at", "form", "value", "message"),
        [
            (4, "<H", 1, "several files"),
            (10, "<H", 3, "has 2 of 3"),
            (12, "<L", 0xFFFFFFFE, "begin before the file"),
            (12, "<L", 0, "0 of 2"),
            (16, "<L", 0xFFFFFFFE, "begin before the file"),
        ],
    )
    def test_its_end_lies(self, pair, at, form, value, message):
        data = bytearray(pair.read_bytes())
        struct.pack_into(form, data, data.rindex(b"PK\5\6") + at, value)
        pair.write_bytes(data)
        (reject,) = (f for f in found(pair) if isinstance(f, Reject))
        assert reject.error_class == "DamagedShard"
        assert message in reject.message

    def test_it_claims_gigabytes(self, tmp_path):
        """A file with holes has them for nothing."""
        path, length = tmp_path / "x.zip", 3 << 30
        with open(path, "wb") as file:
            file.write(b"PK\1\2")
            file.seek(length)
            file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, length, 0, 0))
        tracemalloc.start()
        assert reasons(path) == {"x.zip": "DamagedShard"}
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()

    def test_it_has_more_members_than_are_kept(self, tmp_path, monkeypatch):
        monkeypatch.setattr(zips, "_MOST_MEMBERS", 100)
        path = write_zip(tmp_path / "x.zip", [(f"{n}.jpg", b"") for n in range(101)])
        listed = found(path)
        assert sum(isinstance(f, Image) for f in listed) == 100
        (reject,) = (f for f in listed if isinstance(f, Reject))
        assert "more than 100 members; make several zips" in reject.message
        assert listed[-1] == RootListed(str(path), False)

    @pytest.mark.slow
    def test_a_member_takes_400_bytes_at_most(self, tmp_path):
        """So that the two million that are allowed take less than a gigabyte."""
        count = 2**18
        path = tmp_path / "x.zip"
        with open(path, "wb") as file:
            name = b"photographs/%07d.jpg"
            length = len(name % 0)
            local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, length, 0)
            for number in range(count):
                file.write(local + name % number)
            start = file.tell()
            for number in range(count):
                numbers = (0, 0, 0, length, 0, 0, 0, 0, 0, number * (len(local) + length))
                entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, *numbers)
                file.write(entry + name % number)
            end = file.tell()
            size = end - start
            file.write(
                struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 9, count, size, start)
            )
            file.write(struct.pack("<4sLQL", b"PK\6\7", 0, end, 1))
            file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, size, 9, 0))
        script = (
            "import resource\nfrom beam_flowers.images.find import find_images\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10\n"
            f"before = peak(); count = sum(1 for _ in find_images([{str(path)!r}]))\n"
            "print(count, peak() - before)"
        )
        run = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        listed, grown = map(int, run.stdout.split())
        assert listed == count + 1
        assert grown < 400 * count

    @pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1])
    @pytest.mark.parametrize("field", [0, 1, 2])
    def test_numbers_that_no_file_has(self, tmp_path, number, field):
        """In a manifest, the size of a member becomes that of a row."""
        extra = [5, 5, 0]
        extra[field] = number
        fields = struct.pack("<2H3Q", 1, 24, *extra)
        local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 0, 0, 5, 0) + b"a.jpg" + A
        wide = (0, 2**32 - 1, 2**32 - 1, 5, len(fields), 0, 0, 0, 0, 2**32 - 1)
        entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, *wide)
        entry += b"a.jpg" + fields
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(entry), len(local), 0)
        path = tmp_path / "x.zip"
        # What stands before it is added to the offset.
        path.write_bytes(b"MZ" + local + entry + end)
        expected = "TooCompressed" if field == 0 else "DamagedMember"
        assert reasons(path) == {"a.jpg": expected}
        (tmp_path / "m.csv").write_text(f"uri\nzip://{path}!/a.jpg\n")
        (listed, _) = found(tmp_path / "m.csv")
        assert listed.bytes is None

    @pytest.mark.timeout(60)
    def test_it_is_its_own_extra_field(self, pair):
        """Extra fields of no length must not be gone through for ever."""
        data = zips._in_64_bits(b"\2\0\0\0" * 16_000 + b"\1\0\0", 2**32 - 1, 1, 2)
        assert data == [2**32 - 1, 1, 2]


def test_a_run_takes_what_is_sound_and_names_the_rest(tmp_path, capsys):
    """Through the pipeline; `score`, `report` and `review` read members by the same function."""
    contents = [(f"{n}.jpg", make_images.jpeg(seed=n)) for n in range(5)]
    noise = random.Random(0).randbytes(50_000)
    path = write_zip(tmp_path / "x.zip", [*contents, ("5.jpg", A + noise)])
    patched(path, entry=1, crc=1)
    patched(path, entry=2, flags=1)
    rows_of = "".join(json.dumps({"uri": f"zip://{path}!/{n}.jpg"}) + "\n" for n in range(7))
    (tmp_path / "m.jsonl").write_text(rows_of)
    expected = {"1": "BadChecksum", "2": "Encrypted", "5": "TooLarge"}
    for source, missing in ((path, {}), (tmp_path / "m.jsonl", {"6": "NotFound"})):
        store = tmp_path / f"store{source.suffix}"
        assert cli("embed", source, "--store", store, "--max-bytes", "40000") == 0
        assert len(rows(store)) == 3
        given = {f"zip://{path}!/{n}.jpg": c for n, c in {**expected, **missing}.items()}
        assert rejects(store) == given
    # Verdicts: nothing is read again, and no version is made.
    capsys.readouterr()
    assert cli("embed", path, "--store", tmp_path / "store.zip", "--max-bytes", "40000") == 0
    assert cli("history", tmp_path / "store.zip") == 0
    assert len(re.findall(r"^ +\d+ ", capsys.readouterr().out, re.M)) == 1
