"""The handlers for Beam's RunInference."""

import os
from dataclasses import replace

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.metrics import MetricsFilter
from apache_beam.ml.inference.base import (
    KeyedModelHandler,
    KeyModelMapping,
    ModelMetadata,
    RunInference,
)
from apache_beam.testing.test_pipeline import TestPipeline as Pipeline
from apache_beam.testing.util import assert_that
from stores import cli, embed, photos, rows
from vectors import embeddings

from beam_flowers.backbones.engine import load
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import BackboneError, ModelError
from beam_flowers.head.bundle import model_id, read_bundle, write_bundle
from beam_flowers.images.decode import decode
from beam_flowers.store.features import read_features
from beam_flowers.transforms import ReadStore
from beam_flowers.transforms.run_inference import (
    EmbeddingModelHandler,
    NewestModelHandler,
    ScoreModelHandler,
)

NETWORK = resolve("efficientnet-lite0")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of ten photographs, and two models trained on it: `model-1` and `model-2`."""
    base = tmp_path_factory.mktemp("inference")
    embed(photos(base / "images", 2), base / "store")
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

    handler = KeyedModelHandler(EmbeddingModelHandler(NETWORK))
    with Pipeline() as pipeline:
        uris = pipeline | beam.Create(expected.uris)
        assert_that(uris | beam.Map(pixels) | RunInference(handler), check)


def test_scores_by_run_inference_are_those_of_the_table(store, tmp_path):
    model = store.replace("store", "model-1")
    cli("score", store, "--model", model, "--output", tmp_path / "out")
    expected = {r["uri"]: (r["label"], r["model_id"]) for r in rows(tmp_path / "out")}

    def check(scores):
        assert {s.uri: (s.label, s.model_id) for s in scores} == expected
        assert {len(s.top_k) for s in scores} == {2}

    pipeline = Pipeline()
    scored = pipeline | ReadStore(store) | RunInference(ScoreModelHandler(model, top_k=2))
    assert_that(scored, check)
    result = pipeline.run()
    result.wait_until_finish()
    counters = result.metrics().query(MetricsFilter().with_name("num_inferences"))["counters"]
    assert [counter.result for counter in counters] == [10]


def test_each_key_has_a_model_of_its_own(store):
    models = {key: store.replace("store", f"model-{key}") for key in ("1", "2")}
    ids = {key: model_id(read_bundle(model)) for key, model in models.items()}
    handler = KeyedModelHandler(
        [KeyModelMapping([key], ScoreModelHandler(model)) for key, model in models.items()]
    )

    def check(scores):
        assert len(scores) == 20
        assert all(score.model_id == ids[key] for key, score in scores)

    with Pipeline() as pipeline:
        vectors = pipeline | ReadStore(store)
        keyed = vectors | beam.FlatMap(lambda b: [("1", b), ("2", b)])
        assert_that(keyed | RunInference(handler), check)


def test_a_network_is_loaded_once_for_several_steps(store):
    handler = EmbeddingModelHandler(NETWORK, max_batch_size=4)
    assert handler.load_model() is handler.load_model()
    assert handler.batch_elements_kwargs() == {"min_batch_size": 1, "max_batch_size": 4}


def test_steps_with_a_model_identifier_label_by_their_own_models(store):
    models = [store.replace("store", f"model-{n}") for n in (1, 2)]

    def check(model):
        expected = [model_id(read_bundle(model))] * 10

        def same(scores):
            assert [score.model_id for score in scores] == expected

        return same

    with Pipeline() as pipeline:
        vectors = pipeline | ReadStore(store)
        for name, model in zip("ab", models, strict=True):
            infer = RunInference(ScoreModelHandler(model), model_identifier=f"flowers {name}")
            assert_that(vectors | f"Infer {name}" >> infer, check(model), label=f"Check {name}")


def test_another_network_is_refused_while_a_pipeline_runs():
    handler = EmbeddingModelHandler(NETWORK)
    handler.update_model_path("")  # What RunInference says as long as there is no other.
    with pytest.raises(BackboneError, match="vectors of two networks cannot be compared"):
        handler.update_model_path("other.keras")


def test_a_newer_model_is_taken_by_its_folder_or_by_the_file_in_it(store):
    first, second = (store.replace("store", f"model-{n}") for n in (1, 2))
    handler = ScoreModelHandler(first)
    handler.update_model_path("")
    assert handler.load_model().model_id == model_id(read_bundle(first))
    for path in (second, f"{second}/model.json"):
        handler.update_model_path(first)
        handler.update_model_path(path)
        assert handler.load_model().model_id == model_id(read_bundle(second))


def test_a_model_that_comes_as_a_side_input_gives_the_labels(store):
    first, second = (store.replace("store", f"model-{n}") for n in (1, 2))
    expected = model_id(read_bundle(second))

    def check(scores):
        assert [score.model_id for _, score in scores] == [expected] * 10

    with Pipeline() as pipeline:
        # As WatchFilePattern gives it.
        newer = pipeline | beam.Create([ModelMetadata(f"{second}/model.json", "model")])
        keyed = pipeline | ReadStore(store) | beam.Map(lambda b: (b.image.uri, b))
        handler = KeyedModelHandler(ScoreModelHandler(first))
        infer = RunInference(handler, model_metadata_pcoll=newer, model_identifier="flowers")
        assert_that(keyed | infer, check)


def test_the_newest_model_of_a_folder_takes_over_and_a_bad_one_does_not(store, tmp_path, caplog):
    vectors = list(embeddings(range(2), 1280))
    first, second = (read_bundle(store.replace("store", f"model-{n}")) for n in (1, 2))
    write_bundle(str(tmp_path / "first"), first)
    handler = NewestModelHandler(str(tmp_path), interval=0)
    model = handler.load_model()

    def current():
        return {score.model_id for score in handler.run_inference(vectors, model)}

    assert current() == {model_id(first)}
    write_bundle(str(tmp_path / "second"), second)
    assert current() == {model_id(second)}
    write_bundle(str(tmp_path / "third"), replace(first, fingerprint="0" * 64))
    assert current() == {model_id(second)}
    assert "takes vectors of efficientnet-lite0 (00000000)" in caplog.text


def test_broken_models_are_passed_over_at_the_start_and_at_a_look(store, tmp_path, caplog):
    first, second = (read_bundle(store.replace("store", f"model-{n}")) for n in (1, 2))

    def write(name, bundle, seconds, broken=False):
        write_bundle(str(tmp_path / name), bundle)
        os.utime(tmp_path / name / "model.json", (seconds, seconds))
        if broken:
            (tmp_path / name / "weights.npy").unlink()

    write("broken-1", first, 1, broken=True)
    with pytest.raises(ModelError, match=r"no model can be taken; .*weights.npy"):
        NewestModelHandler(str(tmp_path))
    write("good-2", first, 2)
    write("broken-3", first, 3, broken=True)
    model = NewestModelHandler(str(tmp_path), interval=0).load_model()
    assert model.current().model_id == model_id(first)
    assert f"passes over the model {tmp_path / 'broken-3'}" in caplog.text
    write("good-4", second, 4)
    write("broken-5", second, 5, broken=True)
    assert model.current().model_id == model_id(second)


def test_a_folder_is_not_looked_at_more_often_than_asked_for(store, tmp_path):
    first, second = (read_bundle(store.replace("store", f"model-{n}")) for n in (1, 2))
    write_bundle(str(tmp_path / "first"), first)
    model = NewestModelHandler(str(tmp_path), interval=3600).load_model()
    write_bundle(str(tmp_path / "second"), second)
    assert model.current().model_id == model_id(first)


def test_a_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no model lies in"):
        NewestModelHandler(str(tmp_path))


def test_a_newer_model_of_another_backbone_is_refused(store, tmp_path):
    bundle = read_bundle(store.replace("store", "model-1"))
    write_bundle(str(tmp_path / "other"), replace(bundle, fingerprint="0" * 64))
    handler = ScoreModelHandler(store.replace("store", "model-1"))
    handler.update_model_path(str(tmp_path / "other"))
    with pytest.raises(ModelError, match="takes vectors of efficientnet-lite0 \\(00000000\\)"):
        handler.load_model()
