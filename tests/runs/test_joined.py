"""Heads over the vectors of several backbones side by side."""

import json
from dataclasses import replace

import apache_beam as beam
import make_images
import numpy as np
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.util import assert_that, equal_to
from stores import rejects, rows, scenes
from vectors import add, embeddings, make_store, train_run

from beam_flowers.backbones.joined import side_by_side
from beam_flowers.backbones.resolve import resolve
from beam_flowers.errors import InputError, ModelError, StoreError
from beam_flowers.head.bundle import Bundle
from beam_flowers.head.softmax import Head
from beam_flowers.head.store_examples import read_examples, read_examples_of
from beam_flowers.scoring.decision import AcceptanceRule
from beam_flowers.store.commits import latest
from beam_flowers.transforms import (
    ComputeEmbeddings,
    FindImages,
    ScoreEmbeddings,
)
from beam_flowers.workflows.classify import classify_images
from beam_flowers.workflows.embed import embed_images
from beam_flowers.workflows.score import score_images
from beam_flowers.workflows.score_options import ScoreOptions


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


def test_joined_vectors_weigh_alike(store):
    stored = read_examples(store, "small+large")
    assert stored.examples.vectors.shape == (118, 15)
    assert stored.left_out == ("/r/0.jpg", "/r/1.jpg")
    small, large = np.split(stored.examples.vectors - stored.examples.vectors.mean(axis=0), [6], 1)
    assert np.square(small).mean() == pytest.approx(1, rel=1e-4)
    assert np.square(large).mean() == pytest.approx(1, rel=1e-4)


def test_a_joined_head_takes_plain_vectors(store):
    joined = train_run(store, "large+small")
    assert joined.bundle.backbone == "large+small"
    assert joined.bundle.pixels == {"large": {"width": 5}, "small": {"width": 5}}
    assert len(joined.bundle.fingerprints) == 2
    plain = read_examples_of(store, joined.bundle)
    assert plain.examples.vectors[:, 0].std() > 100
    scaled = read_examples(store, "large+small").examples.vectors
    np.testing.assert_allclose(
        joined.bundle.head.scores(plain.examples.vectors),
        joined.result.head.scores(scaled),
        atol=1e-5,
    )
    assert "2 images lack the vectors of one of large+small" in joined.result.warnings[0]


def test_joined_vectors_beat_each_alone(store):
    found = {b: train_run(store, b).result.metrics["testing"].accuracy for b in ("small", "large")}
    joined = train_run(store, "small+large").result.metrics["testing"].accuracy
    assert joined >= max(found.values())


def test_a_joined_head_scores_a_store(store, tmp_path):
    bundle = train_run(store, "small+large").bundle
    output = str(tmp_path / "scores.parquet")
    summary = score_images(ScoreOptions((store,), output, top_k=2), bundle, None)
    assert (summary.rows, summary.rejected) == (118, 2)
    rows = pq.read_table(output).to_pylist()
    stored = read_examples_of(store, bundle).examples
    best = {
        u: bundle.labels[c]
        for u, c in zip(stored.uris, bundle.head.scores(stored.vectors).argmax(axis=1), strict=True)
    }
    assert {row["uri"]: row["label"] for row in rows} == best
    found = pq.read_table(tmp_path / "scores.rejects.parquet").to_pylist()
    assert [row["uri"] for row in found] == ["/r/0.jpg", "/r/1.jpg"]


def test_a_joined_head_scores_into_a_folder_that_keeps_up(store, tmp_path):
    bundle = train_run(store, "small+large").bundle
    out = tmp_path / "out"
    job = ScoreOptions((store,), str(out), partition_by_label=True)
    assert (score_images(job, bundle).rows, rejects(out)) == (
        118,
        {"/r/0.jpg": "NoVector", "/r/1.jpg": "NoVector"},
    )
    assert score_images(job, bundle).rejected == 2
    assert latest(str(out)).version == 1
    # One of them gets its vector, another image gets one of other content in one backbone.
    (again,) = embeddings([5], 6)
    add(store, "small", [again._replace(sha256="f" * 64)])
    add(store, "large", embeddings([0], 9, scale=1000))
    summary = score_images(job, bundle)
    assert (summary.rows, summary.rejected) == (118, 2)
    assert rejects(out) == {"/r/1.jpg": "NoVector", "/r/5.jpg": "NoVector"}
    assert len(rows(out)) == 118


def test_a_joined_head_is_refused_where_it_cannot_score(store, tmp_path):
    bundle = train_run(store, "small+large").bundle
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="can only be scored with the backbone of the model"):
        score_images(ScoreOptions((str(tmp_path / "a.jpg"),), str(tmp_path / "o.csv")), bundle)
    with pytest.raises(ModelError, match=r"of the backbone 'small\+large', these are of 'eff"):
        score_images(
            ScoreOptions((str(tmp_path / "a.jpg"),), str(tmp_path / "o.csv")), bundle, NETWORKS[0]
        )
    add(tmp_path / "other", "small", embeddings(range(9), 6))
    with pytest.raises(ModelError, match=r"needs vectors of small\+large .* holds small"):
        score_images(ScoreOptions((str(tmp_path / "other"),), str(tmp_path / "o.csv")), bundle)


NETWORKS = [resolve("efficientnet-lite0"), resolve("efficientnet-lite0", pixel_range=(0, 1))]
"""The network that ships with the package, twice: with pixels as it wants them and with others."""


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """A folder of 4 images and one broken one."""
    folder = scenes(tmp_path_factory.mktemp("joined") / "p", 4)
    (folder / "cut.jpg").write_bytes(make_images.truncated(make_images.jpeg()))
    return folder


@pytest.fixture(scope="module")
def head(pixels):
    """A head by chance over both networks' vectors, one after the other."""
    weights = np.random.default_rng(0).standard_normal((2560, 3)).astype(np.float32)
    return Bundle(
        Head(weights / 50, np.zeros(3, np.float32)),
        labels=("ant", "bee", "cat"),
        backbone="+".join(network.row.name for network in NETWORKS),
        fingerprint="+".join(network.fingerprint for network in NETWORKS),
        pixels={},
        recipe={},
        split={},
        seed=0,
        dataset_hash="",
        metrics={},
        versions={},
    )


@pytest.mark.slow
def test_a_joined_head_scores_pixels_as_it_scores_a_store(pixels, head, tmp_path):
    job = ScoreOptions(
        (str(pixels),), str(tmp_path / "a.jsonl"), rule=AcceptanceRule(min_margin=0.1)
    )
    summary = score_images(job, head, NETWORKS)
    assert str(summary) == "embedded 4, reused 0, rejected 1, hidden 0, of 5"
    with_store = replace(job, output=str(tmp_path / "b.jsonl"), store=str(tmp_path / "store"))
    assert str(score_images(with_store, head, NETWORKS)) == str(summary)
    for network in NETWORKS:
        found = embed_images([str(pixels)], str(tmp_path / "store"), network)
        assert (found.embedded, found.reused) == (0, 4)
    stored = ScoreOptions((str(tmp_path / "store"),), str(tmp_path / "c.jsonl"), rule=job.rule)
    assert score_images(stored, head).rejected == 1
    texts = [(tmp_path / f"{name}.jsonl").read_text() for name in "abc"]
    assert texts[0] == texts[1] == texts[2]
    reasons = [(tmp_path / f"{name}.rejects.jsonl").read_text() for name in "abc"]
    assert reasons[0] == reasons[1] == reasons[2]
    classified = classify_images(
        [str(pixels / "0000.jpg"), str(pixels / "cut.jpg")], head, NETWORKS, rule=job.rule
    )
    ((score,), reject) = classified
    first = json.loads(texts[0].splitlines()[0])
    assert (score.label, f"{score.score:.9g}") == (first["label"], f"{first['score']:.9g}")
    assert reject.error_class == "Truncated"


def test_joined_vectors_in_a_pipeline_of_ones_own(pixels, head, tmp_path):
    score_images(ScoreOptions((str(pixels),), str(tmp_path / "a.jsonl")), head, NETWORKS)
    wanted = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    models = [head, replace(head, seed=1)]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        images = pipeline | FindImages([str(pixels)])
        computed = images.images | ComputeEmbeddings(NETWORKS)
        scores = computed.embeddings | ScoreEmbeddings(models, 1, AcceptanceRule(threshold=1.0))
        pairs = scores | beam.Map(lambda s: (s.uri, f"{s.score:.6f}", s.label))
        expected = [(row["uri"], f"{row['score']:.6f}", "unknown") for row in wanted] * 2
        assert_that(pairs, equal_to(expected))


def test_a_file_that_changes_between_two_networks_is_rejected():
    first, second = next(embeddings([1], 6)), next(embeddings([1], 9))
    (joined,) = side_by_side([[first], [second]])
    assert joined.vector.tolist() == [*first.vector.tolist(), *second.vector.tolist()]
    (reject,) = side_by_side([[first], [second._replace(sha256="0")]])
    assert (reject.stage, reject.error_class) == ("read", "Changed")


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (None, "holds several backbones"),
        ("small+medium", "no vectors of 'medium'"),
        ("small+small", "'small.small' names a backbone twice"),
    ],
)
def test_backbones_that_cannot_be_joined(store, backbone, message):
    with pytest.raises(StoreError, match=message):
        train_run(store, backbone)
