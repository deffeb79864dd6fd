"""The handlers for Beam's RunInference."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.testing.test_pipeline import TestPipeline as Pipeline
from apache_beam.testing.util import assert_that
from stores import cli, embed, photos

from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import resolve
from beam_flowers.images.pixels import decode
from beam_flowers.inference import BottleneckModelHandler
from beam_flowers.store.features import read_features

NETWORK = resolve("efficientnet-lite0")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of ten photographs, and two models trained on it: `model-1` and `model-2`."""
    base = tmp_path_factory.mktemp("inference")
    embed(photos(base / "pictures", 2), base / "store")
    for seed in (1, 2):
        flags = ("--model", base / f"model-{seed}", "--seed", seed, "--validation-percentage", "0")
        cli("train", base / "store", *flags)
    return str(base / "store")


def test_the_model_handler_gives_the_vectors_of_the_store(store):
    recipe = load(NETWORK).recipe
    expected = read_features(store)[1]

    def pixels(uri):
        with open(uri, "rb") as file:
            return uri, decode(file.read(), recipe).pixels

    def check(found):
        vectors = dict(found)
        found = [vectors[uri] for uri in expected.uris]
        np.testing.assert_array_equal(found, expected.vectors)

    handler = KeyedModelHandler(BottleneckModelHandler(NETWORK))
    with Pipeline() as pipeline:
        uris = pipeline | beam.Create(expected.uris)
        assert_that(uris | beam.Map(pixels) | RunInference(handler), check)
