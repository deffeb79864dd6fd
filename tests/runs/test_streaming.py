"""Collections with windows, and those without an end."""

import apache_beam as beam
import pytest
from apache_beam.io.filesystem import FileMetadata
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_pipeline import TestPipeline as Pipeline
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from stores import embed, photos, rows

from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import InputError
from beam_flowers.images.find import find_images
from beam_flowers.records import Image
from beam_flowers.store.commits import versions
from beam_flowers.transforms import ComputeEmbeddings, WriteStore
from beam_flowers.transforms.streaming import WatchImages, arrived

NETWORK = resolve("efficientnet-lite0")
IN_PROCESS = {
    "FnApiRunner": ["--runner=FnApiRunner"],
    "SwitchingDirectRunner": ["--runner=DirectRunner"],
    "PortableRunner": ["--runner=PortableRunner", "--job_endpoint=embed"],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Four photographs and a file that is none; each a minute after the other."""
    folder = photos(tmp_path_factory.mktemp("streaming") / "images", 1)
    (folder / "roses" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    found = [image for image in find_images([str(folder)]) if isinstance(image, Image)]
    return [TimestampedValue(image, 60 * i) for i, image in enumerate(found)]


def timed(element, time=beam.DoFn.TimestampParam, window=beam.DoFn.WindowParam):
    return element.image.uri, int(time), int(window.start)


@pytest.mark.slow
def test_vectors_and_rejects_keep_the_window_and_the_time_of_their_image(images):
    expected = [(t.value.uri, int(t.timestamp), int(t.timestamp) // 120 * 120) for t in images]
    with Pipeline() as pipeline:
        windowed = pipeline | beam.Create(images) | beam.WindowInto(FixedWindows(120))
        computed = windowed | ComputeEmbeddings(NETWORK)
        both = (computed.embeddings, computed.rejects) | beam.Flatten()
        assert_that(both | beam.Map(timed), equal_to(expected))


@pytest.mark.slow
def test_each_window_is_a_commit_of_its_own(images, tmp_path):
    store = str(tmp_path / "store")
    with Pipeline() as pipeline:
        windowed = pipeline | beam.Create(images) | beam.WindowInto(FixedWindows(120))
        vectors = (windowed | ComputeEmbeddings(NETWORK)).embeddings
        written = vectors | WriteStore(store, NETWORK)
        together = written | "Together" >> beam.WindowInto(FixedWindows(10_000))
        total = together | beam.CombineGlobally(sum).without_defaults()
        assert_that(total, equal_to([5]))
    assert len(versions(store)) == 3
    embed(images[0].value.root, tmp_path / "expected")
    assert [r["uri"] for r in rows(store)] == [r["uri"] for r in rows(tmp_path / "expected")]


@pytest.mark.slow
def test_a_file_that_changed_within_a_window_is_written_once(images, tmp_path):
    first = images[0].value
    twice = [images[0], TimestampedValue(first._replace(modified=first.modified + 1), 60)]
    with Pipeline() as pipeline:
        windowed = pipeline | beam.Create(twice) | beam.WindowInto(FixedWindows(120))
        vectors = (windowed | ComputeEmbeddings(NETWORK)).embeddings
        assert_that(vectors | WriteStore(str(tmp_path / "store"), NETWORK), equal_to([1]))
    assert [r["uri"] for r in rows(tmp_path / "store")] == [first.uri]


@pytest.mark.parametrize("name", IN_PROCESS)
def test_a_runner_that_stops_after_the_first_look_is_refused(name, tmp_path):
    pipeline = beam.Pipeline(options=PipelineOptions(IN_PROCESS[name]))
    with pytest.raises(InputError, match=rf"^{name} stops .* run with --runner=PrismRunner"):
        pipeline | WatchImages(str(tmp_path))


def test_vectors_of_a_source_without_an_end_are_refused_there_too():
    pipeline = beam.Pipeline(options=PipelineOptions(IN_PROCESS["FnApiRunner"]))
    endless = pipeline | PeriodicImpulse() | beam.Map(lambda _: Image("/a", "/", "a"))
    with pytest.raises(InputError, match="run with --runner=PrismRunner"):
        endless | ComputeEmbeddings(NETWORK)


def test_prism_is_not_refused(tmp_path):
    pipeline = beam.Pipeline(options=PipelineOptions(["--runner=PrismRunner"]))
    assert not (
        pipeline | WatchImages(str(tmp_path)) | ComputeEmbeddings(NETWORK)
    ).embeddings.is_bounded


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"'/absent' is no folder .* make it first"):
        beam.Pipeline(runner="PrismRunner") | WatchImages("/absent")


def test_what_arrives_has_label_size_and_date_and_hidden_files_are_passed_over():
    image = next(arrived(FileMetadata("/in/roses/a [1].jpg", 7, 1.5), "/in"))
    assert image == Image(
        "/in/roses/a [1].jpg", "/in", "roses/a [1].jpg", "roses", None, 7, 1_500_000
    )
    assert not list(arrived(FileMetadata("/in/roses/.a.jpg.part", 7, 1.5), "/in"))


def test_what_arrives_in_splits_has_the_label_below_them():
    names = ("train/rose/a.jpg", "late/rose/a.jpg", "a.jpg")
    found = [next(arrived(FileMetadata(f"/in/{n}", 7, 1.5), "/in", splits=True)) for n in names]
    assert [(i.label, i.split) for i in found] == [
        ("rose", "training"),
        ("late", None),
        (None, None),
    ]


def test_whether_a_watched_root_holds_splits_is_looked_at(tmp_path):
    for folder in ("train", "val", "roses/train"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)

    def splits(root):
        arrivals = beam.Pipeline(runner="PrismRunner") | WatchImages(str(root))
        return arrivals.producer.transform.kwargs["splits"]

    assert not splits(tmp_path)
    (tmp_path / "roses" / "train").rmdir()
    (tmp_path / "roses").rmdir()
    assert splits(tmp_path)


def test_a_name_that_is_not_utf_8_is_written_so_that_it_can_be_stored():
    assert next(arrived(FileMetadata("/in/a\udcff.jpg", 7, 1.5), "/in")).uri == "/in/a\\xff.jpg"


@pytest.mark.parametrize("name", ["a [1]", "a*", "what?"])
def test_a_folder_that_beam_would_take_for_a_pattern_is_refused(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"cannot be watched: .* rename the folder, or watch one"):
        beam.Pipeline(runner="PrismRunner") | WatchImages(str(tmp_path / name))
