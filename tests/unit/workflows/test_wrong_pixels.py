"""What vectors tell of the pixels that they were made of."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import vectors
from stores import PHOTOS

from beam_flowers.backbones.resolve import resolve
from beam_flowers.store.append import store_place
from beam_flowers.workflows.embed import embed_images
from beam_flowers.workflows.wrong_pixels import (
    DRAWN,
    directions,
    doubt,
    drawn_vectors,
)


def made(rank, count=120, length=300, noise=0.0, seed=0):
    """Vectors around one direction that differ in `rank` others."""
    random = np.random.default_rng(seed)
    basis = random.normal(size=(rank, length))
    found = random.normal(size=(count, rank)) @ basis * noise + np.ones(length)
    return found.astype(np.float32)


def test_vectors_at_right_angles_have_the_full_rank():
    found = directions(np.eye(100, 300, dtype=np.float32))
    assert found == (pytest.approx(99), pytest.approx(0.99))


def test_equal_vectors_have_the_rank_one_and_no_spread():
    assert directions(np.ones((5, 300), np.float32)) == (pytest.approx(1), pytest.approx(0))
    assert directions(np.zeros((5, 300), np.float32)) == (1, 0)


def test_lengths_do_not_count():
    some = made(20, noise=1.0)
    scales = np.linspace(1, 50, len(some), dtype=np.float32)[:, None]
    assert directions(some * scales) == pytest.approx(directions(some), rel=1e-5)


def place_of(root, found):
    """A store of these vectors, in two parts."""
    rows = [
        row._replace(vector=vector)
        for row, vector in zip(vectors.embeddings(range(len(found)), 1), found, strict=True)
    ]
    for part in (rows[::2], rows[1::2]):
        vectors.add(root, "net", part)
    fingerprint = hashlib.sha256(b"net").hexdigest()
    return store_place(str(root), "net", fingerprint)[0]


def test_the_same_images_are_drawn_by_their_contents(tmp_path):
    found = made(20, noise=1.0)
    drawn = drawn_vectors(place_of(tmp_path / "store", found))
    order = sorted(range(len(found)), key=vectors.digest)[:DRAWN]
    np.testing.assert_array_equal(drawn, found[order])


CASES = {
    "few directions": (made(20, noise=1.0), True),
    "many directions": (made(110, noise=1.0), False),
    "alike": (made(20, noise=0.02), False),
    "one direction": (made(1, noise=0.4), True),
    "short": (made(20, noise=1.0, length=200), False),
    "few images": (made(20, noise=1.0, count=99), False),
}


@pytest.mark.parametrize("name", CASES)
def test_few_directions_of_images_that_differ_are_doubted(tmp_path, name):
    found, expected = CASES[name]
    line = doubt(place_of(tmp_path / "store", found))
    assert bool(line) == expected
    assert not line or "the network may get wrong pixels" in line


def test_a_store_without_rows_is_not_doubted(tmp_path):
    assert doubt(store_place(str(tmp_path / "none"), "net", "0" * 64)[0]) is None


@pytest.mark.slow
def test_embed_doubts_lite0_by_wrong_pixels_alone(tmp_path):
    lite = resolve("efficientnet-lite0")
    for low, high, is_doubted in ((-1.0, 1.0, False), (0.0, 255.0, True)):
        network, said = replace(lite, row=replace(lite.row, pixel_range=(low, high))), []
        embed_images([str(PHOTOS)], str(tmp_path / f"{high}"), network, warn=said.append)
        assert any("may get wrong pixels" in line for line in said) == is_doubted
