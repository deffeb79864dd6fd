"""Sources of images as elements: patterns, uris, and the files of Beam's own `fileio`."""

import os

import apache_beam as beam
import make_images
import numpy as np
import pytest
from apache_beam.io import fileio
from apache_beam.io.filesystem import FileMetadata
from apache_beam.testing.test_pipeline import TestPipeline as Pipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from stores import photos, visible

import beam_flowers as bf
from beam_flowers.backbones.joined import Started
from beam_flowers.errors import InputError
from beam_flowers.images.recipe import Limits
from beam_flowers.transforms import compute
from beam_flowers.transforms.find import as_image

NETWORK = bf.resolve("efficientnet-lite0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five photographs, a text and a link to nothing."""
    folder = photos(tmp_path_factory.mktemp("sources") / "images", 1)
    (folder / "notes.txt").write_bytes(make_images.TEXT)
    (folder / "roses" / "dangling.jpg").symlink_to("nowhere")
    return folder


def by_uri(results):
    return sorted(results, key=lambda result: result.image.uri)


def image_uri(element):
    return element.image.uri if hasattr(element, "image") else element.uri


# --- FindImages ---


def test_patterns_as_elements_give_what_they_give_as_sources(folder):
    sources = [f"{folder}/*/*.jpg", str(folder / "notes.txt")]
    expected = list(bf.find_images(sources))
    images = [found for found in expected if isinstance(found, bf.Image)]
    rejects = [found for found in expected if isinstance(found, bf.Reject)]
    assert [reject.error_class for reject in rejects] == ["DanglingLink", "NotFound"]
    with Pipeline() as pipeline:
        found = pipeline | beam.Create(sources) | bf.FindImages()
        assert_that(found.images, equal_to(images))
        assert_that(found.rejects, equal_to(rejects), label="rejects")


@pytest.mark.slow
@pytest.mark.parametrize("as_elements", [False, True])
def test_a_file_is_listed_once_with_a_label_if_any_source_has_one(folder, as_elements):
    sources = [str(folder / "roses"), str(folder), f"{folder}/*/*.jpg", str(folder)]
    with Pipeline() as pipeline:
        if as_elements:
            found = pipeline | beam.Create(sources) | bf.FindImages()
        else:
            found = pipeline | bf.FindImages(sources)
        both = (found.images, found.rejects) | beam.Flatten()
        assert_that(both | beam.Map(image_uri), equal_to(sorted(visible(folder))))
        labels = found.images | beam.Map(lambda image: image.label)
        expected = [None, "daisy", "dandelion", "roses", "sunflowers", "tulips"]
        assert_that(labels, equal_to(expected), label="labels")


def test_one_source_may_be_a_path(folder):
    with Pipeline() as pipeline:
        found = pipeline | bf.FindImages(folder / "roses")
        names = found.images | beam.Map(lambda image: image.relative_path)
        assert_that(names, equal_to(sorted(set(os.listdir(folder / "roses")) - {"dangling.jpg"})))


def test_two_labels_of_one_manifest_are_refused(folder, tmp_path):
    rose = next((folder / "roses").glob("[0-9]*"))
    (tmp_path / "two.csv").write_text(f"uri,label\n{rose},a\n{rose},b\n")
    with pytest.raises(Exception, match="two labels, 'a' and 'b'; keep one"), Pipeline() as p:
        p | bf.FindImages([str(tmp_path / "two.csv")])


def test_sources_are_given_in_one_way(folder):
    with pytest.raises(InputError, match="takes sources, or a collection of them"):
        Pipeline() | bf.FindImages()
    with pytest.raises(InputError, match="takes sources, or a collection of them"):
        Pipeline() | beam.Create(["a"]) | bf.FindImages([str(folder)])


def test_patterns_in_windows_keep_their_window(folder):
    def timed(image, window=beam.DoFn.WindowParam):
        return image.label, int(window.start)

    patterns = [
        TimestampedValue(str(folder / name), 60 * i) for i, name in enumerate(("roses", "tulips"))
    ]
    with Pipeline() as pipeline:
        windowed = pipeline | beam.Create(patterns) | beam.WindowInto(FixedWindows(60))
        images = (windowed | bf.FindImages()).images | beam.Map(timed)
        assert_that(images, equal_to([(None, 0), (None, 60)]))


# --- ComputeEmbeddings, ScoreImages and ReadImages ---


def named_in(pipeline, folder, how):
    """The files of a folder, named in one of the ways that users have."""
    names = sorted(visible(folder) - {str(folder / "roses" / "dangling.jpg")})
    if how == "uris":
        return pipeline | beam.Create(names)
    if how == "images":
        return pipeline | beam.Create([as_image(name) for name in names])
    matches = pipeline | beam.Create(names) | fileio.MatchAll()
    return matches if how == "matches" else matches | fileio.ReadMatches()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["images", "uris", "matches", "readable files"])
def test_vectors_do_not_depend_on_how_files_are_named(folder, how):
    expected = {}
    for image in bf.find_images([str(folder)]):
        if isinstance(image, bf.Image):
            expected[image.uri] = image.bytes

    def check(found):
        assert {b.image.uri: b.image.bytes for b in found} == {
            uri: size for uri, size in expected.items() if not uri.endswith(".txt")
        }
        assert all(b.image.label is None for b in found)
        vectors = np.stack([b.vector for b in by_uri(found)])
        np.testing.assert_array_equal(vectors, reference)

    def check_rejects(found):
        assert [(r.image.uri, r.error_class) for r in found] == [
            (str(folder / "notes.txt"), "NotAnImage")
        ]

    photos_only = sorted(uri for uri in expected if not uri.endswith(".txt"))
    started = compute.start_each([as_image(uri) for uri in photos_only], [NETWORK], Limits())
    reference = np.stack([b.vector for b in started.results()])
    with Pipeline() as pipeline:
        computed = named_in(pipeline, folder, how) | bf.ComputeEmbeddings(NETWORK)
        assert_that(computed.embeddings, check)
        assert_that(computed.rejects, check_rejects, label="rejects")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["uris", "matches", "readable files"])
def test_size_and_time_are_those_of_a_listing(how, tmp_path):
    """To the microsecond: else the next `embed` takes the file for changed."""
    for number, nanoseconds in enumerate(
        (1, 999, 1_234_567_890_123_456_789, 1_700_000_000_999_999)
    ):
        (tmp_path / f"{number}.jpg").write_bytes(make_images.jpeg(seed=number))
        os.utime(tmp_path / f"{number}.jpg", ns=(nanoseconds, nanoseconds))
    expected = {
        i.uri: (i.bytes, i.modified)
        for i in bf.find_images([str(tmp_path)])
        if isinstance(i, bf.Image)
    }
    with Pipeline() as pipeline:
        names = pipeline | beam.Create(list(expected))
        if how != "uris":
            names = names | fileio.MatchAll()
        if how == "readable files":
            names = names | fileio.ReadMatches()
        found = names | beam.Map(as_image) | beam.Map(lambda i: (i.uri, (i.bytes, i.modified)))
        assert_that(found, equal_to(list(expected.items())))


def test_times_of_s3_are_whole_seconds():
    found = as_image(FileMetadata("s3://bucket/a.jpg", 7, 1_700_000_000.5))
    assert (found.bytes, found.modified) == (7, 1_700_000_000_000_000)


@pytest.mark.parametrize("step", [bf.ComputeEmbeddings(NETWORK), bf.ReadImages()])
def test_all_outputs_of_a_step_are_not_one_collection(step, folder):
    with pytest.raises(InputError, match="takes one collection, not all outputs"):
        (Pipeline() | bf.FindImages([str(folder)])) | step


@pytest.mark.slow
def test_read_takes_uris(folder):
    with Pipeline() as pipeline:
        read = pipeline | beam.Create([str(folder / "notes.txt"), "/absent"]) | bf.ReadImages()
        assert_that(read.contents | beam.Values(), equal_to([make_images.TEXT]))
        reasons = read.rejects | beam.Map(lambda reject: reject.error_class)
        assert_that(reasons, equal_to(["FileNotFoundError"]), label="rejects")


@pytest.mark.parametrize("wrong", ["", 7, None, ("a", "b")])
def test_an_element_that_names_no_image_is_said(wrong):
    with pytest.raises(InputError, match="named by an Image, a uri or a ReadableFile"):
        as_image(wrong)


@pytest.mark.slow
def test_a_name_that_no_table_can_store_is_a_reject(tmp_path):
    (tmp_path / "a.jpg").write_bytes(make_images.jpeg())
    image = as_image(str(tmp_path / "a.jpg"))
    odd = image._replace(uri=image.uri + "\udcff", relative_path="a\udcff.jpg")
    with Pipeline() as pipeline:
        computed = pipeline | beam.Create([odd, image]) | bf.ComputeEmbeddings(NETWORK)
        assert_that(computed.embeddings | beam.Map(image_uri), equal_to([image.uri]))
        reasons = computed.rejects | beam.Map(lambda r: (r.error_class, r.image.relative_path))
        assert_that(reasons, equal_to([("BadName", "a\\xff.jpg")]), label="rejects")


def test_a_bundle_has_the_next_block_on_the_threads_while_one_is_awaited(monkeypatch):
    order = []
    start, collect = compute.start_each, Started.results
    monkeypatch.setattr(compute, "_BLOCK", 2)
    monkeypatch.setattr(compute, "start_each", lambda *a: order.append("start") or start(*a))
    monkeypatch.setattr(Started, "results", lambda work: order.append("await") or collect(work))
    step = compute._Compute([NETWORK], Limits())
    step.start_bundle()
    found = []
    for number in range(5):
        image = as_image(f"/absent/{number}.jpg")
        found += step.process(image, timestamp=0, window=None)
    assert order == ["start", "start", "await"]
    found += step.finish_bundle()
    assert order == ["start", "start", "await", "start", "await", "await"]
    assert [tagged.value.value.image.relative_path for tagged in found] == [
        f"{number}.jpg" for number in range(5)
    ]
