"""Files → vectors in a pool of threads; the network is a stand-in that counts its calls."""

import contextlib
import time

import make_images
import numpy as np
import pytest

from beam_flowers import files
from beam_flowers.backbones import compute
from beam_flowers.backbones.compute import compute_embeddings, hash_files, read_content
from beam_flowers.images.memory_gate import Gate
from beam_flowers.images.recipe import Limits, PixelRecipe
from beam_flowers.records import Embedding, Image, Reject

PADDED = make_images.jpeg() + bytes(5 * 2**20)


class MeanColour:
    """A network of three numbers; NaN for black images."""

    recipe = PixelRecipe(8, 8)
    batch = 1

    def __init__(self, delay=0.0):
        self.calls = 0
        self.delay = delay

    def embed(self, pixels):
        self.calls += len(pixels)
        time.sleep(self.delay)
        means = pixels.mean((1, 2)).astype(np.float32)
        return np.where(means.sum(1, keepdims=True) > 0, means, np.nan)


def image(path, data=None):
    if data is not None:
        path.write_bytes(data)
    size = path.stat().st_size if path.exists() else 10
    return Image(str(path), str(path.parent), path.name, bytes=size, modified=1)


@pytest.fixture
def scenes(tmp_path):
    return [image(tmp_path / f"{n}.jpg", make_images.jpeg(seed=n)) for n in range(12)]


def test_one_outcome_a_file_in_their_order(scenes):
    results = compute_embeddings(scenes, MeanColour())
    assert [r.image for r in results] == scenes
    assert len({r.vector.tobytes() for r in results}) == len(scenes)


@pytest.mark.parametrize("batch", [1, 3, 32])
def test_the_size_of_batches_changes_nothing(scenes, batch):
    engine = MeanColour()
    engine.batch = batch
    for one, other in zip(
        compute_embeddings(scenes, engine), compute_embeddings(scenes, MeanColour()), strict=True
    ):
        assert one[:5] == other[:5]
        np.testing.assert_array_equal(one.vector, other.vector)


@pytest.mark.parametrize(("mebibytes", "at_once"), [(44, 1), (88, 2), (20, 1)])
@pytest.mark.parametrize("way", ["embed", "hash"])
def test_large_files_are_in_memory_a_few_at_a_time(tmp_path, monkeypatch, mebibytes, at_once, way):
    """Of 5 MiB each, which count twice, in a quarter of the memory; or one alone."""
    gate, held, most = Gate(mebibytes * 2**20), [0], [0]
    hold, large = gate.hold, [image(tmp_path / f"{n}", PADDED + bytes([n])) for n in range(6)]

    @contextlib.contextmanager
    def counted(needed, what):
        with hold(needed, what):
            held[0] += 1
            most[0] = max(most[0], held[0])
            time.sleep(0.02)
            yield
            held[0] -= 1

    gate.hold = counted
    monkeypatch.setattr(compute, "_files_gate", lambda: gate)
    results = compute_embeddings(large, MeanColour()) if way == "embed" else hash_files(large)
    assert not any(isinstance(result, Reject) for result in results)
    assert most == [at_once]


def test_small_files_and_those_of_unknown_size_are_read_without_asking(tmp_path, monkeypatch):
    monkeypatch.setattr(compute, "_files_gate", None)
    files_ = [image(tmp_path / "small.jpg", make_images.jpeg())]
    files_.append(image(tmp_path / "large.jpg", PADDED)._replace(bytes=None))
    assert all(isinstance(one, Embedding) for one in compute_embeddings(files_, MeanColour()))


def test_equal_bytes_are_computed_once(tmp_path):
    data = make_images.jpeg()
    copies = [image(tmp_path / f"{n}.jpg", data) for n in range(10)]
    engine = MeanColour(delay=0.02)
    results = compute_embeddings(copies, engine)
    assert engine.calls == 1
    assert [r.image for r in results] == copies
    assert len({r.sha256 for r in results}) == 1


def test_copies_of_a_bad_file_are_all_rejected(tmp_path):
    bad = [image(tmp_path / f"{n}.jpg", make_images.TEXT) for n in range(4)]
    results = compute_embeddings(bad, MeanColour())
    assert [r.image for r in results] == bad
    assert {r.error_class for r in results} == {"NotAnImage"}


def test_a_bad_file_costs_its_own_row_alone(scenes, tmp_path):
    scenes[3] = image(tmp_path / "bad.jpg", make_images.truncated(make_images.jpeg()))
    scenes[5] = image(tmp_path / "missing.jpg")
    results = compute_embeddings(scenes, MeanColour())
    rejects = [r for r in results if isinstance(r, Reject)]
    assert [(r.stage, r.error_class) for r in rejects] == [
        ("decode", "Truncated"),
        ("read", "FileNotFoundError"),
    ]
    assert sum(isinstance(r, Embedding) for r in results) == 10


def test_a_reject_knows_the_content_it_was_given_for(tmp_path):
    (reject,) = compute_embeddings([image(tmp_path / "a.jpg", make_images.TEXT)], MeanColour())
    (hashed,) = hash_files([reject.image])
    assert reject.sha256 == hashed.sha256


def test_numbers_that_are_none_are_rejected(tmp_path):
    black = make_images.saved(make_images.Image.new("RGB", (20, 20)), "PNG")
    (reject,) = compute_embeddings([image(tmp_path / "black.png", black)], MeanColour())
    assert (reject.stage, reject.error_class) == ("embed", "NotFinite")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError("no route")])
def test_what_cannot_be_read_is_rejected(scenes, monkeypatch, error):
    def refuse(uri, limit=None):
        raise error

    monkeypatch.setattr(files, "read_bytes", refuse)
    reject = read_content(scenes[0], Limits())
    assert (reject.stage, reject.error_class) == ("read", type(error).__name__)
    assert reject.message in ("Permission denied", "no route")
    assert hash_files(scenes[:1]) == [reject]


def test_a_size_that_the_listing_did_not_know_is_filled_in(scenes):
    unknown = [s._replace(bytes=None) for s in scenes]
    assert [r.image for r in compute_embeddings(unknown, MeanColour())] == scenes
    assert [h.image for h in hash_files(unknown)] == scenes


def test_files_above_the_limit_are_rejected_without_a_digest_of_their_beginning(tmp_path):
    data = make_images.png(40, 40)
    large = [image(tmp_path / f"{n}.png", data + bytes(n)) for n in range(3)]
    results = compute_embeddings(large, MeanColour(), Limits(max_bytes=len(data)))
    assert isinstance(results[0], Embedding)
    assert [(r.error_class, r.sha256) for r in results[1:]] == [("TooLarge", None)] * 2


def test_an_error_of_the_network_is_not_taken_for_one_of_the_image(scenes):
    class Broken(MeanColour):
        def embed(self, pixels):
            raise MemoryError("no memory for the network")

    with pytest.raises(MemoryError):
        compute_embeddings(scenes, Broken())
