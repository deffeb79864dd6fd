"""Images in zips: found and read as Python's zipfile does, where that reads them at all."""

import io
import os
import stat
import struct
import zipfile

import make_images
import pytest
from shards import write_zip

from beam_flowers import files
from beam_flowers.files import zips
from beam_flowers.images.find import find_images
from beam_flowers.pages.thumbnails import read_thumbnail
from beam_flowers.records import HiddenFile, Image, Reject, RootListed

A, B = make_images.jpeg(seed=1), make_images.png(seed=2)
LIST = b"PK\1\2"


def found(source):
    return list(find_images([str(source)]))


def images(source):
    return [f for f in found(source) if isinstance(f, Image)]


def bad(source):
    return {f.image.relative_path: f.error_class for f in found(source) if isinstance(f, Reject)}


def as_zipfile_reads(path):
    with zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        return {info.filename: archive.read(info) for info in infos}


def as_we_read(path):
    return {i.relative_path: files.read_bytes(i.uri) for i in images(path)}


def test_members_by_address(tmp_path):
    path = write_zip(tmp_path / "x.zip", [("rose/1.jpg", A), ("tulip/2.png", B)])
    os.utime(path, (1_800_000_000, 1_800_000_000))
    listed = images(path)
    uris = [f"zip://{path}!/rose/1.jpg", f"zip://{path}!/tulip/2.png"]
    assert [i.uri for i in listed] == uris
    assert [(i.label, i.bytes) for i in listed] == [("rose", len(A)), ("tulip", len(B))]
    assert {i.modified for i in listed} == {1_800_000_000_000_000}
    assert [files.read_bytes(i.uri) for i in listed] == [A, B]
    assert [files.read_bytes(uris[0], n) for n in (0, 10, len(A), len(A) + 9)] == [
        b"", A[:10], A, A,
    ]  # fmt: skip
    assert files.open_read(uris[1]).read() == B
    assert files.stat(uris[1]).bytes == len(B)
    assert [files.exists(u) for u in (uris[0], uris[0] + "x")] == [True, False]
    assert files.absolute(uris[0]) == uris[0]
    assert found(path)[-1] == RootListed(str(path), True)
    assert images(uris[0])[0].bytes == len(A)


class Unseekable(io.RawIOBase):
    """Where zipfile writes the sizes behind the data."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.data += data
        return len(data)


def streamed(path):
    target = Unseekable()
    write_zip(target, [("r/a.jpg", A), ("r/b.png", B)])
    path.write_bytes(target.data)


def with_64_bits(path, monkeypatch):
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 500)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    write_zip(path, [("r/a.jpg", A), ("r/b.png", B)])
    assert b"PK\6\6" in path.read_bytes()


def commented(path):
    write_zip(path, [("r/a.jpg", A)])
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"from a friend " * 4000


def behind_a_program(path):
    write_zip(path, [("r/a.jpg", A), ("r/b.png", B)])
    path.write_bytes(b"MZ" + b"." * 3000 + path.read_bytes())


@pytest.mark.parametrize(
    "make",
    [
        lambda path: write_zip(path, [("r/a.jpg", A), ("r/b.png", B)]),
        lambda path: write_zip(path, [("r/a.jpg", A), ("r/b.png", B)], zipfile.ZIP_STORED),
        lambda path: write_zip(path, [("玫瑰/é/ü!/a.jpg", A), ("a!/b,\n%20.png", B), ("e", b"")]),
        lambda path: write_zip(
            path, [("big/noise", os.urandom(3 << 20)), ("big/0", bytes(1 << 20))]
        ),
        lambda path: write_zip(path, []),
        streamed,
        commented,
        behind_a_program,
    ],
)
def test_forms_that_zipfile_writes(tmp_path, make):
    path = tmp_path / "wow!" / "x.zip"
    path.parent.mkdir()
    make(path)
    assert as_we_read(path) == as_zipfile_reads(path)
    assert not bad(path)


def test_zip64(tmp_path, monkeypatch):
    with_64_bits(tmp_path / "x.zip", monkeypatch)
    assert as_we_read(tmp_path / "x.zip") == {"r/a.jpg": A, "r/b.png": B}
    assert as_we_read(tmp_path / "x.zip") == as_zipfile_reads(tmp_path / "x.zip")


def test_a_member_beyond_4_gib(tmp_path):
    """With holes in the file, so that it takes no room."""
    path = tmp_path / "x.zip"
    with open(path, "wb") as file:
        file.seek(5 << 30)
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("r/a.jpg", A)
    assert as_we_read(path) == {"r/a.jpg": A} == as_zipfile_reads(path)


def renamed(path, old, new, *, is_utf8):
    """Writes another name of the same length into a zip."""
    data = path.read_bytes().replace(old, new)
    at = data.index(LIST)
    flags = struct.unpack_from("<H", data, at + 8)[0]
    flags = flags | 0x800 if is_utf8 else flags & ~0x800
    path.write_bytes(data[: at + 8] + struct.pack("<H", flags) + data[at + 10 :])


@pytest.mark.parametrize(
    ("raw", "is_utf8", "name"),
    [
        (b"ros\x82", False, "rosé"),  # DOS.
        ("rosé".encode(), False, "rosé"),  # What macOS writes.
        ("rosé".encode(), True, "rosé"),
    ],
)
def test_names_in_code_pages(tmp_path, raw, is_utf8, name):
    path = write_zip(tmp_path / "x.zip", [("x" * len(raw) + "/1.jpg", A)])
    renamed(path, b"x" * len(raw), raw, is_utf8=is_utf8)
    (image,) = images(path)
    assert (image.label, files.read_bytes(image.uri)) == (name, A)


def test_names_that_are_no_text(tmp_path):
    path = write_zip(tmp_path / "x.zip", [("rose/xx.jpg", A)])
    renamed(path, b"xx.jpg", b"\xff\xfe.jpg", is_utf8=True)
    assert bad(path) == {"rose/\\xff\\xfe.jpg": "BadName"}
    renamed(path, b"rose", b"ro\0e", is_utf8=True)
    assert list(bad(path).values()) == ["BadName"]


def info(name, mode=0o100644, system=3):
    made = zipfile.ZipInfo(name)
    made.create_system, made.external_attr = system, mode << 16
    return made


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_no_image_of_its_own(tmp_path):
    contents = [
        ("d/", b""),
        ("d/a.jpg", A),
        (info("d/link.jpg", stat.S_IFLNK | 0o777), b"a.jpg"),
        (info("d/pipe.jpg", stat.S_IFIFO), b""),
        (info("d/dos.jpg", stat.S_IFLNK, system=0), A),
        ("__MACOSX/d/._a.jpg", b"resource fork"),
        ("../../etc/x.jpg", B),
        ("/d/b.jpg", B),
        ("./d/c.jpg", B),
        ("d/a.jpg", B),
    ]
    path = write_zip(tmp_path / "x.zip", contents)
    # The later of one name counts. On DOS the upper bits are no mode.
    assert as_we_read(path) == {"d/a.jpg": B, "d/dos.jpg": A, "d/b.jpg": B, "d/c.jpg": B}
    assert bad(path) == {"d/link.jpg": "NotARegularFile", "d/pipe.jpg": "NotARegularFile"}
    # Nothing is unpacked, so a path that climbs does no harm; its `..` starts with a dot.
    assert sum(isinstance(f, HiddenFile) for f in found(path)) == 2


def test_labels_by_folder_and_by_siblings(tmp_path):
    contents = [("all/rose/1.jpg", A), ("all/tulip/2.jpg", A), ("all/tulip/2.txt", b"daisy\n")]
    path = write_zip(tmp_path / "x.zip", contents)
    assert [i.label for i in images(path)] == ["rose", "daisy"]
    path = write_zip(tmp_path / "y.zip", [("train/rose/1.jpg", A), ("test/rose/2.jpg", A)])
    assert [(i.label, i.split) for i in images(path)] == [("rose", "training"), ("rose", "testing")]


def test_globs_go_through_zips_and_folders_do_not(tmp_path):
    for name in ("a-0.zip", "a-1.ZIP"):
        write_zip(tmp_path / name, [(f"r/{name}.jpg", A)])
    assert [i.relative_path for i in images(f"{tmp_path}/a-*")] == [
        "r/a-0.zip.jpg",
        "r/a-1.ZIP.jpg",
    ]
    assert [i.relative_path for i in images(tmp_path)] == ["a-0.zip", "a-1.ZIP"]


def test_a_zip_that_is_replaced_is_read_anew(tmp_path):
    path = write_zip(tmp_path / "x.zip", [("a.jpg", A), ("b.png", B)])
    uri = f"zip://{path}!/b.png"
    assert files.read_bytes(uri) == B
    write_zip(path, [("b.png", A)])
    assert files.read_bytes(uri) == A
    path.unlink()
    with pytest.raises(FileNotFoundError):
        files.read_bytes(uri)


class Ranges(io.BytesIO):
    """Counts what is read, as an object store would bill it."""

    taken = 0

    def read(self, size=-1):
        assert size is not None
        assert size >= 0, "all of it"
        data = super().read(size)
        self.taken += len(data)
        return data


def test_only_the_list_and_the_member_are_read(tmp_path):
    noise = [(f"r/{i}.jpg", os.urandom(1 << 20)) for i in range(8)]
    path = write_zip(tmp_path / "x.zip", noise, zipfile.ZIP_STORED)
    file = Ranges(path.read_bytes())
    listed = zips.members(file, path.stat().st_size)[0]
    assert file.taken < 140_000
    before = file.taken
    assert zips.read(file, listed["r/3.jpg"].span, None) == noise[3][1]
    assert file.taken - before < (1 << 20) + 100


def test_thumbnails_of_reports_and_reviews(tmp_path):
    data = bytearray(write_zip(tmp_path / "x.zip", [("a.jpg", A), ("b.png", B)]).read_bytes())
    data[data.rindex(LIST) + 16] ^= 1
    (tmp_path / "x.zip").write_bytes(data)
    sound, damaged = (read_thumbnail(f"zip://{tmp_path}/x.zip!/{n}", 8) for n in ("a.jpg", "b.png"))
    assert sound.data
    assert damaged.problem == "cannot be read: it does not unpack to what was packed"
