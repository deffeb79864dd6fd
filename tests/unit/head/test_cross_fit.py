"""Settings and temperature from rows that the head giving their scores never saw."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from vectors import blobs, examples

from beam_flowers.errors import TrainingError
from beam_flowers.head import cross_fit as module
from beam_flowers.head.cross_fit import Folds, cross_fit, make_folds, settings_of
from beam_flowers.head.examples import prepare
from beam_flowers.head.lbfgs import LbfgsOptions, default_l2
from beam_flowers.head.leakage import near_groups
from beam_flowers.head.recipes import train_head
from beam_flowers.head.retrain import RetrainOptions
from beam_flowers.head.softmax import softmax
from beam_flowers.head.split import SPLITS, SplitOptions
from beam_flowers.head.suspects import without_suspects
from beam_flowers.head.training import train

SPLIT = SplitOptions(validation_percentage=10, testing_percentage=20)


def parts(count=200, **kwargs):
    """Examples, prepared, with their folds; rows of the testing split take no part."""
    some = examples(count, spread=1.5, **kwargs)
    prepared = prepare(some, SPLIT)
    folds = make_folds(prepared, some, prepared.codes != 2, 4, seed=0)
    return some, prepared, folds


def test_testing_rows_enter_no_fold_and_all_others_one():
    _, prepared, folds = parts()
    np.testing.assert_array_equal(folds.codes == -2, prepared.codes == 2)
    assert set(folds.codes.tolist()) == {-2, 0, 1, 2, 3}
    counts = np.bincount(folds.codes[folds.inside])
    assert counts.max() - counts.min() <= 1


def test_each_row_is_scored_by_a_head_of_the_other_folds():
    some, prepared, folds = parts()
    setting = LbfgsOptions(l2=0.1, tolerance=1e-7)
    fit = cross_fit(prepared, some, folds, [setting])
    for fold in range(4):
        training = prepared.where(some.vectors, folds.inside & (folds.codes != fold))
        head = train_head(training, 3, setting)
        rows = folds.codes[fit.places] == fold
        expected = head.logits(some.vectors[prepared.rows[fit.places[rows]]])
        np.testing.assert_allclose(fit.logits[rows], expected, atol=1e-3)
    assert len(fit.places) == folds.inside.sum()
    assert fit.recipe == setting


def test_the_setting_of_the_lowest_cross_entropy_is_taken():
    some, prepared, folds = parts()
    settings = settings_of(LbfgsOptions(), prepared, 160)
    assert [s.l2 for s in settings] == sorted([s.l2 for s in settings], reverse=True)
    fit = cross_fit(prepared, some, folds, settings)
    losses = [tried.cross_entropy for tried in fit.tried]
    assert fit.recipe == fit.tried[int(np.argmin(losses))].recipe
    assert fit.metrics().cross_entropy == pytest.approx(min(losses))
    assert fit.calibration.cross_entropy_after == pytest.approx(min(losses))


def test_wrong_labels_ask_for_a_stronger_penalty():
    some = examples(300, features=100, spread=0.8)
    labels = [some.labels[i - 1] if i % 4 == 0 else label for i, label in enumerate(some.labels)]
    clean, noisy = (
        train(replace(some, labels=given), split=SPLIT) for given in (some.labels, labels)
    )
    assert noisy.recipe.l2 > clean.recipe.l2
    assert any("labels may be wrong" in line for line in noisy.warnings)


def test_a_given_l2_stays():
    some, prepared, _ = parts()
    assert settings_of(LbfgsOptions(l2=0.3), prepared, 160) == [LbfgsOptions(l2=0.3)]
    (only,) = settings_of(LbfgsOptions(l1=0.01), prepared, 160)
    assert only.l2 == default_l2(3)
    result = train(some, LbfgsOptions(l2=0.3), SPLIT)
    assert result.recipe.l2 == 0.3
    assert result.calibration.count == result.metrics["tuned"].count


def test_validation_rows_train_and_testing_rows_change_nothing():
    some = examples(200, spread=1.5)
    result = train(some, split=SPLIT)
    assert set(result.metrics) == {"training", "tuned", "testing"}
    inside = (result.codes != 2).sum()
    assert result.metrics["training"].count == result.metrics["tuned"].count == inside
    assert result.choices["images"] == inside
    moved = replace(
        some, vectors=some.vectors + 9 * (result.codes == 2)[:, None].astype(np.float32)
    )
    again = train(moved, split=SPLIT)
    assert again.head.weights.tobytes() == result.head.weights.tobytes()
    assert again.head.temperature == result.head.temperature


def test_no_folds_hold_the_validation_rows_back():
    result = train(examples(200), split=SPLIT, folds=0)
    assert set(result.metrics) == set(SPLITS)
    assert result.choices is None
    assert "validation" in train(examples(200), RetrainOptions(how_many_training_steps=20)).metrics
    with pytest.raises(TrainingError, match="folds must be 0 or a whole number >= 2, got 1"):
        train(examples(200), folds=1)


def test_without_testing_rows_nested_folds_measure():
    some = examples(150, spread=2.5)
    result = train(some, split=SplitOptions("hash", 10, 0), folds=3)
    nested, tuned = result.metrics["nested"], result.metrics["tuned"]
    assert nested.count == tuned.count == 150
    # Pure noise has one right in three, however much is chosen.
    noise = replace(some, vectors=np.random.default_rng(0).standard_normal((150, 40), np.float32))
    found = train(noise, split=SplitOptions("hash", 10, 0), folds=3).metrics["nested"]
    assert found.accuracy_low < 1 / 3 < found.accuracy_high
    assert found.cross_entropy > 0.97 * np.log(3)


def test_held_out_scores_of_the_model_are_those_of_the_folds():
    result = train(examples(200, spread=1.5), split=SPLIT)
    by_folds = result.held_out[~result.held_out["testing"]]
    assert len(by_folds) == result.metrics["tuned"].count
    assert by_folds["correct"].mean() == pytest.approx(result.metrics["tuned"].accuracy)
    some, prepared, folds = parts()
    fit = cross_fit(prepared, some, folds, [LbfgsOptions()])
    scores = softmax(fit.logits / fit.temperature)
    assert abs(scores.max(axis=1).mean() - (scores.argmax(axis=1) == fit.class_ids).mean()) < 0.05


def test_near_equal_images_share_a_fold():
    some = examples(60)
    some.vectors[1::3] = some.vectors[0::3] * 1.5
    labels = [f"{i // 30}" for i in range(60)]
    some = replace(some, labels=labels)
    prepared = prepare(some, SplitOptions("hash", 0, 0))
    folds = make_folds(prepared, some, np.ones(60, bool), 5, seed=0)
    code = dict(zip(prepared.rows.tolist(), folds.codes.tolist(), strict=True))
    assert all(code[i] == code[i + 1] for i in range(0, 60, 3))


def test_a_label_of_near_equal_images_keeps_them_apart():
    vectors = np.vstack([np.ones((4, 6)), blobs(6, 6).vectors]).astype(np.float32)
    groups, ids = [str(i) for i in range(10)], np.array([0] * 4 + [1] * 6)
    assert near_groups(vectors, np.arange(10), groups, ids)[:4] == groups[:4]
    ids[3] = 1
    assert near_groups(vectors, np.arange(10), groups, ids)[3] == "0"


def test_a_label_with_one_image_left_to_train_on_is_not_judged():
    some = examples(60)
    labels = ["rare" if i == 0 else label for i, label in enumerate(some.labels)]
    prepared = prepare(examples(60), SplitOptions("hash", 0, 0))
    numbers = np.array([2 if labels[row] == "rare" else 0 for row in prepared.rows])
    prepared = replace(
        prepared,
        class_ids=np.where(numbers == 2, 3, prepared.class_ids),
        labels=(*prepared.labels, "rare"),
    )
    folds = make_folds(prepared, some, np.ones(60, bool), 5, seed=0)
    fit = cross_fit(prepared, some, folds, [LbfgsOptions()])
    assert len(fit.places) == 59
    assert 3 not in fit.class_ids


def test_many_rows_are_held_out_once(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 100)
    some, prepared, folds = parts()
    np.testing.assert_array_equal(folds.codes == 0, prepared.codes == 1)
    assert folds.count == 1
    result = train(some, split=SPLIT)
    assert result.metrics["tuned"].count == (prepared.codes == 1).sum()
    assert result.metrics["training"].count == (prepared.codes != 2).sum()
    tenth = make_folds(
        prepare(some, SplitOptions("hash", 0, 0)), some, np.ones(200, bool), 5, seed=0
    )
    assert (tenth.codes == 0).sum() == 20


def test_two_rows_make_no_folds():
    some = examples(6)
    prepared = prepare(some, SplitOptions("hash", 0, 0))
    assert make_folds(prepared, some, np.arange(6) < 1, 5, seed=0) is None
    assert isinstance(make_folds(prepared, some, np.arange(6) < 2, 5, seed=0), Folds)


# Suspects


def flipped(count=300):
    """Examples with every eighth label wrong, and which those are."""
    some = examples(count, features=40, spread=1.0)
    wrong = np.arange(count) % 8 == 3
    labels = [some.labels[i - 1] if bad else some.labels[i] for i, bad in enumerate(wrong)]
    return replace(some, labels=labels), wrong


def test_dropped_suspects_are_wrong_ones_of_the_training():
    some, wrong = flipped()
    result = train(some, split=SPLIT, drop_suspects=0.3)
    dropped = result.choices["dropped"]
    rows = [some.sha256.index(content) for content in dropped["sha256"]]
    assert dropped["images"] == len(rows) == sum(dropped["by_label"].values())
    assert (result.codes[rows] != 2).all()
    assert wrong[rows].mean() > 0.9
    assert len(rows) > 0.7 * (wrong & (result.codes != 2)).sum()
    plain = train(some, split=SPLIT)
    assert result.metrics["tuned"].count == plain.metrics["tuned"].count
    assert result.metrics["testing"].count == plain.metrics["testing"].count


def test_at_most_a_share_of_a_label_is_dropped():
    some, _ = flipped()
    result = train(some, split=SPLIT, drop_suspects=0.02)
    images = Counter(
        label for label, code in zip(some.labels, result.codes, strict=True) if code != 2
    )
    assert result.choices["dropped"]["by_label"] == {
        label: int(0.02 * count) for label, count in images.items()
    }


def test_suspects_are_sought_in_the_rows_given_alone():
    some, _ = flipped()
    prepared = prepare(some, SPLIT)
    chosen = prepared.codes != 2
    kept = without_suspects(prepared, some, chosen, 0.3, seed=0)
    assert not (kept & ~chosen).any()
    moved = some.vectors.copy()
    moved[prepared.rows[~chosen]] *= -5
    again = without_suspects(prepared, replace(some, vectors=moved), chosen, 0.3, seed=0)
    np.testing.assert_array_equal(kept, again)


def test_other_recipes_drop_suspects_too():
    some, wrong = flipped()
    recipe = RetrainOptions(how_many_training_steps=20)
    result = train(some, recipe, SPLIT, drop_suspects=0.3)
    rows = [some.sha256.index(content) for content in result.choices["dropped"]["sha256"]]
    assert (result.codes[rows] == 0).all()
    assert wrong[rows].mean() > 0.9


def test_suspects_that_cannot_be_dropped():
    with pytest.raises(TrainingError, match=r"is above 0 and up to 0\.5, got 0\.6"):
        train(examples(60), drop_suspects=0.6)
    several = replace(examples(60), separator=";")
    with pytest.raises(TrainingError, match="where each image has one label only"):
        train(several, drop_suspects=0.3)
