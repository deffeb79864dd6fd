"""Heads over the vectors of several backbones side by side."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from vectors import add, bottlenecks, make_store, train_run

from beam_flowers.errors import InputError, ModelError, StoreError
from beam_flowers.head.stored import read_examples, read_examples_of
from beam_flowers.runs.score import Job, score_images


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
    assert "2 pictures lack the vectors of one of large+small" in joined.result.warnings[0]


def test_joined_vectors_beat_each_alone(store):
    found = {b: train_run(store, b).result.metrics["testing"].accuracy for b in ("small", "large")}
    joined = train_run(store, "small+large").result.metrics["testing"].accuracy
    assert joined >= max(found.values())


def test_a_joined_head_scores_a_store(store, tmp_path):
    bundle = train_run(store, "small+large").bundle
    output = str(tmp_path / "scores.parquet")
    summary = score_images(Job((store,), output, top_k=2), bundle, None)
    assert (summary.rows, summary.rejected) == (118, 2)
    rows = pq.read_table(output).to_pylist()
    stored = read_examples_of(store, bundle).examples
    best = {
        u: bundle.labels[c]
        for u, c in zip(stored.uris, bundle.head.scores(stored.vectors).argmax(axis=1), strict=True)
    }
    assert {row["uri"]: row["label"] for row in rows} == best
    rejects = pq.read_table(tmp_path / "scores.rejects.parquet").to_pylist()
    assert [row["uri"] for row in rejects] == ["/r/0.jpg", "/r/1.jpg"]


def test_a_joined_head_is_refused_where_it_cannot_score(store, tmp_path):
    bundle = train_run(store, "small+large").bundle
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(ModelError, match=r"takes the vectors of small\+large side by side"):
        score_images(Job((str(tmp_path / "a.jpg"),), str(tmp_path / "o.csv")), bundle, None)
    with pytest.raises(InputError, match=r"scores into .parquet"):
        score_images(Job((store,), str(tmp_path / "folder")), bundle, None)
    add(tmp_path / "other", "small", bottlenecks(range(9), 6))
    with pytest.raises(ModelError, match=r"has none of .*; it holds small"):
        score_images(Job((str(tmp_path / "other"),), str(tmp_path / "o.csv")), bundle, None)


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
