"""Each part says which engine computed its vectors, and a store that mixes engines says so."""

import pyarrow.parquet as pq
import pytest
from stores import cli, photos

from beam_flowers.errors import StoreFieldError
from beam_flowers.store.commits import (
    Manifest,
    Section,
    decode_manifest,
    encode_manifest,
    latest,
)
from beam_flowers.store.parts import Part
from beam_flowers.store.schema import StoreRows, engine_of

pytest.importorskip("openvino")


def engines(store):
    """Rows by engine, as the manifest has them; each part's own metadata say the same."""
    (section,) = latest(str(store)).sections.values()
    found = {}
    for part in section.rows:
        (path,) = store.rglob(part.name)
        assert engine_of(pq.read_schema(path)) == part.engine
        found[part.engine] = found.get(part.engine, 0) + part.rows
    return found


@pytest.mark.slow
def test_a_store_that_mixes_engines_says_so(tmp_path, capsys):
    images, store = photos(tmp_path / "images", 1), tmp_path / "store"
    assert cli("embed", images, "--store", store) == 0
    assert "mixes" not in capsys.readouterr().err
    assert engines(store) == {"openvino": 5}
    (images / "roses" / "new.jpg").write_bytes(next(images.rglob("*.jpg")).read_bytes() + b"\0")
    flags = ("--engine", "tensorflow")
    assert cli("embed", images, "--store", store, *flags) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "mixes vectors of several engines (5 of openvino and 1 of tensorflow)" in told
    # Rows that are written again keep the engine of their vectors.
    (images / "roses").rename(images / "lilies")
    assert cli("embed", images, "--store", store, "--encoding", "plain") == 0
    assert engines(store) == {"openvino": 5, "tensorflow": 1}


def test_rows_without_an_engine_are_written_as_before():
    kind = StoreRows("ab" * 32, "tiny")
    assert b"engine" not in kind.schema(4).metadata
    assert engine_of(kind.schema(4)) is None
    assert engine_of(StoreRows("ab" * 32, "tiny", engine="openvino").schema(4)) == "openvino"


@pytest.mark.parametrize("name", ["", "Open VINO", "../x", "a" * 40])
def test_an_engine_of_another_form_is_refused(name):
    part = Part("part-" + "1" * 24 + ".parquet", 2, "a" * 64, engine=name)
    section = Section("ab" * 32, {}, (part,))
    data = encode_manifest(Manifest(1, "0" * 16, {"backbone=tiny-abababab": section}))
    with pytest.raises(StoreFieldError, match=r"parts\[0\]\.engine"):
        decode_manifest(data, "1.json")
