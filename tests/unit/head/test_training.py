"""The recipes, the measures, and the way from labelled vectors to a head."""

from dataclasses import replace

import numpy as np
import pytest
from vectors import blobs, examples

from beam_flowers.errors import TrainingError
from beam_flowers.head.examples import Examples
from beam_flowers.head.lbfgs import LbfgsOptions, train_lbfgs
from beam_flowers.head.metrics import evaluate, wilson_interval
from beam_flowers.head.objective import common_scaling
from beam_flowers.head.recipes import describe_recipe, recipe
from beam_flowers.head.retrain import (
    RetrainOptions,
    balanced_batches,
    train_retrain,
    truncated_normal,
)
from beam_flowers.head.softmax import Head, Sample, softmax
from beam_flowers.head.split import SPLITS, SplitOptions
from beam_flowers.head.training import train

SHORT = RetrainOptions(how_many_training_steps=300, train_batch_size=20, learning_rate=0.1)


def same(a: Head, b: Head) -> bool:
    return a.weights.tobytes() == b.weights.tobytes() and a.bias.tobytes() == b.bias.tobytes()


def gradient(head: Head, sample: Sample):
    """Cross entropy's gradient by the scaled weights, written down independently."""
    scaling = common_scaling(sample)
    errors = softmax(head.logits(sample.vectors)) - np.eye(len(head.bias))[sample.class_ids]
    scaled = (sample.vectors.astype(np.float64) - scaling.mean) * scaling.inverse
    weights = head.weights.astype(np.float64) / float(scaling.inverse)
    return scaled.T @ errors / len(sample), errors.mean(axis=0), weights


# Head


def test_scores_do_not_depend_on_the_batch():
    random = np.random.default_rng(0)
    head = Head(*(random.standard_normal(s).astype(np.float32) for s in ((1280, 5), (5,))))
    vectors = random.random((70, 1280), dtype=np.float32)
    alone = np.concatenate([head.scores(vectors[i : i + 1]) for i in range(70)])
    assert head.scores(vectors).tobytes() == alone.tobytes()
    np.testing.assert_allclose(alone.sum(axis=1), 1, atol=1e-6)


def test_softmax_of_huge_logits():
    np.testing.assert_array_equal(
        softmax(np.array([[1e4, 0.0], [-1e4, -1e4]])), [[1, 0], [0.5, 0.5]]
    )


# L-BFGS


@pytest.mark.parametrize("l2", [0.01, 1.0])
def test_lbfgs_finds_the_optimum(l2):
    sample = blobs()
    by_weights, by_bias, weights = gradient(train_lbfgs(sample, 3, LbfgsOptions(l2=l2)), sample)
    np.testing.assert_allclose(by_weights + l2 * weights, 0, atol=5e-5)
    np.testing.assert_allclose(by_bias, 0, atol=5e-5)


@pytest.mark.parametrize("l2", [0.0, 0.05])
def test_lbfgs_l1_is_exact(l2):
    sample, l1 = blobs(), 0.03
    head = train_lbfgs(sample, 3, LbfgsOptions(l1=l1, l2=l2))
    by_weights, _, weights = gradient(head, sample)
    slope = by_weights + l2 * weights
    zero = head.weights == 0
    assert 0.2 < zero.mean() < 0.9
    assert np.abs(slope[zero]).max() <= l1 + 1e-4
    np.testing.assert_allclose(slope[~zero], -l1 * np.sign(weights[~zero]), atol=1e-4)


def test_lbfgs_repeats_to_the_byte(tmp_path):
    sample = blobs(2500)
    stored = np.lib.format.open_memmap(
        tmp_path / "vectors.npy", mode="w+", dtype=np.float32, shape=sample.vectors.shape
    )
    stored[:] = sample.vectors
    head = train_lbfgs(sample, 3)
    assert same(head, train_lbfgs(sample, 3))
    assert same(head, train_lbfgs(Sample(stored, sample.class_ids), 3))


def test_lbfgs_leaves_the_vectors_alone():
    sample = blobs()
    before = sample.vectors.copy()
    train_lbfgs(sample, 3)
    train_retrain(sample, 3, SHORT)
    np.testing.assert_array_equal(sample.vectors, before)


def test_lbfgs_does_not_mind_units_or_offsets():
    sample, test = blobs(), blobs(seed=1)
    moved = replace(sample, vectors=sample.vectors * 50 + 7)
    expected = train_lbfgs(sample, 3).scores(test.vectors)
    found = train_lbfgs(moved, 3).scores(test.vectors * 50 + 7)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_lbfgs_of_constant_features():
    sample = blobs()
    widened = np.hstack([sample.vectors, np.full((300, 2), 3.3, np.float32)])
    head = train_lbfgs(replace(sample, vectors=widened), 3)
    np.testing.assert_array_equal(head.weights[-2:], 0)
    alike = train_lbfgs(replace(sample, vectors=np.ones_like(sample.vectors)), 3)
    np.testing.assert_allclose(alike.scores(sample.vectors), 1 / 3, atol=1e-4)


def test_lbfgs_reports_each_iteration():
    steps = []
    head = train_lbfgs(blobs(), 3, validation=blobs(seed=1), report=steps.append)
    assert [s.step for s in steps] == list(range(1, len(steps) + 1))
    assert steps[-1].cross_entropy < steps[0].cross_entropy
    assert steps[-1].validation_accuracy == evaluate(head, blobs(seed=1)).accuracy
    assert steps[-1].train_accuracy == evaluate(head, blobs()).accuracy


# retrain.py's recipe


def test_retrain_learns_and_reports():
    steps = []
    head = train_retrain(blobs(), 3, SHORT, validation=blobs(seed=1), report=steps.append)
    assert [s.step for s in steps] == [*range(0, 300, 10), 299]
    assert evaluate(head, blobs(seed=2)).accuracy > 0.9
    assert steps[-1].validation_accuracy > 0.85
    assert steps[-1].cross_entropy < steps[0].cross_entropy


def test_retrain_repeats_with_its_seed_alone():
    head = train_retrain(blobs(), 3, SHORT, seed=4)
    rarely = replace(SHORT, eval_step_interval=100)
    assert same(head, train_retrain(blobs(), 3, rarely, seed=4, report=lambda step: None))
    assert not same(head, train_retrain(blobs(), 3, SHORT, seed=5))


def test_retrain_validates_on_all_rows():
    steps, whole = [], replace(SHORT, validation_batch_size=-1)
    head = train_retrain(blobs(), 3, whole, validation=blobs(90, seed=1), report=steps.append)
    assert steps[-1].validation_accuracy == evaluate(head, blobs(90, seed=1)).accuracy


def test_draws_are_balanced_by_class():
    class_ids = np.array([0] * 950 + [2] * 50)
    vectors = np.arange(1000, dtype=np.float32)[:, None]
    drawn, ids = next(
        balanced_batches(Sample(vectors, class_ids), 20_000, np.random.default_rng(0))
    )
    assert set(ids) == {0, 2}
    assert (ids == 2).mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_array_equal(class_ids[drawn[:, 0].astype(int)], ids)
    assert len(np.unique(drawn)) > 990


def test_first_weights_are_a_truncated_normal():
    weights = truncated_normal((500, 200), np.random.default_rng(0))
    assert np.abs(weights).max() <= 0.002
    # A normal cut at two deviations has the deviation 0.8796.
    assert weights.std() == pytest.approx(0.0008796, rel=0.01)


def test_retrain_regularisation():
    plain = train_retrain(blobs(), 3, SHORT)
    assert (plain.weights != 0).all()
    l1 = train_retrain(blobs(), 3, replace(SHORT, l1=0.1))
    assert (l1.weights == 0).mean() > 0.3
    l2 = train_retrain(blobs(), 3, replace(SHORT, l2=0.5))
    assert np.square(l2.weights).sum() < 0.5 * np.square(plain.weights).sum()


def test_dropout_changes_the_head_and_still_learns():
    dropped = train_retrain(blobs(), 3, replace(SHORT, dropout=0.4))
    assert not same(dropped, train_retrain(blobs(), 3, SHORT))
    assert evaluate(dropped, blobs(seed=2)).accuracy > 0.9


# Options


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        (LbfgsOptions, {"l1": -1}, "l1 must be >= 0 and finite, got -1"),
        (LbfgsOptions, {"l2": float("nan")}, "l2 must be >= 0 and finite, got nan"),
        (LbfgsOptions, {"tolerance": 0}, "tolerance must be > 0 and finite, got 0"),
        (
            RetrainOptions,
            {"how_many_training_steps": 0},
            "steps must be a whole number >= 1, got 0",
        ),
        (RetrainOptions, {"learning_rate": 0}, "learning_rate must be > 0 and finite, got 0"),
        (RetrainOptions, {"dropout": 1.0}, "dropout must be >= 0 and < 1, got 1.0"),
        (RetrainOptions, {"validation_batch_size": 0}, "must be >= 1, or -1 for all, got 0"),
    ],
)
def test_bad_options(options, settings, message):
    with pytest.raises(TrainingError, match=message):
        options(**settings)


def test_recipes_by_name():
    assert recipe("lbfgs", l2=0.5, dropout=None) == LbfgsOptions(l2=0.5)
    options = recipe("retrain", dropout=0.2, train_batch_size=10)
    assert options == RetrainOptions(dropout=0.2, train_batch_size=10)
    assert describe_recipe(options)["name"] == "retrain"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        (
            "lbfgs",
            {"dropout": 0.2},
            r"'lbfgs' does not take 'dropout'; .*: image-classifier, retrain",
        ),
        ("retrain", {"momentum": 0.9}, r"'momentum'; those that do: image-classifier"),
        ("adam", {}, r"unknown recipe 'adam'; choose one of \[.*'lbfgs', 'retrain'\]"),
    ],
)
def test_settings_a_recipe_does_not_take(name, settings, message):
    with pytest.raises(TrainingError, match=message):
        recipe(name, **settings)


# Measures


@pytest.mark.parametrize(
    ("right", "count", "interval"),
    [(8, 10, (0.4901625, 0.9433178)), (0, 10, (0, 0.2775328)), (10, 10, (0.7224672, 1))],
)
def test_wilson_interval(right, count, interval):
    assert wilson_interval(right, count) == pytest.approx(interval, abs=1e-6)


def test_evaluate():
    head = Head(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))
    vectors = np.array([[2, 0], [0, 2], [2, 0], [0, 2]], np.float32)
    metrics = evaluate(head, Sample(vectors, np.array([0, 1, 0, 0])))
    sure, wrong = np.log(1 + np.exp(-2)), np.log(1 + np.exp(2))
    assert (metrics.count, metrics.accuracy) == (4, 0.75)
    assert metrics.cross_entropy == pytest.approx((3 * sure + wrong) / 4)


def test_nothing_to_measure():
    with pytest.raises(TrainingError, match="no rows to measure"):
        evaluate(train_lbfgs(blobs(), 3), Sample(blobs().vectors, np.array([], np.intp)))


# The whole way


def test_train():
    result = train(examples(), folds=0)
    assert result.labels == ("ant", "bee", "cat")
    assert set(result.metrics) == set(SPLITS)
    counts = [int((result.codes == code).sum()) for code in range(3)]
    assert [result.metrics[name].count for name in SPLITS] == counts
    assert sum(counts) == 300
    assert result.metrics["testing"].accuracy > 0.9
    assert result.warnings == ()


@pytest.mark.parametrize("options", [LbfgsOptions(), SHORT])
def test_train_does_not_depend_on_the_order_or_place_of_rows(options):
    some = examples()
    order = np.random.default_rng(0).permutation(300)
    shuffled = Examples(
        uris=[f"/moved/{i}" for i in order],
        sha256=[some.sha256[i] for i in order],
        labels=[some.labels[i] for i in order],
        splits=some.splits,
        vectors=some.vectors[order],
    )
    one, other = train(some, options, seed=3), train(shuffled, options, seed=3)
    assert same(one.head, other.head)
    assert one.metrics == other.metrics
    np.testing.assert_array_equal(one.codes[order], other.codes)


def test_train_keeps_given_splits_and_skips_rows_without_a_label():
    some = examples()
    labels = [None, None, *some.labels[2:]]
    result = train(replace(some, labels=labels, splits=["testing"] * 30 + [None] * 270))
    assert set(result.codes[:2]) == {-1}
    assert {SPLITS[code] for code in result.codes[2:30]} == {"testing"}
    assert sum(result.metrics[side].count for side in ("training", "testing")) == 298


def test_train_without_validation_or_testing():
    steps = []
    result = train(examples(), SHORT, SplitOptions("hash", 0, 0), report=steps.append)
    assert list(result.metrics) == ["training"]
    assert steps[-1].validation_accuracy is None


def test_labels_are_verbatim_and_sorted_by_code_point():
    assert train(examples(labels=("éa", "Rose", "ant"))).labels == ("Rose", "ant", "éa")


def test_train_warns_of_small_classes_and_missing_sides():
    some = examples(60)
    labels = ["rare" if i < 2 else label for i, label in enumerate(some.labels)]
    warnings = train(replace(some, labels=labels)).warnings
    few = r"3 of 4 labels have fewer than 20 images, such as 'ant' with 19; add some"
    assert any(line.startswith(few) for line in warnings), warnings
    assert any("image for 1 of 4 labels, such as 'rare'" in line for line in warnings)


def test_many_small_classes_are_one_line_and_can_be_left_out():
    some = examples(300)
    labels = [f"rare {i:02}" if i < 30 else label for i, label in enumerate(some.labels)]
    with pytest.raises(
        TrainingError, match=r"30 labels have one image each: .*, \.\.\.\. .*--min-images 2"
    ):
        train(replace(some, labels=labels))
    result = train(replace(some, labels=labels), split=SplitOptions(min_images=2))
    assert result.labels == ("ant", "bee", "cat")
    assert (result.codes[:30] == -1).all()
    assert (result.codes[30:] >= 0).all()
    line = result.warnings[0]
    assert line.startswith("30 of 33 labels have fewer than 2 images and are left out, such as 'ra")
    assert line.endswith("'rare 00' with 1, and 30 images with them")


def test_small_labels_among_several_are_left_out_alone():
    some = replace(examples(300), separator=";")
    labels = [f"{label}; rare" if i < 4 else label for i, label in enumerate(some.labels)]
    result = train(replace(some, labels=["odd", *labels[1:]]), split=SplitOptions(min_images=5))
    assert result.labels == ("ant", "bee", "cat")
    assert (result.codes >= 0).sum() == 299
    assert result.warnings[0].endswith("'odd' with 1, and 1 images with them")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["rose"] * 60, r"the only label is 'rose' \(60 images, 0 of them"),
        ([None] * 60, r"and there is none \(60 images, 60 of them"),
        (["Red rose", "red_rose", "x"] * 20, "differ in writing only: Red rose and red_rose"),
    ],
)
def test_labels_that_cannot_be_trained_on(labels, message):
    with pytest.raises(TrainingError, match=message):
        train(replace(examples(60), labels=labels))


def test_vectors_that_are_not_finite():
    some = examples(60)
    some.vectors[[7, 30], 3] = np.nan, np.inf
    with pytest.raises(TrainingError, match=r"2 vectors .* the first is of '/images/7.jpg'"):
        train(some)


def test_a_class_without_a_training_image():
    some = examples(60)
    splits = ["testing" if label == "cat" else None for label in some.labels]
    with pytest.raises(TrainingError, match="leaves the label 'cat' none of its 20 images"):
        train(replace(some, splits=splits))


def test_training_that_diverges():
    with pytest.raises(TrainingError, match=r"diverged .*learning_rate=1e\+38.*; use a lower"):
        train(examples(60), replace(SHORT, learning_rate=1e38))
