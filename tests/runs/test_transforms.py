"""Transforms in pipelines of one's own."""

import apache_beam as beam
import make_images
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline as Pipeline
from apache_beam.testing.util import assert_that, equal_to
from stores import cli, embed, photos, rejects, rows, visible

from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import StoreError
from beam_flowers.head.bundle import model_id, read_bundle
from beam_flowers.records import Image
from beam_flowers.store.commits import latest
from beam_flowers.store.features import read_features
from beam_flowers.transforms import (
    ComputeEmbeddings,
    FindImages,
    ReadImages,
    ReadStore,
    ScoreEmbeddings,
    WriteStore,
)

NETWORK = resolve("efficientnet-lite0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten photographs, one file that is none, a link to nothing."""
    folder = photos(tmp_path_factory.mktemp("transforms") / "images", 2)
    (folder / "bad.txt").write_bytes(make_images.TEXT)
    (folder / "dangling.jpg").symlink_to("nowhere")
    return folder


@pytest.fixture(scope="module")
def store(folder):
    """A store of the folder, by `embed`."""
    embed(folder, folder.parent / "store")
    return str(folder.parent / "store")


def test_find_tells_images_from_what_cannot_be_one(folder):
    with Pipeline() as pipeline:
        found = pipeline | FindImages([str(folder)])
        uris = found.images | beam.Map(lambda image: image.uri)
        assert_that(uris, equal_to(sorted(visible(folder) - {str(folder / "dangling.jpg")})))
        reasons = found.rejects | beam.Map(lambda reject: reject.error_class)
        assert_that(reasons, equal_to(["DanglingLink"]), label="rejects")


def test_a_store_written_by_a_pipeline_has_the_rows_of_embed(folder, store, tmp_path):
    with Pipeline() as pipeline:
        found = pipeline | FindImages([str(folder)])
        computed = found.images | ComputeEmbeddings(NETWORK)
        written = computed.embeddings | WriteStore(str(tmp_path / "store"), NETWORK)
        assert_that(written, equal_to([10]))
        bad = computed.rejects | beam.Map(lambda reject: reject.error_class)
        assert_that(bad, equal_to(["NotAnImage"]), label="rejects")
    for one, other in zip(rows(tmp_path / "store"), rows(store), strict=True):
        assert one == other
    assert embed(folder, tmp_path / "store").embedded == 0


def test_rows_of_the_same_files_are_replaced_and_others_stay(folder, store, tmp_path):
    before = read_features(store)[1]
    embed(folder, tmp_path / "store")
    with Pipeline() as pipeline:
        rows_of_roses = (
            pipeline
            | ReadStore(store)
            | beam.Filter(lambda embedding: embedding.image.label == "roses")
            | beam.Map(lambda b: b._replace(image=b.image._replace(label="Rosa")))
        )
        assert_that(rows_of_roses | WriteStore(str(tmp_path / "store"), NETWORK), equal_to([2]))
    after = read_features(str(tmp_path / "store"))[1]
    assert after.uris == before.uris
    assert after.labels == ["Rosa" if label == "roses" else label for label in before.labels]
    assert len(rejects(tmp_path / "store")) == 2


def test_a_reject_that_gets_a_row_is_none_any_more(folder, store, tmp_path):
    embed(folder, tmp_path / "store")
    with Pipeline() as pipeline:
        (
            pipeline
            | ReadStore(store)
            | beam.Filter(lambda embedding: embedding.image.label == "roses")
            | beam.Map(lambda b: b._replace(image=Image(str(folder / "bad.txt"), "/", "bad.txt")))
            | beam.combiners.Sample.FixedSizeGlobally(1)
            | beam.FlatMap(lambda sample: sample)
            | WriteStore(str(tmp_path / "store"), NETWORK)
        )
    assert list(rejects(tmp_path / "store").values()) == ["DanglingLink"]
    assert len(rows(tmp_path / "store")) == 11


def test_two_rows_of_one_file_are_refused(store, tmp_path):
    pipeline = Pipeline()
    both = (pipeline | "One" >> ReadStore(store), pipeline | "Two" >> ReadStore(store))
    both | beam.Flatten() | WriteStore(str(tmp_path / "store"), NETWORK)
    with pytest.raises(Exception, match="two of the new rows have one uri"):
        pipeline.run()
    assert not latest(str(tmp_path / "store")).version


def test_reading_gives_what_was_written(store):
    expected = read_features(store)[1]

    def check(found):
        found = sorted(found, key=lambda embedding: embedding.image.uri)
        assert [b.image.uri for b in found] == expected.uris
        np.testing.assert_array_equal([b.vector for b in found], expected.vectors)

    with Pipeline() as pipeline:
        assert_that(pipeline | ReadStore(store), check)


def test_a_backbone_that_the_store_lacks_is_named(store):
    with pytest.raises(StoreError, match="it holds: efficientnet-lite0"), Pipeline() as p:
        p | ReadStore(store, "inception-v3")


def test_scores_are_those_of_the_table(store, tmp_path):
    cli("train", store, "--model", tmp_path / "model", "--validation-percentage", "0")
    bundle = read_bundle(str(tmp_path / "model"))
    cli("score", store, "--model", tmp_path / "model", "--output", tmp_path / "out")
    expected = [(r["uri"], r["label"], pytest.approx(r["score"])) for r in rows(tmp_path / "out")]

    def check(found):
        assert sorted((s.uri, s.label, s.score) for s in found) == expected
        assert {s.model_id for s in found} == {model_id(bundle)}
        assert {len(s.top_k) for s in found} == {2}

    with Pipeline() as pipeline:
        assert_that(pipeline | ReadStore(store) | ScoreEmbeddings(bundle, top_k=2), check)


def test_read_gives_the_bytes_and_rejects_what_cannot_be_read(folder):
    images = [Image(str(folder / name), str(folder), name) for name in ("bad.txt", "missing")]
    with Pipeline() as pipeline:
        read = pipeline | beam.Create(images) | ReadImages()
        contents = read.contents | beam.MapTuple(lambda image, data: (image.relative_path, data))
        assert_that(contents, equal_to([("bad.txt", make_images.TEXT)]))
        reasons = read.rejects | beam.Map(lambda reject: reject.error_class)
        assert_that(reasons, equal_to(["FileNotFoundError"]), label="rejects")
