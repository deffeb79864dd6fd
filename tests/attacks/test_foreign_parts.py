"""Parquet and JSON of a store or a table of scores from somebody else.

What its maker would gain: gigabytes of memory for a file of 300 bytes, the end of a process by a
signal, Python's own words, numbers that are taken for another image's.
"""

import contextlib
import io
import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import KEY, OLD
from stores import cli

from beam_flowers.errors import InputError, InputFieldError, PartDamagedError
from beam_flowers.files import parquet
from beam_flowers.files.parquet_footer import Chunk, chunks_of
from beam_flowers.files.typed import require_shallow
from beam_flowers.head.corrections import read_corrections
from beam_flowers.scoring.read_table import read_scores
from beam_flowers.store.commits import latest
from beam_flowers.store.features import read_features
from beam_flowers.store.parts import Place, read_part
from beam_flowers.store.plan import stored_rows

PART = "part-2a1c7b4e7921e9fdd6b0f81b.parquet"
LONG = "x" * (1 << 16)
DEEP = 20_000
"""Levels of JSON; at so many Arrow 25 ends the process by SIGSEGV."""


@pytest.fixture
def store(tmp_path):
    return Path(shutil.copytree(OLD / "store", tmp_path / "store"))


def part_of(store):
    return store / KEY / PART


def column(name, values, kind=None):
    def change(rows):
        array = values(rows[name]) if callable(values) else pa.array(values, kind)
        return rows.set_column(rows.schema.get_field_index(name), name, array)

    return change


def vectors(rows, length):
    flat = pa.array(np.zeros(rows * length, np.float32))
    return pa.FixedSizeListArray.from_arrays(flat, length)


def without_a_vector(rows):
    every = rows["vector"].combine_chunks().to_pylist()
    return column("vector", [None, *every[1:]], rows["vector"].type)(rows)


def not_utf8(rows):
    texts = pa.array([b"\xff"] * 20, pa.binary())
    return column("label", lambda _: pa.Array.from_buffers(pa.string(), 20, texts.buffers()))(rows)


WRONG = {
    # What a lookup of the column would say.
    "no uri": (lambda rows: rows.drop_columns("uri"), "it has no column uri"),
    "two columns uri": (
        lambda rows: rows.append_column("uri", rows["uri"]),
        "no column uri, or two",
    ),
    "no digests": (lambda rows: rows.drop_columns("sha256"), "it has no column sha256"),
    "numbers for addresses": (column("uri", range(20)), "its column uri is int64"),
    "rows without an address": (column("uri", [None] * 20, pa.string()), "uri has empty rows"),
    # `int(sha256[:8], 16)` deals them out to workers.
    "digests that are none": (column("sha256", ["zz"] * 20), "sha256 has other values"),
    "a digest with a break": (column("sha256", ["a" * 64 + "\n"] * 20), "sha256 has other"),
    "bytes that are no text": (not_utf8, "[Ii]nvalid UTF8"),
    "times that are none": (column("modified", ["now"] * 20), "its column modified is string"),
    "vectors of texts": (column("vector", [["1"]] * 20), "its vectors are list"),
    "vectors of any length": (column("vector", [[1.0]] * 20), "its vectors are list"),
    # Half of the vectors moved on to other images' rows.
    "a row without a vector": (without_a_vector, "Expected all lists|vector has empty rows"),
    "vectors of another length": (
        column("vector", lambda _: vectors(20, 7)),
        "its vectors are not",
    ),
    "fewer rows": (lambda rows: rows.slice(1), "it has 19 rows, its manifest says 20"),
    "more rows": (
        lambda rows: pa.concat_tables([rows] * 2),
        "it has 40 rows, its manifest says 20",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_part_that_is_none_of_ours_is_named(store, case):
    change, message = WRONG[case]
    path = part_of(store)
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(PartDamagedError, match=message) as refusal:
        read_features(str(store))
    assert (refusal.value.root, KEY in str(refusal.value)) == (str(store), True)


@pytest.mark.parametrize("name", ["uri", "sha256", "stage", "error_class", "message"])
def test_a_part_of_rejects_without_a_column_is_named(store, name):
    path = next((store / "__rejects" / KEY).glob("*.parquet"))
    pq.write_table(pq.read_table(path).drop_columns(name), path)
    place = Place(str(store), KEY, latest(str(store)).sections[KEY].fingerprint)
    with pytest.raises(PartDamagedError, match=f"it has no column {name}"):
        list(stored_rows(place, path.name))


def repeated(text, count):
    """A text for each row, in memory only once."""
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [text])


@pytest.fixture
def low(monkeypatch):
    """Has files of 4 MB taken for large ones, so that no test needs gigabytes itself."""
    monkeypatch.setattr(parquet, "MOST_BYTES", 4 << 20)
    monkeypatch.setattr(parquet, "MOST_RATIO", 16)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("label", repeated(LONG, 500).cast(pa.string())),
        ("uri", repeated(LONG, 500).cast(pa.string())),
        ("vector", vectors(500, 10_000)),
    ],
)
@pytest.mark.usefixtures("low")
def test_a_small_part_does_not_unpack_into_gigabytes(store, name, values):
    path = part_of(store)
    rows = pa.concat_tables([pq.read_table(path)] * 25)
    rows = column("vector", lambda _: vectors(500, 1))(rows)
    pq.write_table(column(name, lambda _: values)(rows), path, compression="zstd")
    assert path.stat().st_size < 100_000
    place = Place(str(store), KEY, latest(str(store)).sections[KEY].fingerprint)
    for read in (lambda: read_part(place, PART), lambda: list(stored_rows(place, PART))):
        with pytest.raises(PartDamagedError, match=f"{PART} is damaged .* would unpack into"):
            read()


@pytest.mark.usefixtures("low")
def test_long_texts_of_their_own_are_no_bomb(tmp_path):
    """What stands in a file once for each row takes as much memory as the file has bytes."""
    draw = np.random.default_rng(0)
    texts = pa.array([draw.bytes(4000).hex() for _ in range(1000)])
    for columns in ({"uri": texts}, {"uri": texts, "label": pa.array(["rose"] * 1000)}):
        pq.write_table(pa.table(columns), tmp_path / "x.parquet", compression="zstd")
        with (tmp_path / "x.parquet").open("rb") as source:
            assert parquet.unpacked_too_far(source) == ""
            assert pq.read_table(source)["uri"].combine_chunks() == texts  # It is still open.


@pytest.fixture
def table(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "old"))


@pytest.mark.usefixtures("low")
def test_a_small_table_does_not_unpack_into_gigabytes(table):
    names = ("uri", "sha256", "label", "model_id")
    rows = pa.table({name: repeated(LONG, 500) for name in names})
    rows = rows.append_column("score", pa.array([0.5] * 500))
    pq.write_table(rows, table / "scores.parquet", compression="zstd")
    for read in (read_scores, read_corrections):
        with pytest.raises(InputError, match=r"scores\.parquet.* would unpack into"):
            read(str(table / "scores.parquet"))
    # Arrow's own format keeps the dictionary: the cast to texts would unpack it.
    with pa.ipc.new_file(str(table / "scores.arrow"), rows.schema) as writer:
        writer.write_table(rows)
    with pytest.raises(InputFieldError, match=f"500 rows, and texts of {len(LONG)} bytes"):
        read_scores(str(table / "scores.arrow"))


@pytest.mark.parametrize("inner", ["[{}]", '{{"a":{}}}', '{{"a":\n{}}}'])
def test_json_in_itself_ends_no_process(table, inner):
    """Arrow's parser goes as deep as the lines do, and over the end of the stack."""
    opening, closing = inner.format(" ").split(" ")
    line = f'{{"uri": "a", "label": {opening * DEEP}1{closing * DEEP}}}\n'
    (table / "scores.jsonl").write_text(line)
    for read in (read_scores, read_corrections):
        with pytest.raises(InputFieldError, match="more than 32 levels of lists and objects"):
            read(str(table / "scores.jsonl"))


def test_brackets_in_texts_are_no_levels():
    texts = ["[" * 100, "\\" * 3, '"' + "{" * 100, "\n[" * 50]
    require_shallow(json.dumps(texts).encode(), InputFieldError, "x")
    require_shallow(b"[" * 32 + b"]" * 32 + b"[" * 32, InputFieldError, "x")
    with pytest.raises(InputFieldError):
        require_shallow(json.dumps([*texts, "\\"]).encode() + b"[" * 33, InputFieldError, "x")


@pytest.mark.parametrize("before", [b"]" * 100, b'"', b'"\\', b'\\"\r"'])
def test_a_damaged_line_hides_no_levels_of_the_next(before):
    """Arrow parses the blocks of a file at a time, and so those behind damage, too."""
    with pytest.raises(InputFieldError):
        require_shallow(before + b"\n" + b"[" * 33 + b'"\n', InputFieldError, "x")


def test_a_text_without_an_end_takes_no_gigabyte():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    require_shallow(b'["' + b"x" * 2_000_000, InputFieldError, "x")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


TABLES = {
    "no label": ("label", None, "has the columns"),
    "labels that are lists": ("label", [["a"]] * 21, "label: "),
    "scores that are texts": ("score", ["high"] * 21, "score: "),
    "rows without a model": ("model_id", [None] * 21, "model_id: "),
    "a ranking that is a number": ("top_k", [7] * 21, "top_k of row 1: "),
    "a ranking of texts": ("top_k", ["[1]"] * 21, r"top_k of row 1\[0\]: "),
    "a ranking in itself": ("top_k", ["[" * 100_000] * 21, "top_k of row 1"),
    "a ranking without scores": ("top_k", ['[{"label": "a"}]'] * 21, r"row 1\[0\]\.score: "),
}


@pytest.mark.parametrize("case", TABLES)
def test_the_column_of_a_table_is_named(table, case, capsys):
    name, values, message = TABLES[case]
    path = table / "scores.parquet"
    rows = pq.read_table(path)
    index = rows.schema.get_field_index(name)
    rows = rows.remove_column(index)
    rows = rows if values is None else rows.append_column(name, pa.array(values))
    pq.write_table(rows, path)
    with pytest.raises(InputError, match=message) as refusal:
        read_scores(str(path))
    assert str(path) in str(refusal.value)
    assert cli("report", path, "--output", table / "r.html") == 1
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize("names", ["7", '{"info": []}', '{"info": {"features": 1}}', "[" * 9999])
def test_class_names_that_are_none_are_passed_over(table, names):
    rows = pq.read_table(table / "scores.parquet").replace_schema_metadata({"huggingface": names})
    pq.write_table(rows, table / "scores.parquet")
    assert "roses" in read_scores(str(table / "scores.parquet")).names


def test_offsets_beyond_the_file_end_no_process(table):
    """Arrow reads where the offsets of a file say, SIGSEGV included."""
    rows = pq.read_table(table / "scores.parquet").select(
        ["uri", "sha256", "label", "score", "model_id"]
    )
    with pa.ipc.new_file(str(table / "scores.arrow"), rows.schema) as writer:
        writer.write_table(rows)
    data = (table / "scores.arrow").read_bytes()
    offsets = rows["uri"].combine_chunks().buffers()[1].to_pybytes()[:40]
    wrong = np.full(10, 1 << 30, np.int32).tobytes()
    assert data.count(offsets) == 1
    (table / "scores.arrow").write_bytes(data.replace(offsets, wrong))
    with pytest.raises(InputError, match=r"scores\.arrow.* cannot be read as a table of scores"):
        read_scores(str(table / "scores.arrow"))


def test_names_of_columns_that_are_no_text(tmp_path):
    (tmp_path / "c.csv").write_bytes(b"sha256,label,\xff\nab,a,b\n")
    with pytest.raises(InputError, match=r"c\.csv.* cannot be read as \.csv: 'utf-8'"):
        read_corrections(str(tmp_path / "c.csv"))


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl"])
def test_an_error_quotes_a_little_of_a_file(tmp_path, name):
    long = "x" * 100_000
    text = {"c.csv": f"uri,{long}\na,b\n", "c.jsonl": f'{{"uri": "a", "label": {long}}}\n'}
    (tmp_path / name).write_text(text[name])
    for read in (read_corrections, read_scores):
        with pytest.raises(InputError) as refusal:
            read(str(tmp_path / name))
        assert len(str(refusal.value)) < 1000


@pytest.mark.parametrize(("name", "values"), [("label", [[1]]), ("label", [b"\xff"])])
def test_corrections_of_other_types_are_named(tmp_path, name, values):
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"sha256": ["ab"], "label": ["a"], name: values}), path)
    with pytest.raises(InputFieldError) as refusal:
        read_corrections(str(path))
    assert refusal.value.file == str(path)


def test_a_footer_is_read_as_pyarrow_reads_it(tmp_path):
    """Of all kinds of values, in several row groups; and pyarrow itself ends on a damaged one."""
    ranked = [[{"label": "a", "score": 0.5}, {"label": "b", "score": 0.25}]] * 30
    columns = {
        "text": [f"{n}" for n in range(30)],
        "top_k": pa.array(
            ranked, pa.list_(pa.struct({"label": pa.string(), "score": pa.float32()}))
        ),
        "half": pa.array(np.zeros(30, np.float16)),
        "whole": pa.array(range(30), pa.int64()),
        "small": pa.array(range(30), pa.int32()),
        "double": pa.array([0.5] * 30),
        "truth": [True] * 30,
        "vector": vectors(30, 4),
    }
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=12)
    with (tmp_path / "x.parquet").open("rb") as source:
        found = chunks_of(source)
        told = pq.ParquetFile(source).metadata
    widths = {"BYTE_ARRAY": 0, "INT32": 4, "INT64": 8, "FLOAT": 4, "DOUBLE": 8, "BOOLEAN": 1}
    expected = [
        Chunk(
            group,
            column.path_in_schema,
            column.num_values,
            widths.get(column.physical_type, 2),
            column.total_uncompressed_size,
            column.has_dictionary_page,
            False,
        )
        for group in range(told.num_row_groups)
        for column in map(told.row_group(group).column, range(told.num_columns))
    ]
    assert len(found) == 3 * 9
    assert found == expected


@pytest.mark.parametrize("seed", range(300))
def test_a_damaged_footer_ends_no_process(tmp_path, seed):
    data = bytearray(part_of(OLD / "store").read_bytes())
    draw = np.random.default_rng(seed)
    length = int.from_bytes(data[-8:-4], "little") + 8
    for _ in range(draw.integers(1, 4)):
        data[-int(draw.integers(1, length))] = draw.integers(256)
    with contextlib.suppress(ValueError):
        assert len(chunks_of(io.BytesIO(data))) == 14
