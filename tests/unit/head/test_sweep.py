"""What is checked before a training, and cross-validation with the choice by it."""

from dataclasses import replace

import numpy as np
import pytest
from vectors import blobs, examples

from beam_flowers.errors import TrainingError
from beam_flowers.head import leakage
from beam_flowers.head.lbfgs import LbfgsOptions, default_l2
from beam_flowers.head.retrain import RetrainOptions
from beam_flowers.head.split import SplitOptions
from beam_flowers.head.sweep import (
    CrossValidation,
    SweepOptions,
    SweepTrial,
    best_trial,
    cross_validate,
    edge_warnings,
    grid,
    run_sweep,
)
from beam_flowers.head.training import train

# Before the work


def test_a_label_with_a_single_image():
    some = examples(60)
    labels = ["rare" if i == 0 else label for i, label in enumerate(some.labels)]
    with pytest.raises(TrainingError, match="1 label has one image: 'rare'"):
        train(replace(some, labels=labels))


def test_copies_of_one_image_are_a_single_image():
    some = examples(60)
    labels = ["rare" if i < 3 else label for i, label in enumerate(some.labels)]
    sha256 = [some.sha256[0]] * 3 + some.sha256[3:]
    with pytest.raises(TrainingError, match="one image: 'rare'"):
        train(replace(some, labels=labels, sha256=sha256))


def test_a_split_that_was_asked_for_must_have_every_label():
    some = examples(60)
    labels = ["rare" if i < 2 else label for i, label in enumerate(some.labels)]
    message = "10 percent testing leaves no testing image for 1 of 4 labels.*'rare'.* 2 images"
    with pytest.raises(TrainingError, match=message):
        train(replace(some, labels=labels), required=["testing"])
    assert train(replace(some, labels=labels)).warnings
    train(replace(some, labels=labels), split=SplitOptions("hash", 10, 0), required=["testing"])


def test_variants_of_a_image_train_on_one_side():
    some = examples(300)
    uris = [f"/p/{i // 4}_nohash_{i % 4}.jpg" for i in range(300)]
    codes = train(replace(some, uris=uris)).codes.reshape(-1, 4)
    assert (codes == codes[:, :1]).all()
    assert set(codes[:, 0]) == {0, 1, 2}


# Near-identical images


def test_near_identical_images_across_the_sides_are_named():
    some = examples(300)
    codes = train(some).codes
    here, there = np.flatnonzero(codes == 0)[5], np.flatnonzero(codes == 2)[3]
    some.vectors[there] = 2.5 * some.vectors[here] + 1e-4
    first, second = train(some).warnings
    assert first.startswith("1 pairs of near-identical images lie on different sides")
    a, b = f"'/images/{there}.jpg' (testing)", f"'/images/{here}.jpg' (training)"
    assert second.startswith(f"near-identical: {a} and {b}, cosine 1.0")


def test_near_identical_finds_what_the_whole_matrix_says(monkeypatch):
    monkeypatch.setattr(leakage, "CHUNK_ROWS", 7)
    sample, codes = blobs(60, spread=0.1), np.arange(60, dtype=np.int8) // 3 % 3
    rows = np.arange(60)
    units = sample.vectors / np.linalg.norm(sample.vectors, axis=1, keepdims=True)
    expected = np.argwhere((units @ units.T >= 0.98) & (codes[:, None] > codes[None]))
    found = leakage.near_identical(sample.vectors, codes, rows, rows[codes > 0], least=0.98)
    assert len(expected) > 5
    assert {pair[:2] for pair in found} == {tuple(pair) for pair in expected.tolist()}


def test_the_search_for_near_identical_images_is_bounded(monkeypatch):
    monkeypatch.setattr(leakage, "MOST_FOUND", 10)
    some = examples(60)
    some.vectors[:] = 1
    codes, rows = np.arange(60, dtype=np.int8) % 2, np.arange(60)
    assert len(leakage.near_identical(some.vectors, codes, rows, rows[codes > 0])) == 10
    monkeypatch.setattr(leakage, "MOST_PAIRS", 60 * 4)
    assert "in 4 of 30 looked at" in leakage.leakage_warnings(some, codes, rows)[0]


# Cross-validation


def test_cross_validation_measures_every_image_once():
    some = examples(300, spread=1.5)
    found = cross_validate(some, folds=4, seed=2)
    inside = int((train(some, seed=2).codes != 2).sum())
    assert found.count == inside == sum(fold.count for fold in found.folds)
    assert found.accuracy == np.mean([fold.accuracy for fold in found.folds])
    assert 0.8 < found.accuracy < 1
    assert found == cross_validate(some, folds=4, seed=2)


def test_a_sweep_chooses_the_best():
    random = np.random.default_rng(5)
    noise = replace(examples(200), vectors=random.standard_normal((200, 12)).astype(np.float32))
    places = [("noise", noise), ("good", examples(200, spread=1.5))]
    told = []
    found = run_sweep(
        places, LbfgsOptions(max_iterations=50), SplitOptions(), SweepOptions(3), report=told.append
    )
    trials = list(found)
    assert trials == told
    best = best_trial(trials)
    assert best.backbone == "good"
    lowest = min(trial.result.cross_entropy for trial in trials)
    assert lowest <= best.result.cross_entropy < lowest * 1.1
    assert best.recipe.max_iterations == 50
    assert {trial.recipe.l2 for trial in trials} == {s.l2 for s in grid(best.recipe, classes=3)}


@pytest.mark.parametrize("options", [LbfgsOptions(), RetrainOptions()])
def test_a_grid_keeps_the_other_settings(options):
    assert {setting.l1 for setting in grid(options)} == {0.0}
    both = grid(options, l1=True)
    assert len(both) == len(set(both)) > len(grid(options))


def trials_of(losses):
    """A trial of each l2 with the cross entropies of its folds."""
    metrics = train(examples(60)).metrics["training"]
    return [
        SweepTrial(
            "net",
            LbfgsOptions(l2=l2),
            CrossValidation(9, tuple(replace(metrics, cross_entropy=loss) for loss in folds)),
        )
        for l2, folds in losses.items()
    ]


def test_of_equally_good_penalties_the_highest_is_taken():
    # The second is .007 above the first with an error of .012, the third .03 with one of .006.
    folds = {0.01: (0.2, 0.2, 0.2), 0.1: (0.2, 0.19, 0.23), 1.0: (0.22, 0.23, 0.24)}
    assert best_trial(trials_of(folds)).recipe.l2 == 0.1
    del folds[0.1]
    assert best_trial(trials_of(folds)).recipe.l2 == 0.01


def test_a_choice_at_the_edge_of_the_grid_is_said():
    ends = {0.01: (0.4, 0.4), 0.1: (0.3, 0.3), 1.0: (0.2, 0.2)}
    assert edge_warnings(trials_of(ends))[0].startswith("l2 1 is the highest of the sweep")
    assert edge_warnings(trials_of(dict(zip(ends, reversed(ends.values()), strict=True))))
    assert not edge_warnings(trials_of({0.01: (0.4, 0.4), 0.1: (0.1, 0.1), 1.0: (0.2, 0.2)}))


def test_the_grid_of_l2_is_relative_to_its_default():
    few, many = ([setting.l2 for setting in grid(LbfgsOptions(), classes=c)] for c in (5, 500))
    np.testing.assert_allclose(np.array(few) / many, 100)
    assert default_l2(500) in many
    assert default_l2(500, multi_label=True) == default_l2(2) == 0.05


@pytest.mark.parametrize("folds", [1, 2.5])
def test_folds_are_a_whole_number(folds):
    with pytest.raises(TrainingError, match=rf"folds must be a whole number >= 2, got {folds}"):
        SweepOptions(folds)
