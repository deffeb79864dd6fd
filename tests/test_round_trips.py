"""Names, cells, commits and tables are read back as they were written, whatever they hold."""

import csv
import string
import tempfile
import unicodedata
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_flowers.errors import InputError
from beam_flowers.files.text import guarded, unguarded, visible
from beam_flowers.scoring.folders import label_folder, partition_folder
from beam_flowers.scoring.write_table import write_table
from beam_flowers.store.commits import Manifest, Section, decode_manifest, encode_manifest
from beam_flowers.store.names import adopted_name, commit_name, commit_version, is_part, writer_of
from beam_flowers.store.parts import Part

HEX = "0123456789abcdef"
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
CELLS = st.text(st.sampled_from("'=+-@\t\r1.e a\n\"") | st.characters(exclude_categories=["Cs"]))


def digits(length):
    return st.text(HEX, min_size=length, max_size=length)


@st.composite
def parts(draw):
    """A part as a run writes it."""
    kind = draw(st.sampled_from(["part", "rejects"]))
    name = f"{kind}-{draw(digits(16))}-{draw(digits(16))}.parquet"
    counts = st.integers(0, 2**40)
    return Part(name, draw(counts), draw(digits(64)), draw(counts), draw(counts), draw(digits(64)))


@st.composite
def manifests(draw):
    """A version of a store of two backbones."""
    roots = st.lists(ANY_TEXT.filter(bool), max_size=3, unique=True).map(lambda r: tuple(sorted(r)))
    sections = {
        f"backbone={name}-{draw(digits(8))}": Section(
            draw(digits(64)),
            {"name": name},
            tuple(draw(st.lists(parts(), max_size=4, unique_by=lambda part: part.name))),
            draw(roots),
        )
        for name in ("a", "b")
    }
    made = {"time": draw(st.floats(0, 2e9)), "command": draw(ANY_TEXT)}
    counts = {"embedded": draw(st.integers(0, 2**40))}
    return Manifest(draw(st.integers(1, 10**9)), draw(digits(16)), sections, counts, made)


@given(manifests())
@settings(max_examples=50)
def test_a_manifest(manifest):
    again = decode_manifest(encode_manifest(manifest), "x")
    assert again == manifest
    assert encode_manifest(again) == encode_manifest(manifest)


@given(CELLS)
def test_a_cell_of_csv(text):
    cell = guarded(text)
    assert unguarded(cell) == text
    assert cell[:1] not in ("=", "@", "\t", "\r")


@given(st.lists(CELLS, min_size=1, max_size=5))
@settings(max_examples=50)
def test_a_table_of_csv(texts):
    """Python's own reader of CSV gives the texts back, after `unguarded`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        names = [str(number) for number in range(len(texts))]
        write_table(str(path), pa.table({"uri": names, "label": texts}))
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    assert [unguarded(row["label"]) for row in rows] == texts


@given(ANY_TEXT)
def test_what_is_shown_has_no_control_characters(text):
    assert not {unicodedata.category(c) for c in visible(text)} & {"Cc", "Cf", "Zl", "Zp"}


@given(parts(), digits(16))
def test_a_part_that_another_run_takes_up(part, run):
    name = adopted_name(part.name, run)
    assert is_part(name)
    assert writer_of(name) == run
    assert name[-24:] == part.name[-24:]


@given(st.integers(1, 10**12))
def test_the_file_name_of_a_version(version):
    assert commit_version(commit_name(version)) == version


@given(st.text(string.printable) | ANY_TEXT)
def test_the_folder_of_a_label(label):
    """It is one folder, whose name the store takes and Hive's readers decode."""
    try:
        name = partition_folder(label)
    except InputError:
        assert not label or len(label.encode()) > 80
        return
    assert is_part(f"{name}/part-{'0' * 24}.parquet")
    assert unquote(name.removeprefix("label=")) == label


@given(st.lists(ANY_TEXT.filter(bool), min_size=2, max_size=2, unique=True))
def test_folders_of_two_labels_differ(labels):
    try:
        folders = {label_folder(label) for label in labels}
    except InputError:
        assert max(len(label.encode()) for label in labels) > 80
        return
    assert len(folders) == 2
