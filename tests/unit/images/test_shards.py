"""Images in tars, WebDataset shards, TFRecord files and lists of files."""

import json
import os
import re
import subprocess
import sys
import tarfile

import make_images
import pytest
from shards import add, example, record, write_tar
from stores import cli

from beam_flowers import files
from beam_flowers.files import archives, tfrecord
from beam_flowers.images.find import find_images
from beam_flowers.records import HiddenFile, Image, Reject, RootListed

A, B = make_images.jpeg(seed=1), make_images.png(seed=2)


def found(*sources):
    return list(find_images([str(source) for source in sources]))


def images(*sources):
    return [f for f in found(*sources) if isinstance(f, Image)]


def bad(*sources):
    return [f for f in found(*sources) if isinstance(f, Reject)]


def named(*sources):
    return {image.relative_path: image.label for image in images(*sources)}


class TestTar:
    def test_members_by_address(self, tmp_path):
        path = write_tar(tmp_path / "x.tar", [("./rose/1.jpg", A), ("tulip/2.png", B)])
        os.utime(path, (1_800_000_000, 1_800_000_000))
        listed = images(path)
        uris = [f"tar://{path}!/rose/1.jpg", f"tar://{path}!/tulip/2.png"]
        assert [i.uri for i in listed] == uris
        assert [(i.label, i.bytes) for i in listed] == [("rose", len(A)), ("tulip", len(B))]
        assert {i.modified for i in listed} == {1_800_000_000_000_000}
        assert [files.read_bytes(i.uri) for i in listed] == [A, B]
        assert files.read_bytes(uris[0], 10) == A[:10]
        assert files.open_read(uris[1]).read() == B
        assert files.stat(uris[1]).bytes == len(B)
        assert [files.exists(u) for u in (uris[0], uris[0] + "x")] == [True, False]
        assert files.absolute(uris[0]) == uris[0]
        assert found(path)[-1] == RootListed(str(path), True)

    @pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_names_of_all_kinds(self, tmp_path, form):
        names = ["玫瑰/a b!/x[1].jpg", "d/" + "long" * 20 + ".jpg", 'd/"q",\n%20.jpg']
        (tmp_path / "wow!").mkdir()
        path = write_tar(tmp_path / "wow!" / "x.tar", [(n, n.encode()) for n in names], format=form)
        assert [files.read_bytes(i.uri).decode() for i in images(path)] == names

    def test_what_is_no_image_of_its_own(self, tmp_path):
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            add(archive, "d", type=tarfile.DIRTYPE)
            add(archive, "d/a.jpg", A)
            add(archive, "d/same.jpg", type=tarfile.LNKTYPE, linkname="d/a.jpg")
            add(archive, "d/link.jpg", type=tarfile.SYMTYPE, linkname="a.jpg")
            add(archive, "d/pipe.jpg", type=tarfile.FIFOTYPE)
            add(archive, "d/._a.jpg", b"resource fork")
            add(archive, "d/\udcff.jpg", B)
            add(archive, "../../etc/x.jpg", B)
            add(archive, "d/a.jpg", B)
        listed = {i.relative_path: i for i in images(tmp_path / "x.tar")}
        assert set(listed) == {"d/a.jpg", "d/same.jpg"}
        # The later of one name counts; a hard link is the content that had the name before it.
        assert files.read_bytes(listed["d/a.jpg"].uri) == B
        assert files.read_bytes(listed["d/same.jpg"].uri) == A
        reasons = {r.image.relative_path: r.error_class for r in bad(tmp_path / "x.tar")}
        assert reasons == {
            "d/link.jpg": "NotARegularFile",
            "d/pipe.jpg": "NotARegularFile",
            "d/\\xff.jpg": "BadName",
        }
        # Nothing is unpacked, so a path that climbs does no harm; its `..` starts with a dot.
        assert sum(isinstance(f, HiddenFile) for f in found(tmp_path / "x.tar")) == 2

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["rose/1.jpg", "tulip/deep/2.jpg", "3.jpg"], ["rose", "tulip", None]),
            (["all/rose/1.jpg", "all/tulip/2.jpg", "all/LICENSE"], ["rose", "tulip", None]),
            (["rose/1.jpg", "rose/2.jpg"], ["rose", "rose"]),
            (["train/rose/1.jpg", "test/rose/2.jpg"], ["rose", "rose"]),
            (["x/train/rose/1.jpg", "x/val/tulip/2.jpg"], ["rose", "tulip"]),
        ],
    )
    def test_labels_by_folder(self, tmp_path, names, expected):
        path = write_tar(tmp_path / "x.tar", [(name, A) for name in names])
        assert list(named(path).values()) == expected
        splits = [i.split for i in images(path)]
        assert splits[0] == ("training" if "train/" in names[0] else None)

    def test_webdataset(self, tmp_path):
        contents = [
            ("0001.jpg", A), ("0001.cls", b"3\n"), ("0001.txt", b"a caption"),
            ("0002.jpg", A), ("0002.json", json.dumps({"label": "玫瑰"}).encode()),
            ("0003.seg.png", B), ("0003.jpg", A), ("0003.txt", b"tulip"),
            ("0004.jpg", A), ("0004.txt", b"two\nlines"),
            ("0005.jpg", A), ("0005.json", b"{broken"),
            ("0006.jpg", A), ("0006.json", b'{"label": true, "class": 0}'),
            ("rose/0007.jpg", A), ("rose/0007.cls", b"\xff\xfe"),
            ("README.txt", b"no image"),
        ]  # fmt: skip
        assert named(write_tar(tmp_path / "x.tar", contents)) == {
            "0001.jpg": "3",
            "0002.jpg": "玫瑰",
            "0003.seg.png": "tulip",
            "0003.jpg": "tulip",
            "0004.jpg": None,
            "0005.jpg": None,
            "0006.jpg": "0",
            "rose/0007.jpg": "rose",
            "README.txt": None,
        }

    @pytest.mark.parametrize("kept", [-1, 0.7, 0.5, 0.2])
    def test_a_truncated_tar_gives_what_is_whole_and_one_reject(self, tmp_path, kept):
        path = write_tar(tmp_path / "x.tar", [(f"r/{i}.jpg", A) for i in range(6)])
        end = 6 * (512 + -(-len(A) // 512) * 512)
        data = path.read_bytes()
        path.write_bytes(data[: end if kept == -1 else int(end * kept)])
        assert [files.read_bytes(i.uri) for i in images(path)] == [A] * (
            6 if kept == -1 else int(6 * kept)
        )
        (reject,) = bad(path)
        assert (reject.image.uri, reject.error_class) == (str(path), "DamagedShard")
        assert "cut short" in reject.message
        assert found(path)[-1] == RootListed(str(path), False)

    @pytest.mark.parametrize(
        ("damage", "whole", "message"),
        [
            (lambda data: data[:1024] + b"x" * 512 + data[1536:], 1, "damaged|no tar"),
            (lambda data: data + data, 3, "more behind its end"),
            (lambda data: b"", 0, "empty"),
            (lambda data: b"\x1f\x8b" + data, 0, "compressed with gzip"),
            (lambda data: make_images.TEXT * 30, 0, "no tar"),
        ],
    )
    def test_damaged_tars(self, tmp_path, damage, whole, message):
        path = write_tar(tmp_path / "x.tar", [(f"r/{i}.jpg", b"x" * 400) for i in range(3)])
        data = path.read_bytes()
        path.write_bytes(damage(data))
        (reject,) = bad(path)
        assert len(images(path)) == whole
        assert re.search(message, reject.message), reject.message

    def test_globs_go_through_shards_and_folders_do_not(self, tmp_path):
        for name in ("a-0.tar", "a-1.tar"):
            write_tar(tmp_path / name, [(f"r/{name}.jpg", A)])
        assert len(images(f"{tmp_path}/a-*.tar")) == 2
        assert set(named(f"{tmp_path}/a-*.tar")) == {"r/a-0.tar.jpg", "r/a-1.tar.jpg"}
        assert set(named(tmp_path)) == {"a-0.tar", "a-1.tar"}

    def test_a_shard_that_is_replaced_is_read_anew(self, tmp_path):
        path = write_tar(tmp_path / "x.tar", [("a.jpg", A), ("b.jpg", B)])
        uri = archives.address(str(path), "tar", "b.jpg")
        assert files.read_bytes(uri) == B
        write_tar(path, [("b.jpg", A)])
        assert files.read_bytes(uri) == A
        path.unlink()
        with pytest.raises(FileNotFoundError):
            files.read_bytes(uri)


class TestTFRecord:
    def test_what_tensorflow_writes(self, tmp_path, tf):
        path = tmp_path / "x.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for picture, label in ((A, "玫瑰"), (B, "tulip")):
                values = {
                    "image/encoded": picture,
                    "image/class/text": label.encode(),
                }
                features = {
                    name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                    for name, value in values.items()
                }
                number = tf.train.Int64List(value=[7])
                features["image/class/label"] = tf.train.Feature(int64_list=number)
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
        listed = images(path)
        assert [i.uri for i in listed] == [f"tfrecord://{path}!/{n}" for n in (0, 1)]
        assert [(i.label, i.bytes) for i in listed] == [("玫瑰", len(A)), ("tulip", len(B))]
        assert [files.read_bytes(i.uri) for i in listed] == [A, B]
        assert files.stat(listed[0].uri).bytes == len(A)

    def test_other_names_of_features(self, tmp_path):
        path = tmp_path / "x.tfrecord"
        path.write_bytes(
            record(example(image=A, label=0)) + record(example(image__encoded=B, label=b"x"))
        )
        assert [(i.label, files.read_bytes(i.uri)) for i in images(path)] == [("0", A), ("x", B)]

    @pytest.mark.parametrize(
        ("features", "label"),
        [
            ({"label": -1}, "-1"),
            ({"label": 2**63 - 1}, "9223372036854775807"),
            ({"label": b"", "image__class__text": b"\xff"}, "\ufffd"),
            ({"label": b""}, ""),
            ({}, None),
        ],
    )
    def test_labels_are_those_of_protobuf(self, features, label):
        data = example(image=A, **features)
        assert tfrecord.parse(data) == (A, label)

    def test_messages_as_protobuf_takes_them(self):
        data = example(image=A, label=3)
        # Of two of one name the later counts; messages that are given twice are one.
        assert tfrecord.parse(data + example(image=B)) == (B, "3")
        # Integers one by one, as old programs wrote them.
        apart = b"\x0a\x10\x0a\x0e\x0a\x05label\x12\x05\x1a\x03\x08\xac\x02"
        assert tfrecord.parse(data + apart) == (A, "300")

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"\x08" + b"\xff" * 11, "no end"),
            (b"\x08", "no end"),
            (b"\x0a\x05abc", "cut short"),
            (b"\x09abc", "cut short"),
            (b"\x0b", "kind 3"),
        ],
    )
    def test_messages_that_protobuf_refuses(self, data, reason):
        with pytest.raises(files.MemberError, match=reason):
            tfrecord.parse(data)

    def test_bad_records_and_a_cut_file(self, tmp_path):
        path = tmp_path / "x.tfrecord"
        whole = [example(image=A), b"\xff" * 20, example(label=3), example(image=B)]
        path.write_bytes(b"".join(map(record, whole))[:-9])
        assert [i.relative_path for i in images(path)] == ["0"]
        assert [(r.image.relative_path, r.error_class) for r in bad(path)] == [
            ("1", "BadRecord"),
            ("2", "BadRecord"),
            ("x.tfrecord", "DamagedShard"),
        ]
        assert "it has label" in bad(path)[1].message

    def test_a_wrong_checksum_of_data_costs_its_record(self, tmp_path):
        whole = [record(example(image=picture)) for picture in (A, B, A)]
        at = len(whole[0]) + 60
        data = bytearray(b"".join(whole))
        data[at] ^= 1
        path = tmp_path / "x.tfrecord"
        path.write_bytes(data)
        assert [i.relative_path for i in images(path)] == ["0", "2"]
        (reject,) = bad(path)
        assert (reject.image.uri, reject.error_class) == (f"tfrecord://{path}!/1", "BadChecksum")
        with pytest.raises(files.MemberError, match="not those that were written"):
            files.read_bytes(reject.image.uri)
        assert found(path)[-1] == RootListed(str(path), True)

    def test_a_wrong_checksum_of_a_length_costs_the_rest(self, tmp_path):
        first = record(example(image=A))
        data = bytearray(first + record(example(image=B)) * 2)
        data[len(first) + 9] ^= 1
        path = tmp_path / "x.tfrecord"
        path.write_bytes(data)
        assert [i.relative_path for i in images(path)] == ["0"]
        (reject,) = bad(path)
        assert (reject.image.uri, reject.error_class) == (str(path), "DamagedShard")
        assert f"at byte {len(first)} (record 1)" in reject.message
        assert found(path)[-1] == RootListed(str(path), False)

    def test_a_length_that_begins_as_a_gzip_does(self, tmp_path):
        first = example(image=A, label=b"")
        filled = example(image=A, label=b"." * (0x18B1F - len(first) - 9))
        path = tmp_path / "x.tfrecord"
        path.write_bytes(record(filled))
        assert path.read_bytes()[:2] == b"\x1f\x8b"
        assert len(images(path)) == 1

    def test_the_checksum_is_that_of_the_standard(self):
        """The check value of CRC-32C (iSCSI), masked."""
        crc = 0xE3069283
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        assert tfrecord._masked_crc32c(b"123456789") == masked

    @pytest.mark.parametrize("data", [b"hello world, no record", b"\0" * 40, b"\x1f\x8bzip"])
    def test_no_records(self, tmp_path, data):
        (tmp_path / "x.tfrecord").write_bytes(data)
        (reject,) = bad(tmp_path / "x.tfrecord")
        assert reject.error_class == "DamagedShard"


class TestLists:
    @pytest.mark.parametrize("mark", ["\n", "\r\n", "\0"])
    def test_paths_as_they_are(self, tmp_path, monkeypatch, mark):
        monkeypatch.chdir(tmp_path)
        names = ["# a.jpg", " b .jpg", "y[1].jpg", "sub/c.jpg"] + ["new\nline.jpg"] * (mark == "\0")
        (tmp_path / "sub").mkdir()
        for name in names:
            (tmp_path / name).write_bytes(A)
        write_tar(tmp_path / "t.tar", [("in.jpg", A)])
        (tmp_path / "list").write_text(mark.join([*names, "t.tar", "missing.jpg", ""]))
        listed = images("files-from:list")
        assert [i.relative_path for i in listed] == [*names, "in.jpg"]
        assert {i.root for i in listed[:-1]} == {str(tmp_path)}
        assert [r.image.uri for r in bad("files-from:list")] == [f"{tmp_path}/missing.jpg"]

    def test_names_that_are_no_text(self, tmp_path):
        (tmp_path / "list").write_bytes(os.fsencode(tmp_path) + b"/\xff.jpg\0")
        assert [r.error_class for r in bad(f"files-from:{tmp_path}/list")] == ["BadName"]

    def test_nothing_to_read_or_no_such_list(self, tmp_path, capsys):
        assert cli("embed", "--store", tmp_path / "s") == 1
        assert "--files-from" in capsys.readouterr().err
        assert cli("embed", "--store", tmp_path / "s", "--files-from", tmp_path / "no") == 1
        assert "cannot be read" in capsys.readouterr().err


def test_tensorflow_is_not_imported_for_records(tmp_path):
    (tmp_path / "x.tfrecord").write_bytes(record(example(image=A)))
    script = (
        "import sys; from beam_flowers.images.find import find_images\n"
        "from beam_flowers import files\n"
        f"for f in find_images([{str(tmp_path / 'x.tfrecord')!r}]): print(f)\n"
        f"files.read_bytes('tfrecord://{tmp_path}/x.tfrecord!/0')\n"
        "assert not {'tensorflow', 'apache_beam'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
