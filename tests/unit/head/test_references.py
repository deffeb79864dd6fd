"""Heads against scikit-learn's, which finds the same optimum another way."""

import numpy as np
import pytest
from vectors import blobs

from beam_flowers.head.lbfgs import LbfgsOptions, train_lbfgs
from beam_flowers.head.objective import common_scaling

pytest.importorskip("sklearn", reason="scikit-learn is in the extra [test]")
from sklearn.linear_model import LogisticRegression


@pytest.mark.parametrize("l2", [1.0, 0.05, 0.001, 0.0003])
def test_lbfgs_gives_the_scores_of_scikit_learn(l2):
    # 40 features for 60 images: the classes separate, so that a small l2 has its optimum far out.
    sample, test = blobs(60, 40, spread=1.5), blobs(60, 40, spread=1.5, seed=1)
    scaling = common_scaling(sample)
    scaled, others = ((s.vectors - scaling.mean) * scaling.inverse for s in (sample, test))
    reference = LogisticRegression(C=1 / (l2 * len(sample)), tol=1e-9, max_iter=9999)
    expected = reference.fit(scaled.astype(float), sample.class_ids).predict_proba(others)
    found = train_lbfgs(sample, 3, LbfgsOptions(l2=l2)).scores(test.vectors)
    np.testing.assert_allclose(found, expected, atol=1e-3)
