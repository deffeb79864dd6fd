"""What heads make of two precisions of the same images."""

import numpy as np
import pytest

from beam_flowers.errors import TrainingError
from beam_flowers.evaluation.precisions import Comparison, compare_heads, cosines
from beam_flowers.head.examples import Examples

RANDOM = np.random.default_rng(0)
LABELS = [str(number % 3) for number in range(90)]


def examples(vectors, labels=LABELS):
    names = [f"{number}.jpg" for number in range(len(vectors))]
    sha256 = [f"{number:064x}" for number in range(len(vectors))]
    return Examples(names, sha256, labels, [None] * len(vectors), vectors)


def clusters(noise):
    centres = 4 * np.eye(3, 8, dtype=np.float32)[np.arange(90) % 3]
    return centres + noise * RANDOM.standard_normal((90, 8)).astype(np.float32)


def test_the_same_vectors_lose_nothing_and_change_no_label():
    vectors = clusters(2.5)
    found = compare_heads(examples(vectors), vectors, seeds=(0, 1))
    assert found.count == 90
    assert all(first == second < 1 for first, second in found.right)
    assert found.changed == (0, 0)
    assert found.lost == (0, 0)


def test_vectors_without_meaning_lose_what_was_right():
    found = compare_heads(examples(clusters(0.1)), clusters(0) * 0 + 1, seeds=(0,))
    ((first, second),) = found.right
    assert (first, round(second, 1)) == (1, 0.3)
    lost, margin = found.lost
    assert lost == pytest.approx(first - second)
    assert 0 < margin < 0.2
    assert found.changed[0] == pytest.approx(lost)


def test_one_label_cannot_be_compared():
    with pytest.raises(TrainingError, match="two labels or more"):
        compare_heads(examples(clusters(1), ["a"] * 90), clusters(1), seeds=(0,))


def test_the_interval_is_that_of_pairs():
    """400 images, 40 changed, 10 more wrong than right: sqrt(40 - 10²/400) / 400 = 0.0158."""
    found = Comparison(400, ((0.9, 0.875),), (0.1,))
    assert found.lost == pytest.approx((0.025, 1.96 * (40 - 100 / 400) ** 0.5 / 400))


def test_cosines_of_vectors_counted_by_hand():
    first = np.array([[1, 0], [3, 4]], np.float32)
    second = np.array([[1, 0], [4, 3]], np.float32)
    mean, low = cosines(first, second)
    assert mean == pytest.approx((1 + 24 / 25) / 2)
    assert low == pytest.approx(0.96 + 0.01 * 0.04)
