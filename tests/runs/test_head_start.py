"""The first units are on the threads while the pipeline is built, and are computed once."""

import numpy as np
import pytest
from stores import photos, rows

from beam_flowers.backbones import compute, joined, openvino_engine
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import BackboneError
from beam_flowers.images.find import find_images
from beam_flowers.images.recipe import Limits
from beam_flowers.records import Image
from beam_flowers.transforms.prefetch import PREFETCHED
from beam_flowers.workflows.embed import embed_images

NETWORK = resolve("efficientnet-lite0")

needs_kept = pytest.mark.skipif(NETWORK.engine != "openvino", reason="OpenVINO is not installed")


@pytest.fixture
def folder(tmp_path):
    return photos(tmp_path / "images", 2)


@pytest.fixture
def kept(tmp_path_factory, folder):
    """The network is in the cache, as after any first run."""
    embed_images([str(folder)], str(tmp_path_factory.mktemp("first") / "store"), NETWORK)
    assert openvino_engine.starts_alone(NETWORK)


@needs_kept
def test_the_pipeline_takes_what_was_started_early(folder, tmp_path, kept, monkeypatch):
    started = []
    real = PREFETCHED.start

    def start(units, *others):
        started.extend(map(len, units))
        real(units, *others)

    monkeypatch.setattr(PREFETCHED, "start", start)
    before = compute.pool().tally.files
    summary = embed_images([str(folder)], str(tmp_path / "store"), NETWORK)
    assert (started, summary.embedded) == ([10], 10)
    assert compute.pool().tally.files - before == 10
    assert not PREFETCHED._work
    assert len(rows(tmp_path / "store")) == 10


def test_work_that_was_started_early_is_given_out_once(folder):
    images = [found for found in find_images([str(folder)]) if isinstance(found, Image)]
    PREFETCHED.start([images], [NETWORK], Limits())
    early = PREFETCHED.take(images, [NETWORK], Limits())
    assert PREFETCHED.take(images, [NETWORK], Limits()) is None
    again = joined.start_each(images, [NETWORK], Limits())
    first, second = (started.results() for started in (early, again))
    assert all(np.array_equal(a.vector, b.vector) for a, b in zip(first, second, strict=True))


@needs_kept
def test_what_goes_wrong_early_is_told_by_the_pipeline(folder, tmp_path, kept, monkeypatch):
    def fail(backbone):
        raise BackboneError("no such network")

    monkeypatch.setattr(joined, "load", fail)
    with pytest.raises(Exception, match="no such network"):
        embed_images([str(folder)], str(tmp_path / "store"), NETWORK)


@needs_kept
def test_where_others_compute_nothing_is_started(folder, tmp_path, kept, monkeypatch):
    from beam_flowers.workflows.embed import RunOptions

    monkeypatch.setattr(PREFETCHED, "start", None)
    options = RunOptions(pipeline=["--runner=FnApiRunner"])
    assert embed_images([str(folder)], str(tmp_path / "store"), NETWORK, options).embedded == 10
