"""Measures of a model: pure functions on arrays."""

import hashlib

import numpy as np
import pytest

from beam_flowers.errors import InputError
from beam_flowers.evaluation.measures import (
    Scored,
    confusion_matrix,
    cross_entropy,
    expected_calibration_error,
    log_scores,
    lowest_margins,
    misclassified,
    per_class,
    reliability,
    top_k_accuracy,
)
from beam_flowers.evaluation.multi_label import (
    Decided,
    closest_decisions,
    count_labels,
    per_label,
    top_k_hits,
    wrong_decisions,
)
from beam_flowers.evaluation.render import confusion_png
from beam_flowers.evaluation.search import nearest
from beam_flowers.evaluation.suspects import (
    list_suspects,
    out_of_fold,
)
from beam_flowers.evaluation.text import cell, table
from beam_flowers.head.groups import fold_codes
from beam_flowers.head.lbfgs import train_lbfgs
from beam_flowers.head.softmax import Head, Sample, softmax
from beam_flowers.head.suspects import is_suspect
from beam_flowers.scoring.decision import threshold_for_precision


def digest(value):
    return hashlib.sha256(str(value).encode()).hexdigest()


def scored(scores, class_ids, labels=None):
    scores = np.array(scores, dtype=float)
    labels = tuple(labels or "abcdefgh"[: scores.shape[1]])
    uris = [f"/p/{row}.jpg" for row in range(len(scores))]
    return Scored(labels, uris, np.array(class_ids, dtype=np.intp), np.log(scores))


THREE = scored(
    [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.4, 0.1], [0.3, 0.4, 0.3]],
    [0, 1, 1, 0],
)


# Measures


def test_measures_of_four_images_counted_by_hand():
    assert [share.right for share in top_k_accuracy(THREE)] == [2, 4, 4]
    assert cross_entropy(THREE) == pytest.approx(-np.log([0.7, 0.8, 0.4, 0.3]).mean())
    matrix = confusion_matrix(THREE)
    assert matrix.tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    first, _, third = per_class(matrix, THREE.labels)
    assert first == ("a", 0.5, 0.5, 0.5, 2, 2)
    assert third == ("c", None, None, None, 0, 0)


def test_a_label_never_given_has_no_precision_but_a_recall():
    (row,) = per_class(np.array([[0, 2], [0, 0]]), ("a", "b"))[:1]
    assert (row.precision, row.recall, row.f1) == (None, 0, 0)


def test_equal_scores_rank_by_class_as_in_the_score_table():
    alike = scored([[0.25] * 4] * 2, [0, 2])
    assert [share.right for share in top_k_accuracy(alike)] == [1, 1, 2, 2]


def test_scores_use_the_temperature_and_stay_finite():
    random = np.random.default_rng(0)
    vectors = random.standard_normal((2500, 6)).astype(np.float32)
    weights = 500 * random.standard_normal((6, 3)).astype(np.float32)
    head = Head(weights, np.zeros(3, np.float32), temperature=2.0)
    found = log_scores(head, Sample(vectors, np.zeros(2500, np.intp)))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found), softmax(vectors.astype(float) @ weights / 2))


# Calibration


def test_reliability_puts_each_image_into_its_bin():
    bins = reliability(np.array([0.0, 0.1, 0.1001, 1.0]), np.array([True, False, True, True]))
    assert [b.images for b in bins] == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    assert (bins[0].accuracy, bins[0].confidence) == (0.5, 0.05)
    assert bins[5].accuracy is None
    expected = (2 * 0.45 + (1 - 0.1001) + 0) / 4
    assert expected_calibration_error(bins) == pytest.approx(expected)


def test_calibrated_scores_have_almost_no_error():
    random = np.random.default_rng(0)
    confidence = random.random(50_000)
    right = random.random(50_000) < confidence
    assert expected_calibration_error(reliability(confidence, right)) < 0.01
    assert expected_calibration_error(reliability(confidence**0.5, right)) > 0.1


# Images


def test_mistakes_come_most_confident_first():
    rows = misclassified(THREE)
    assert [(row.uri, row.label, row.predicted) for row in rows] == [
        ("/p/2.jpg", "b", "a"),
        ("/p/3.jpg", "a", "b"),
    ]
    assert rows[0].label_score == pytest.approx(0.4)
    assert rows[0].predicted_score == pytest.approx(0.5)


def test_lowest_margins_come_narrowest_first():
    rows = lowest_margins(THREE, count=2)
    assert [row.margin for row in rows] == pytest.approx([0.1, 0.1])
    assert {row.uri for row in rows} == {"/p/2.jpg", "/p/3.jpg"}
    assert all(row.first_score >= row.second_score for row in rows)


def test_neighbours_are_those_of_the_whole_matrix_at_once():
    vectors = np.random.default_rng(0).standard_normal((2100, 8)).astype(np.float32)
    vectors[5] = 0
    vectors[2050] = 3 * vectors[7]
    rows, cosines = nearest(vectors, 7, 4)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)
    expected = [row for row in np.argsort(-(unit @ unit[7])) if row != 7][:4]
    assert rows.tolist() == expected
    assert rows[0] == 2050
    assert cosines[0] == pytest.approx(1)


def test_a_store_of_two_images_has_one_neighbour():
    assert nearest(np.eye(2, dtype=np.float32), 0)[0].tolist() == [1]


# Suspected label errors


def test_the_rule_by_hand():
    scores = np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0.1, 0.9], [0.3, 0.7], [0.95, 0.05]])
    class_ids = np.array([0, 0, 0, 1, 1, 1])
    # Thresholds: (0.9 + 0.5 + 0.2) / 3 and (0.9 + 0.7 + 0.05) / 3; each label has one of the other.
    assert is_suspect(scores, class_ids).tolist() == [False, False, True, False, False, True]
    found = list_suspects("ab", list("uvwxyz"), scores, class_ids)
    assert [(s.uri, s.label, s.suggested) for s in found] == [("z", "b", "a"), ("w", "a", "b")]


@pytest.mark.parametrize("seed", range(6))
def test_suspects_are_those_of_cleanlab(seed):
    find = pytest.importorskip("cleanlab.filter").find_label_issues
    random = np.random.default_rng(seed)
    truth = random.integers(4, size=300)
    wrong = random.random(300) < 0.2
    labels = np.where(wrong, random.integers(4, size=300), truth)
    logits = random.standard_normal((300, 4)) + 2 * np.eye(4)[truth]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = find(labels, scores, filter_by="both", n_jobs=1)
    found = is_suspect(scores, labels)
    np.testing.assert_array_equal(found, expected)
    assert 30 < found.sum() < 80


def test_flipped_labels_are_found():
    random = np.random.default_rng(0)
    truth = np.arange(300) % 3
    centres = 3 * np.eye(3, 10)
    vectors = (centres[truth] + 0.6 * random.standard_normal((300, 10))).astype(np.float32)
    flipped = np.arange(0, 300, 29)
    labels = truth.copy()
    labels[flipped] = (labels[flipped] + 1) % 3
    folds = fold_codes([digest(i) for i in range(300)], labels, 5)
    scores = out_of_fold(
        Sample(vectors, labels),
        folds,
        lambda training: train_lbfgs(training, 3),
        lambda head, part: np.exp(log_scores(head, part)),
    )
    found = np.flatnonzero(is_suspect(scores, labels))
    assert set(found) <= set(flipped)
    # The rule would rather be silent than wrong.
    assert len(found) >= 2 / 3 * len(flipped)
    assert (scores[found].argmax(axis=1) == truth[found]).all()


def test_no_row_is_scored_by_a_head_that_saw_it():
    folds = np.array([0, 1, 2, 0, 1, 2])
    sample = Sample(np.arange(12, dtype=np.float32).reshape(6, 2), np.zeros(6, np.intp))

    def score(trained_on, part):
        assert not set(trained_on) & set(part.rows.tolist())
        return sample.vectors[part.rows].astype(float)

    scores = out_of_fold(sample, folds, lambda training: training.rows.tolist(), score)
    np.testing.assert_array_equal(scores, sample.vectors)


# Thresholds


def test_the_threshold_is_the_last_that_passes_the_binomial_test():
    from scipy.stats import binomtest

    scores = np.linspace(1, 0.2, 400)
    correct = np.random.default_rng(0).random(400) < np.linspace(1.04, 0.75, 400)
    found = threshold_for_precision(scores, correct, 0.9)
    count = int((scores >= found).sum())

    def passes(images):
        right = int(correct[:images].sum())
        return binomtest(right, images, 0.9, alternative="greater").pvalue <= 0.1

    # 91 images are needed for five wrong ones, the most that a quarter of 400 has room for.
    assert all(passes(images) for images in range(91, count + 1))
    assert count < 400
    assert not passes(count + 1)


def test_a_threshold_reaches_its_target_on_other_images_nine_times_of_ten():
    random = np.random.default_rng(1)

    def draw(count):
        scores = random.random(count)
        return scores, random.random(count) < 0.7 + 0.3 * scores

    missed, refused = 0, 0
    for _ in range(300):
        try:
            least = threshold_for_precision(*draw(800), 0.9)
        except InputError:
            refused += 1
        else:
            missed += 0.7 + 0.3 * (1 + least) / 2 < 0.9
    assert 0 < missed <= 0.12 * 300
    assert refused < 0.2 * 300


def test_equal_scores_are_answered_together():
    scores, correct = np.repeat([0.7, 0.3], 100), np.repeat([True, False], 100)
    assert threshold_for_precision(scores, correct, 0.9) == 0.7
    with pytest.raises(
        InputError, match=r"takes 22 images at the top .*, or 38 with one; the best"
    ):
        threshold_for_precision(scores[:20], correct[:20], 0.9)


def test_no_number_of_images_shows_that_all_are_right():
    with pytest.raises(InputError, match="no number of images can show a precision of 1"):
        threshold_for_precision(np.ones(999), np.ones(999, bool), 1)


@pytest.mark.parametrize("target", [0, -1, 2, float("nan")])
def test_a_target_precision_is_a_share(target):
    with pytest.raises(InputError, match="target precision"):
        threshold_for_precision(np.ones(3), np.ones(3, bool), target)


def test_no_threshold_without_images():
    with pytest.raises(InputError, match="no images"):
        threshold_for_precision(np.empty(0), np.empty(0, bool), 0.9)


# Texts and plots


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a|b", r"a\|b"), ("/x/a_b.jpg", "/x/a_b.jpg"), ("_a_", r"\_a\_"), ("a\nb", "a b")],
)
def test_text_in_a_cell_is_itself(text, expected):
    assert cell(text) == expected


def test_numbers_are_aligned_to_the_right():
    assert table(["l", "n"], [["a", "1.0 %"], ["b", "–"]]).splitlines()[1] == "| --- | ---: |"
    assert table(["l"], []) == "| l |\n| --- |"


def test_a_matrix_becomes_the_same_png_again():
    pytest.importorskip("matplotlib")
    settings = np.eye(3, dtype=np.intp), ["$a", "b $", "玫瑰\n"], "1 $ and 2 $"
    png = confusion_png(*settings)
    assert png.startswith(b"\x89PNG")
    assert png == confusion_png(*settings)


@pytest.mark.slow
def test_a_matrix_too_large_for_names_becomes_a_png():
    pytest.importorskip("matplotlib")
    labels = [f"label {i}" for i in range(125)]
    assert confusion_png(np.eye(125, dtype=np.intp), labels, "many").startswith(b"\x89PNG")


# Several labels an image


MANY = Decided(
    ("a", "b"),
    ("u", "v", "w"),
    np.array([[True, False], [True, True], [False, False]]),
    np.array([[0.9, 0.2], [0.3, 0.8], [0.1, 0.65]]),
    np.array([0.5, 0.7]),
)


def test_decisions_of_three_images_counted_by_hand():
    counts = count_labels(MANY)
    assert counts == [("a", 1, 1, 0, 1), ("b", 1, 0, 0, 2)]
    assert per_label(counts, MANY.thresholds)[0] == ("a", 0.5, 1, 0.5, 2 / 3, 2, 1)
    assert [share.right for share in top_k_hits(MANY)] == [2, 2]
    assert wrong_decisions(MANY) == [("v", ["a", "b"], "a", True, 0.3, 0.5)]
    assert [(d.uri, d.label) for d in closest_decisions(MANY, 2)] == [("w", "b"), ("v", "b")]
