"""The batch recipes beyond retrain.py, warm starts, temperature and several labels an image."""

from dataclasses import replace

import numpy as np
import pytest
from vectors import blobs, examples

from beam_flowers.errors import ModelError, TrainingError
from beam_flowers.head.image_classifier import (
    ImageClassifierOptions,
    epochs,
    train_image_classifier,
)
from beam_flowers.head.lbfgs import LbfgsOptions, train_lbfgs
from beam_flowers.head.metrics import evaluate
from beam_flowers.head.objective import Targets, common_scaling, targets_for
from beam_flowers.head.recipes import recipe, train_head, warm_start
from beam_flowers.head.retrain import RetrainOptions, train_retrain
from beam_flowers.head.sgd import glorot_uniform
from beam_flowers.head.softmax import Head, Sample
from beam_flowers.head.split import SplitOptions
from beam_flowers.head.temperature import BOUNDS, FEWEST_ROWS, bound_warnings, fit_temperature
from beam_flowers.head.thresholds import fit_thresholds
from beam_flowers.head.training import train

SHORT = RetrainOptions(how_many_training_steps=300, train_batch_size=20, learning_rate=0.1)
EPOCHS = ImageClassifierOptions(learning_rate=0.05)
RECIPES = [LbfgsOptions(), SHORT, EPOCHS, replace(SHORT, hidden=8), replace(EPOCHS, hidden=8)]

NAMES = ["lbfgs", "retrain", "epochs", "retrain-hidden", "epochs-hidden"]


def equal(a: Head, b: Head) -> bool:
    pairs = zip(a.parameters.values(), b.parameters.values(), strict=True)
    return all(one.tobytes() == other.tobytes() for one, other in pairs)


def rings(count=600, seed=0):
    """Two classes that no line divides: inside and outside of a circle."""
    vectors = np.random.default_rng(seed).normal(size=(count, 2)).astype(np.float32)
    return Sample(vectors, (np.square(vectors).sum(axis=1) > 1.4).astype(np.intp))


# Every recipe


@pytest.mark.parametrize("options", RECIPES, ids=NAMES)
def test_a_recipe_learns_and_repeats_to_the_byte(options):
    head = train_head(blobs(), 3, options, seed=4)
    assert evaluate(head, blobs(seed=2)).accuracy > 0.9
    assert equal(head, train_head(blobs(), 3, options, seed=4, report=lambda step: None))


@pytest.mark.parametrize("options", [SHORT, EPOCHS])
def test_a_hidden_layer_learns_what_no_line_divides(options):
    plain = train_head(rings(), 2, options)
    assert evaluate(plain, rings(seed=1)).accuracy < 0.7
    name = "how_many_training_steps" if options is SHORT else "train_epochs"
    longer = replace(options, hidden=32, **{name: 3000 if options is SHORT else 60})
    head = train_head(rings(), 2, longer)
    assert evaluate(head, rings(seed=1)).accuracy > 0.9
    assert head.hidden_weights.shape == (2, 32)


def test_gradients_of_the_hidden_layer_are_the_slopes():
    from beam_flowers.head.sgd import _gradients

    random = np.random.default_rng(0)
    shapes = ((5, 4), (4,), (4, 3), (3,))
    hidden, inside, weights, bias = (random.normal(size=s).astype(np.float32) for s in shapes)
    head = Head(weights, bias, hidden, inside)
    sample, targets = blobs(40, features=5), Targets(3, smoothing=0.1)
    batch = (sample.vectors, sample.class_ids)
    gradients = _gradients(head, batch, RetrainOptions(), targets, random)

    def loss() -> float:
        return float(targets.errors(head.logits(batch[0]), batch[1])[1].mean())

    for name, array in head.parameters.items():
        place, step = (0,) * array.ndim, 1e-3
        array[place] += step
        above = loss()
        array[place] -= 2 * step
        slope = (above - loss()) / (2 * step)
        array[place] += step
        assert gradients[name][place] == pytest.approx(slope, abs=2e-4)


# make_image_classifier's recipe


def test_an_epoch_has_every_row_once_in_another_order():
    sample = Sample(np.arange(10, dtype=np.float32)[:, None], np.arange(10))
    batches = list(epochs(sample, 4, 2, np.random.default_rng(0)))
    assert [len(ids) for _, ids in batches] == [4, 4, 2] * 2
    first, second = (np.concatenate([ids for _, ids in batches[i : i + 3]]) for i in (0, 3))
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)
    np.testing.assert_array_equal(batches[0][0][:, 0], batches[0][1])


def test_image_classifier_reports_each_epoch_on_all_rows():
    steps = []
    head = train_image_classifier(
        blobs(), 3, EPOCHS, validation=blobs(90, seed=1), report=steps.append
    )
    assert [step.step for step in steps] == [9, 19, 29, 39, 49]
    assert steps[-1].train_accuracy == evaluate(head, blobs()).accuracy
    held_back = evaluate(head, blobs(90, seed=1))
    assert steps[-1].validation_accuracy == held_back.accuracy
    assert steps[-1].validation_cross_entropy == held_back.cross_entropy


def test_fewer_rows_than_a_batch():
    head = train_image_classifier(blobs(12), 3, replace(EPOCHS, train_epochs=40))
    assert evaluate(head, blobs(12)).accuracy == 1


def test_one_step_of_momentum_by_hand():
    sample = Sample(np.eye(2, dtype=np.float32), np.arange(2))
    options = ImageClassifierOptions(2, 2, 0.5, 0.9, dropout=0, l2=0.01, label_smoothing=0)
    start = Head(np.zeros((2, 2), np.float32), np.zeros(2, np.float32))
    head = train_image_classifier(sample, 2, options, start=start)
    # Gradient by the first weight: 0.25 at zero weights; then from the moved ones, plus 2 l2 w.
    first = 0.5 * 0.25
    second = (1 - 1 / (1 + np.exp(-2 * first))) / 2 - 2 * 0.01 * first
    assert head.weights[0, 0] == pytest.approx(first + 0.9 * first + 0.5 * second, abs=1e-6)
    assert start.weights[0, 0] == 0


def test_glorot_uniform():
    weights = glorot_uniform((300, 100), np.random.default_rng(0))
    reach = np.sqrt(6 / 400)
    assert np.abs(weights).max() <= reach
    assert weights.std() == pytest.approx(reach / np.sqrt(3), rel=0.02)


# Early stopping


def test_early_stopping_keeps_the_best_report():
    steps, noisy = [], blobs(60, spread=2.5)
    options = replace(EPOCHS, train_epochs=200, early_stopping=3, l2=0.0, label_smoothing=0.0)
    validation = blobs(60, spread=2.5, seed=1)
    head = train_image_classifier(noisy, 3, options, validation=validation, report=steps.append)
    losses = [step.validation_cross_entropy for step in steps]
    assert len(steps) < 200
    assert evaluate(head, validation).cross_entropy == min(losses)
    assert losses.index(min(losses)) == len(losses) - 4
    assert equal(head, train_image_classifier(noisy, 3, options, validation=validation))


@pytest.mark.parametrize("options", [SHORT, EPOCHS])
def test_early_stopping_needs_validation_rows(options):
    with pytest.raises(TrainingError, match=r"after 2 reports.* there are none; raise"):
        train_head(blobs(), 3, replace(options, early_stopping=2))


# Targets


def test_label_smoothing_and_class_weights():
    sample = Sample(np.zeros((4, 1), np.float32), np.array([0, 0, 0, 1]))
    targets = targets_for(sample, 2, smoothing=0.1, class_weights="balanced")
    np.testing.assert_allclose(targets.of(np.array([0, 1])), [[0.95, 0.05], [0.05, 0.95]])
    np.testing.assert_allclose(targets.class_weights, [4 / 6, 2])


def test_label_smoothing_makes_a_softer_head():
    hard = train_retrain(blobs(), 3, SHORT)
    soft = train_retrain(blobs(), 3, replace(SHORT, label_smoothing=0.3))
    assert soft.scores(blobs().vectors).max(axis=1).mean() < 0.9
    assert hard.scores(blobs().vectors).max(axis=1).mean() > 0.9


@pytest.mark.parametrize("options", [LbfgsOptions(), EPOCHS])
def test_balanced_weights_help_the_rare_class(options):
    sample = blobs(600, spread=2.0)
    kept = np.flatnonzero((sample.class_ids != 1) | (np.arange(600) < 60))
    few = Sample(sample.vectors, sample.class_ids[kept], kept)
    rare = blobs(300, spread=2.0, seed=1)
    rare = Sample(
        rare.vectors, rare.class_ids[rare.class_ids == 1], np.flatnonzero(rare.class_ids == 1)
    )
    plain, balanced = (
        evaluate(train_head(few, 3, replace(options, class_weights=weights)), rare).accuracy
        for weights in (None, "balanced")
    )
    assert balanced > plain + 0.05


# Warm start


def test_lbfgs_goes_on_where_it_ended():
    long, cold, warm = train_lbfgs(blobs(), 3), [], []
    train_lbfgs(blobs(), 3, report=cold.append)
    again = train_lbfgs(blobs(), 3, report=warm.append, start=long)
    assert len(warm) < len(cold) / 2
    np.testing.assert_allclose(again.weights, long.weights, atol=2e-3)


def test_scaling_folds_and_unfolds():
    scaling = common_scaling(blobs())
    head = train_lbfgs(blobs(), 3)
    back = scaling.fold(*scaling.unfold(head))
    np.testing.assert_allclose(back.weights, head.weights, rtol=1e-6)
    np.testing.assert_allclose(back.bias, head.bias, atol=1e-5)


def test_classes_are_matched_by_label():
    old = Head(np.array([[1, 2, 3]], np.float32), np.array([4, 5, 6], np.float32), temperature=2.0)
    head = warm_start(old, ("a", "b", "c"), ("0", "c", "a"), hidden=None)
    np.testing.assert_array_equal(head.weights, [[0, 3, 1]])
    np.testing.assert_array_equal(head.bias, [0, 6, 4])
    assert head.temperature == 1


@pytest.mark.parametrize("options", RECIPES, ids=NAMES)
def test_warm_start_with_another_class(options):
    some = examples(labels=("bee", "ant"))
    old = train(some, options, seed=1)
    more = examples(labels=("bee", "cat", "ant"))
    result = train(more, options, start=(old.head, old.labels))
    assert result.labels == ("ant", "bee", "cat")
    assert result.metrics["testing"].accuracy > 0.85


@pytest.mark.parametrize(
    ("labels", "hidden", "message"),
    [
        (("x", "y"), None, r"has the labels \['a', 'b'\], none of which is among \['x', 'y'\]"),
        (("a", "b"), 7, "has no hidden layer, but a hidden layer of 7 is to be trained"),
    ],
)
def test_models_that_cannot_be_started_from(labels, hidden, message):
    old = Head(np.ones((4, 2), np.float32), np.ones(2, np.float32))
    with pytest.raises(ModelError, match=message):
        warm_start(old, ("a", "b"), labels, hidden=hidden)


# Temperature


@pytest.mark.parametrize("factor", [0.5, 2.0, 3.0])
def test_temperature_mends_scores_that_are_too_sure(factor):
    sample, test = blobs(3000, spread=2.0), blobs(3000, spread=2.0, seed=1)
    head = train_lbfgs(sample, 3, LbfgsOptions(l2=0.001))
    right = fit_temperature(head, test).temperature
    off = replace(head, weights=head.weights * factor, bias=head.bias * np.float32(factor))
    found = fit_temperature(off, test)
    assert found.temperature == pytest.approx(right * factor, rel=0.01)
    assert found.cross_entropy_after < found.cross_entropy_before
    warm = replace(off, temperature=found.temperature)
    assert evaluate(warm, test).cross_entropy == pytest.approx(found.cross_entropy_after)
    assert evaluate(warm, test).accuracy == evaluate(off, test).accuracy


def test_temperature_stays_within_its_bounds():
    easy = blobs(spread=0.01)
    head = train_lbfgs(easy, 3)
    calibration = fit_temperature(head, easy)
    assert calibration.temperature == pytest.approx(BOUNDS[0], rel=0.01)
    assert bound_warnings(calibration)[0].startswith("the temperature is at its bound 0.2: the 300")
    flat = replace(calibration, temperature=4.99)
    assert "try a higher --l2" in bound_warnings(flat)[0]
    assert not bound_warnings(replace(calibration, temperature=1.0))


def test_few_rows_leave_the_temperature_alone():
    head = train_lbfgs(blobs(), 3)
    assert fit_temperature(head, blobs(FEWEST_ROWS - 1)) is None
    assert train(examples(), SHORT, split=SplitOptions("hash", 0, 10)).head.temperature == 1
    assert train(examples(15)).head.temperature == 1


def test_training_fits_the_temperature():
    result = train(examples(spread=2.0))
    assert result.head.temperature == result.calibration.temperature != 1
    measured = result.metrics["tuned"].cross_entropy
    assert measured == pytest.approx(result.calibration.cross_entropy_after)


# Several labels an image


def pairs(count=400):
    """Vectors that add the centres of one or two of three labels."""
    random = np.random.default_rng(3)
    centres = 3 * np.random.default_rng(99).standard_normal((3, 12))
    texts = ["ant", "bee", "cat", "ant; bee", "bee;cat"]
    labels = [texts[i % 5] for i in range(count)]
    sums = [sum(centres["abc".index(t.strip()[0])] for t in text.split(";")) for text in labels]
    vectors = np.array(sums) + random.standard_normal((count, 12))
    return replace(
        examples(count), labels=labels, vectors=vectors.astype(np.float32), separator=";"
    )


@pytest.mark.parametrize(
    "options", [LbfgsOptions(), SHORT, replace(EPOCHS, train_epochs=20)], ids=NAMES[:3]
)
def test_several_labels_a_image(options):
    result = train(pairs(), options, SplitOptions("hash", 20, 20))
    assert result.labels == ("ant", "bee", "cat")
    assert result.head.multi_label
    assert result.calibration is None
    assert result.metrics["testing"].accuracy > 0.95
    held_out = np.flatnonzero(result.codes == 2)
    some = pairs()
    found = result.head.scores(some.vectors[held_out]) >= result.thresholds
    expected = [[label in some.labels[row] for label in result.labels] for row in held_out]
    assert (found == np.array(expected)).mean() > 0.95


def test_thresholds_have_the_best_f1():
    head = Head(np.eye(2, dtype=np.float32), np.zeros(2, np.float32), multi_label=True)
    logits = np.array([[3, 0], [2, 0], [1, 0], [-1, 0]], np.float32)
    membership = np.array([[1, 0], [0, 0]], np.float32)
    sample = Sample(logits, np.array([0, 0, 1, 1]), membership=membership)
    first, second = fit_thresholds(head, sample)
    scores = head.scores(logits)[:, 0]
    assert scores[2] < first < scores[1]
    assert second == 0.5


@pytest.mark.parametrize("separator", ["", " "])
def test_labels_need_a_visible_separator(separator):
    with pytest.raises(TrainingError, match="cannot be separated by"):
        train(replace(pairs(), separator=separator))


def test_settings_of_another_kind():
    with pytest.raises(TrainingError, match=r"class_weights must be one of .*, got 'heavy'"):
        recipe("lbfgs", class_weights="heavy")
    with pytest.raises(TrainingError, match="hidden must be a whole number >= 1, got 0"):
        recipe("retrain", hidden=0)
