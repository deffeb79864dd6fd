"""Vectors in float16 and in PLAIN encoding: what readers see, and that labels stay the same."""

import json
import re
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from stores import cli, photos
from vectors import embeddings

from beam_flowers.backbones.engine import Engine
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import StoreError
from beam_flowers.images.recipe import PixelRecipe
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.features import open_store, read_features
from beam_flowers.store.parts import write_part
from beam_flowers.store.schema import StoreRows


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """Ten photographs and a store of their vectors in float16."""
    base = tmp_path_factory.mktemp("halves")
    photos(base / "images")
    assert cli("embed", base / "images", "--store", base / "store", "--vectors", "float16") == 0
    return base


def encodings(store):
    found = {
        str(column.encodings)
        for path in store.glob("backbone=*/*.parquet")
        for column in [pq.ParquetFile(path).metadata.row_group(0).column(13)]
        if column.path_in_schema.startswith("vector")
    }
    return {"split" if "BYTE_STREAM_SPLIT" in text else "plain" for text in found}


def test_float16_is_what_plain_readers_see_and_float32_what_training_sees(halves):
    frame = pd.read_parquet(halves / "store")
    assert len(frame) == 10
    assert {vector.dtype for vector in frame["vector"]} == {np.dtype(np.float16)}
    _, features = read_features(str(halves / "store"))
    assert features.vectors.dtype == np.float32
    seen = dict(zip(frame["uri"], frame["vector"], strict=True))
    np.testing.assert_array_equal(features.vectors, np.stack([seen[u] for u in features.uris]))


def test_a_model_labels_images_with_vectors_rounded_as_it_was_trained(halves, tmp_path):
    assert cli("train", halves / "store", "--model", tmp_path / "model") == 0
    for name, source in (("stored", halves / "store"), ("fresh", halves / "images")):
        out = tmp_path / f"{name}.jsonl"
        assert cli("score", source, "--model", tmp_path / "model", "--output", out) == 0
    stored, fresh = (
        sorted(map(json.loads, (tmp_path / f"{name}.jsonl").read_text().splitlines()), key=str)
        for name in ("stored", "fresh")
    )
    assert stored == fresh


def test_the_two_kinds_of_vectors_have_two_fingerprints():
    plain = resolve("efficientnet-lite0")
    halved = replace(plain, vectors="float16")
    assert halved.fingerprint != plain.fingerprint
    assert plain.in_form(halved.fingerprint) == halved
    assert halved.in_form(plain.fingerprint) == plain
    assert plain.in_form("of another") == plain


def test_the_engine_rounds_and_what_is_too_large_becomes_infinite():
    numbers = np.array([[1 / 3, 70_000]], np.float32)
    engine = Engine(PixelRecipe(1, 1), 2, lambda pixels: numbers, vectors="float16")
    (vector,) = engine.embed(np.zeros((1, 1, 1, 3), np.uint8))
    assert vector.dtype == np.float32
    assert vector[0] == np.float32(np.float16(1 / 3))
    assert np.isinf(vector[1])


def test_rows_that_float16_cannot_hold_are_refused_by_name():
    rows = StoreRows("f" * 64, "net", "float16")
    large = [b._replace(vector=b.vector * 1e6) for b in embeddings(range(2), 4)]
    with pytest.raises(
        StoreError, match=r"'/r/0\.jpg' has numbers beyond .*65504; store .*float32"
    ):
        rows.table(large)


def retired(store):
    return sum(path.stat().st_size for path in store.glob("__retired/*/*"))


@pytest.mark.slow
def test_a_run_that_doubles_the_store_says_by_how_much_and_how_to_free_it(tmp_path, capsys):
    pictures, store = photos(tmp_path / "images", 1), tmp_path / "a store"
    embed = ("embed", pictures, "--store", store)
    assert cli(*embed) == 0
    parts = store.glob("backbone=*/*.parquet")
    before = sum(path.stat().st_size for path in parts)
    assert "replaced" not in capsys.readouterr().out
    assert cli(*embed, "--encoding", "plain") == 0
    (said,) = [line for line in capsys.readouterr().out.splitlines() if "replaced" in line]
    assert retired(store) == before
    assert f"replaced parts of {before / 1000:.1f} kB" in said
    assert "for 7 days" in said
    (vacuum,) = re.findall("`beam-flowers (.*)`", said)
    # What is said of one more version is true.
    assert cli(*shlex.split(vacuum)) == 0
    assert retired(store) == before
    shutil.copy2(next(pictures.glob("*/*.jpg")), pictures / "copy.jpg")
    assert cli(*embed) == 0
    assert "replaced" not in capsys.readouterr().out
    assert cli(*shlex.split(vacuum)) == 0
    assert retired(store) == 0


@pytest.mark.slow
def test_a_run_that_rewrites_many_parts_says_so_too(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("beam_flowers.workflows.embed._GREAT_SIZE", 1000)
    pictures, store = photos(tmp_path / "images", 1), tmp_path / "store"
    embed = ("embed", pictures, "--store", store, "--shards", "5")
    assert cli(*embed) == 0
    next(pictures.glob("*/*.jpg")).unlink()
    assert cli(*embed) == 0  # One part of five.
    assert "replaced" not in capsys.readouterr().out
    assert cli(*embed, "--verify") == 0
    assert "replaced parts of " in capsys.readouterr().out
    assert retired(store)


def test_another_encoding_is_written_over_the_stored_one_and_then_kept(tmp_path):
    pictures, store = photos(tmp_path / "images", 1), tmp_path / "store"
    assert cli("embed", pictures, "--store", store) == 0
    assert encodings(store) == {"split"}
    before = open_store(str(store)).sections
    assert cli("embed", pictures, "--store", store, "--encoding", "plain") == 0
    assert encodings(store) == {"plain"}
    after = open_store(str(store))
    assert {k: s.dataset_hash for k, s in after.sections.items()} == {
        k: s.dataset_hash for k, s in before.items()
    }
    assert cli("embed", pictures, "--store", store) == 0
    assert open_store(str(store)).version == after.version


@pytest.mark.parametrize("encoding", ["split", "plain"])
def test_parts_added_by_a_pipeline_keep_the_encoding_of_the_store(tmp_path, encoding):
    for rows in (range(5), range(5, 9)):
        place, kind = store_place(str(tmp_path), "net", "f" * 64, "float16")
        kind = replace(kind, encoding=encoding) if rows.start == 0 else kind
        append_parts(place, kind, {}, [write_part(place, kind, kind.table([*embeddings(rows, 6)]))])
    assert encodings(tmp_path) == {encoding}
    assert len(pd.read_parquet(tmp_path)) == 9


def test_other_numbers_are_refused():
    from beam_flowers.cli.main import main

    with pytest.raises(SystemExit):
        main(["embed", "x", "--store", "y", "--vectors", "float64"])
