"""Manifests of every kind, good and damaged."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from memory_files import OBJECTS
from stores import cli

from beam_flowers.errors import HeaderError, InputError
from beam_flowers.images.manifest import is_manifest, read_manifest
from beam_flowers.images.manifest_rows import read_further
from beam_flowers.records import Image, Reject


@pytest.fixture
def folder(tmp_path):
    for name in ("a.jpg", "b, [1].jpg", "玫瑰.jpg"):
        (tmp_path / name).write_bytes(b"123")
    return tmp_path


def read(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_manifest(str(path), ["mem"]))


def named(found):
    return [(os.path.basename(i.uri), i.label, i.split) for i in found if isinstance(i, Image)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", 'uri,label,split\na.jpg,rose,train\n"b, [1].jpg",,\n玫瑰.jpg,玫,val\n'),
        ("m.csv", '\ufeffx,split,label,file_name\n1,train,rose,a.jpg\n2,,,"b, [1].jpg"\n'
         "3,VALIDATION,玫,玫瑰.jpg"),
        ("m.TSV", "path\tlabel\tsplit\r\na.jpg\trose\ttraining\r\n\r\nb, [1].jpg\r\n"
         "玫瑰.jpg\t玫\tval\r\n"),
        ("m.jsonl", '{"uri": "a.jpg", "label": "rose", "split": "train"}\n\n'
         '{"path": "b, [1].jpg"}\n{"uri": "玫瑰.jpg", "label": "玫", "split": "val", "n": [1]}'),
    ],
)  # fmt: skip
def test_tables(folder, name, text):
    found = read(folder, name, text)
    assert named(found) == [
        ("a.jpg", "rose", "training"),
        ("b, [1].jpg", None, None),
        ("玫瑰.jpg", "玫", "validation"),
    ]
    assert {(i.bytes, i.root) for i in found} == {(3, str(folder / name))}
    assert all(image.modified > 0 for image in found)


def test_parquet(folder):
    table = pa.table({"uri": ["a.jpg", "玫瑰.jpg"], "label": [7, None], "vector": [[1.0], [2.0]]})
    pq.write_table(table, folder / "m.parquet")
    assert named(read_manifest(str(folder / "m.parquet"))) == [
        ("a.jpg", "7", None),
        ("玫瑰.jpg", None, None),
    ]


@pytest.mark.parametrize(
    ("text", "labels"),
    [("a.jpg,rose\n玫瑰.jpg,玫\n", ["rose", "玫"]), ("a.jpg\n玫瑰.jpg\n", [None, None])],
)
def test_csv_without_header(folder, text, labels):
    assert [image.label for image in read(folder, "m.csv", text)] == labels


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "filename;class\na.jpg;rose\n玫瑰.jpg;玫\n"),
        ("m.csv", "image\tcategory\tprice\na.jpg\trose\t1,5\n玫瑰.jpg\t玫\t2,5\n"),
        ("m.tsv", "Filepath,Target\na.jpg,rose\n玫瑰.jpg,玫\n"),
        ("m.csv", 'path;label;note\na.jpg;rose;"a;b"\n玫瑰.jpg;玫;c\n'),
        ("m.csv", "a.jpg;rose\n玫瑰.jpg;玫\n"),
        ("m.csv", "uri,label,class\na.jpg,rose,x\n玫瑰.jpg,玫,y\n"),
        (
            "m.jsonl",
            '{"image": "a.jpg", "class": "rose"}\n{"filename": "玫瑰.jpg", "target": "玫"}\n',
        ),
    ],
)
def test_columns_and_delimiters_as_people_have_them(folder, name, text):
    assert named(read(folder, name, text)) == [("a.jpg", "rose", None), ("玫瑰.jpg", "玫", None)]


def test_names_that_hold_another_delimiter_stay_whole(folder):
    (folder / "x;y.jpg").write_bytes(b"123")
    found = read(folder, "m.csv", "uri,label\nx;y.jpg,a\na.jpg,b\n")
    assert named(found) == [("x;y.jpg", "a", None), ("a.jpg", "b", None)]


def test_a_first_row_is_a_header_unless_it_names_an_image(folder):
    (folder / "scan001").write_bytes(b"123")
    for first in ("a.jpg", "absent.JPEG", "scan001", "mem://bucket/x"):
        assert len(read(folder, "m.csv", f"{first},rose\na.jpg,tulip\n")) == 2
    with pytest.raises(HeaderError, match=r"no column uri, .* it has scan002, rose"):
        read(folder, "m.csv", "scan002,rose\na.jpg,tulip\n")


def test_an_unknown_header_ends_with_the_code_of_the_command_line(folder, capsys):
    (folder / "m.csv").write_text("photo,kind\na.jpg,rose\n")
    assert cli("embed", folder / "m.csv", "--store", folder / "store") == 2
    assert "it has photo, kind; rename the one that names the images" in capsys.readouterr().err


def test_further_cells(folder):
    text = 'uri,label,split,Price,note\na.jpg,rose,train,1.50,"a ""b"""\n玫瑰.jpg,,,,\n'
    (folder / "m.csv").write_text(text)
    assert list(read_further(str(folder / "m.csv"))) == [
        ("a.jpg", {"Price": "1.50", "note": 'a "b"'}),
        ("玫瑰.jpg", {"Price": "", "note": ""}),
    ]
    (folder / "m.jsonl").write_text('{"path": "a.jpg", "n": 1.5, "t": [1, "é"], "class": null}\n')
    assert list(read_further(str(folder / "m.jsonl"))) == [("a.jpg", {"n": "1.5", "t": '[1, "é"]'})]
    columns = {"uri": ["a.jpg"], "n": [1.5], "ok": [True], "vector": [[1.0]], "image": [b"x"]}
    pq.write_table(pa.table(columns), folder / "m.parquet")
    found = list(read_further(str(folder / "m.parquet")))
    assert found == [("a.jpg", {"n": "1.5", "ok": "true"})]
    assert named(read_manifest(str(folder / "m.parquet"))) == [("a.jpg", None, None)]


def test_list(folder):
    text = "\ufeff# images\r\na.jpg\r\n\r\n  \nb, [1].jpg\n./玫瑰.jpg"
    found = read(folder, "m.list", text)
    assert [image.uri for image in found] == [
        str(folder / name) for name in ("a.jpg", "b, [1].jpg", "玫瑰.jpg")
    ]
    assert found[2].relative_path == "./玫瑰.jpg"


def test_addresses(folder):
    OBJECTS.clear()
    OBJECTS["mem://bucket/x/a b.jpg"] = b"12345"
    text = f"{folder}/a.jpg\nfile://{folder}/a.jpg\nmem://bucket/x/a b.jpg\n"
    found = read(folder, "m.txt", text)
    assert [image.uri for image in found] == [f"{folder}/a.jpg"] * 2 + ["mem://bucket/x/a b.jpg"]
    assert found[2].bytes == 5


def test_remote_manifest():
    OBJECTS.clear()
    OBJECTS.update({"mem://bucket/x/m.csv": b"a.jpg,rose", "mem://bucket/x/a.jpg": b"1"})
    found = list(read_manifest("mem://bucket/x/m.csv"))
    assert [(image.uri, image.label) for image in found] == [("mem://bucket/x/a.jpg", "rose")]


@pytest.mark.parametrize(
    ("line", "error_class"),
    [
        ("no.jpg", "NotFound"),
        ("a.jpg/b.jpg", "NotFound"),
        ("mem://bucket/no.jpg", "NotFound"),
        ("../a.jpg", "UnsafePath"),
        ("x/../a.jpg", "UnsafePath"),
        (".", "NotARegularFile"),
        ("pipe", "NotARegularFile"),
        ("a\0.jpg", "BadName"),
    ],
)
def test_rejects(folder, line, error_class):
    OBJECTS.clear()
    os.mkfifo(folder / "pipe")
    first, second = read(folder, "m.txt", f"{line}\na.jpg\n")
    assert isinstance(first, Reject)
    assert (first.stage, first.error_class) == ("find", error_class)
    assert first.image.relative_path == line
    assert isinstance(second, Image)


def test_name_that_no_table_can_store(folder):
    (found,) = read(folder, "m.jsonl", r'{"uri": "\ud800.jpg"}')
    assert found.error_class == "BadName"
    found.image.uri.encode()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", b"a.jpg,rose\n\xff.jpg,x\n", "line 2: not UTF-8"),
        ("m.csv", "a.jpg,rose,train\n", "line 1: 3 columns without a header"),
        ("m.csv", "a.jpg,rose\nb, [1].jpg,rose\n", "line 2: 3 columns where 2 were expected"),
        (
            "m.csv",
            "photo,label\na.jpg,rose\n",
            "no column uri, .* or image; it has photo, label; ren",
        ),
        (
            "m.csv",
            "photo,kind\na.jpg,rose\n",
            "no column uri, .* or image; it has photo, kind; ren",
        ),
        ("m.csv", "uri,path\na.jpg,a.jpg\n", "the columns uri and path say the same; rename one"),
        ("m.csv", "uri,note,note\na.jpg,1,2\n", "two columns are called note; rename one"),
        ("m.csv", "uri,class,target\na.jpg,1,2\n", "the columns class and target say the same"),
        (
            "m.jsonl",
            '{"image": "a.jpg", "uri": "a.jpg"}\n',
            "line 1: the columns uri and image say",
        ),
        ("m.csv", "uri,label\n,rose\n", "line 2: uri is empty"),
        ("m.csv", "uri,split\na.jpg,dev\n", "line 2: split is 'dev'"),
        ("m.csv", 'uri\n"a.jpg\n', "line 2: "),
        ("m.jsonl", '{"uri": "a.jpg"}\n{"uri": \n', "line 2: not JSON"),
        ("m.jsonl", '["a.jpg"]\n', "line 1: expected an object"),
        ("m.jsonl", '{"name": "a.jpg"}\n', "line 1: no column uri"),
        ("m.jsonl", '{"uri": "a.jpg", "label": ["x"]}\n', r"line 1: label is \['x'\]"),
        ("m.parquet", "no table", "cannot be read as Parquet"),
    ],
)
def test_damaged(folder, name, text, message):
    with pytest.raises(InputError, match=message) as error:
        read(folder, name, text)
    assert str(folder / name) in str(error.value)


def test_parquet_without_the_column(folder):
    pq.write_table(pa.table({"photo": ["a"]}), folder / "m.parquet")
    with pytest.raises(InputError, match=r"no column uri, .* or image; it has photo"):
        list(read_manifest(str(folder / "m.parquet")))


def test_missing_manifest(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        list(read_manifest(str(tmp_path / "m.csv")))


def test_order_of_many_rows(folder):
    rows = [{"uri": "a.jpg", "label": str(i)} for i in range(3000)]
    found = read(folder, "m.ndjson", "\n".join(map(json.dumps, rows)))
    assert [image.label for image in found] == [row["label"] for row in rows]


def test_is_manifest():
    assert is_manifest("s3://b/x.CSV")
    assert not is_manifest("/x.csv/a.jpg")
