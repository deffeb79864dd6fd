"""Vectors that lie in a file are those that would have been in memory."""

import shutil
from collections import namedtuple

import numpy as np
import pytest
from vectors import blobs, digest, embeddings, make_store, train_run

from beam_flowers.errors import StoreError
from beam_flowers.head.image_classifier import ImageClassifierOptions
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.retrain import RetrainOptions
from beam_flowers.head.softmax import Sample
from beam_flowers.store import vectors
from beam_flowers.store.append import append_parts, store_place
from beam_flowers.store.features import read_features
from beam_flowers.store.parts import write_part

RECIPES = (
    LbfgsOptions(),
    RetrainOptions(how_many_training_steps=20),
    ImageClassifierOptions(train_epochs=2),
)


@pytest.fixture
def in_files(monkeypatch):
    monkeypatch.setattr(vectors, "IN_MEMORY", 0)


def filled(numbers, count=3000, length=7):
    """A file of rows in a random order, and the same as an array."""
    random = np.random.default_rng(0)
    matrix = random.standard_normal((count, length)).astype(numbers).astype(np.float32)
    file = vectors.allocate(random.permutation(count), length, numbers)
    for start in range(0, count, 700):
        file[start : start + 700] = matrix[start : start + 700]
    return file, matrix


@pytest.mark.usefixtures("in_files")
@pytest.mark.parametrize("numbers", ["float16", "float32"])
@pytest.mark.parametrize(
    "rows",
    [5, -1, slice(None), slice(10, 900), slice(0, 0), np.array([4, 4, 2999, 0]), np.arange(2000)],
    ids=str,
)
def test_rows_come_as_they_were_put(numbers, rows):
    file, matrix = filled(numbers)
    found = file[rows]
    assert isinstance(file, vectors.VectorFile)
    assert (len(file), file.shape, found.dtype) == (3000, (3000, 7), np.float32)
    np.testing.assert_array_equal(found, matrix[rows])


@pytest.mark.usefixtures("in_files")
def test_chunks_that_are_read_ahead_come_in_order():
    file, matrix = filled("float16")
    rows = np.random.default_rng(1).permutation(3000)[:2500]
    sample = Sample(file, np.arange(2500), rows)
    found = list(sample.chunks())
    assert [len(ids) for _, ids in found] == [1024, 1024, 452]
    np.testing.assert_array_equal(np.concatenate([v for v, _ in found]), matrix[rows])
    np.testing.assert_array_equal(np.concatenate([ids for _, ids in found]), np.arange(2500))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["small", "small+large"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_a_model_is_the_same_from_memory_and_from_files(tmp_path, monkeypatch, backbone, recipe):
    store = make_store(tmp_path)
    ids = {train_run(store, backbone, recipe).model_id}
    monkeypatch.setattr(vectors, "IN_MEMORY", 0)
    ids |= {train_run(store, backbone, recipe).model_id for _ in range(2)}
    assert len(ids) == 1


@pytest.mark.usefixtures("in_files")
def test_a_store_of_float16_is_read_into_a_file_half_the_size(tmp_path):
    place, kind = store_place(str(tmp_path), "net", "f" * 64, "float16")
    rows = [*embeddings(range(100), 6)]
    parts = [write_part(place, kind, kind.table(rows[:64]))]
    append_parts(place, kind, {}, [*parts, write_part(place, kind, kind.table(rows[64:]))])
    _, features = read_features(str(tmp_path))
    expected = {b.image.uri: b.vector.astype(np.float16).astype(np.float32) for b in rows}
    assert features.uris == sorted(expected)
    assert features.sha256 == [digest(uri[3:-4]) for uri in features.uris]
    np.testing.assert_array_equal(features.vectors[:], [expected[u] for u in features.uris])
    assert features.vectors._file.seek(0, 2) == 100 * 6 * 2


@pytest.mark.usefixtures("in_files")
def test_a_disk_without_room_is_named_before_the_work(monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(StoreError, match=r"has 0\.0 left; name another folder .* TMPDIR"):
        vectors.allocate(np.arange(10), 4)


def test_few_vectors_stay_in_memory():
    assert isinstance(vectors.allocate(np.arange(10), 4), np.ndarray)
    assert isinstance(blobs().vectors, np.ndarray)
