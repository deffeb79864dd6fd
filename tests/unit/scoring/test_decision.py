"""When a label is given and when it is `unknown`: thresholds, margins, several labels."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from vectors import LABELS

from beam_flowers.errors import InputError, ModelError
from beam_flowers.head.bundle import Bundle, read_bundle, write_bundle
from beam_flowers.head.held_out import HELD_OUT
from beam_flowers.head.softmax import Head
from beam_flowers.records import Embedding, Image
from beam_flowers.scoring.decision import (
    AcceptanceRule,
    ThresholdResult,
    Thresholds,
    choose_threshold,
)
from beam_flowers.scoring.ranking import Labeller, best_first, make_labellers
from beam_flowers.scoring.table import ScoreRows

NOT_TESTING, TESTING = False, True


def model(multi_label=False, seed=1, **changes):
    """A head whose logits are the vectors themselves, of 3 numbers."""
    head = Head(np.eye(3, dtype=np.float32), np.zeros(3, np.float32), multi_label=multi_label)
    described = {"pixels": {}, "recipe": {}, "split": {}, "metrics": {}, "versions": {}}
    bundle = Bundle(head, LABELS, "net", "f" * 64, seed=seed, dataset_hash="d", **described)
    return replace(bundle, **changes)


def held_out(*rows):
    return np.array([*rows], HELD_OUT)


def images(*vectors):
    return [
        Embedding(Image(f"/p/{i}.jpg", "/p", f"{i}.jpg"), "0", 1, 1, "PNG", np.float32(v))
        for i, v in enumerate(vectors)
    ]


@pytest.mark.parametrize("classes", [1, 2, 5, 1000])
def test_the_best_comes_first_and_of_equals_the_first_class(classes):
    scores = np.random.default_rng(0).random((50, classes), np.float32).round(1)
    scores[0] = 0
    order = best_first(scores)
    assert (order == np.argsort(-scores, axis=1, kind="stable")).all()
    assert order.dtype == np.intp


def test_models_travel_as_a_file_that_is_read_where_they_are_used(tmp_path):
    weights = np.random.default_rng(0).standard_normal((3, 2000), np.float32)
    labels = tuple(f"{n:04}" for n in range(2000))
    large = model(head=Head(weights, np.zeros(2000, np.float32)), labels=labels)
    kind = ScoreRows.of(large)
    sent = pickle.dumps(kind.filed(str(tmp_path / "models")))
    assert len(sent) < 1000
    again = pickle.loads(sent)
    assert again.table(images([1, 2, 3])) == kind.table(images([1, 2, 3]))
    assert again.fingerprint == kind.fingerprint


def score(bundle, rule, *vectors, top_k=2):
    return list(Labeller.of(bundle, rule).scores(images(*vectors), top_k))


CLEAR, CLOSE = (9, 0, 0), (0, 1, 1.2)


@pytest.mark.parametrize(
    ("rule", "labels"),
    [
        ({}, ["ant", "cat"]),
        ({"threshold": 0.0}, ["ant", "cat"]),
        ({"threshold": 0.6}, ["ant", "unknown"]),
        ({"threshold": 1.0}, ["unknown", "unknown"]),
        ({"min_margin": 0.05}, ["ant", "cat"]),
        ({"min_margin": 0.2}, ["ant", "unknown"]),
        ({"threshold": 0.4, "min_margin": 0.2}, ["ant", "unknown"]),
    ],
)
def test_the_rule_decides_between_the_best_label_and_unknown(rule, labels):
    plain, ruled = (
        score(model(), r, CLEAR, CLOSE) for r in (AcceptanceRule(), AcceptanceRule(**rule))
    )
    assert [found.label for found in ruled] == labels
    assert [found.labels for found in ruled] == [(n,) if n != "unknown" else () for n in labels]
    # Score and ranking stay the model's own.
    assert [(f.score, f.top_k) for f in ruled] == [(f.score, f.top_k) for f in plain]


@pytest.mark.parametrize(("margin", "label"), [(0.05, "cat"), (0.2, "unknown")])
def test_one_image_alone_has_to_reach_the_margin(margin, label):
    assert [found.label for found in score(model(), AcceptanceRule(min_margin=margin), CLOSE)] == [
        label
    ]


def test_of_equal_scores_the_first_class_is_given():
    (found,) = score(model(), AcceptanceRule(), (0, 0, 0))
    assert (found.label, found.labels) == ("ant", ("ant",))


def test_a_single_class_has_no_second_to_exceed():
    head = Head(np.ones((3, 1), np.float32), np.zeros(1, np.float32))
    (found,) = score(model(head=head, labels=("ant",)), AcceptanceRule(min_margin=1.0), CLOSE)
    assert (found.label, found.score) == ("ant", 1.0)


def test_thresholds_ask_nothing_by_default():
    thresholds = Thresholds((0.0,) * 3)
    assert (thresholds.min_margin, thresholds.multi_label) == (0.0, False)
    assert (thresholds.operating_point, thresholds.rule) == (None, "")
    assert AcceptanceRule().thresholds_for(model()) == thresholds
    assert not thresholds.may_be_unknown


def test_what_is_asked_is_said():
    thresholds = AcceptanceRule(threshold=0.4, min_margin=0.25).thresholds_for(model())
    assert thresholds.rule == "score >= 0.4 and margin >= 0.25"
    assert thresholds.may_be_unknown


def test_a_table_has_the_five_best_by_default():
    head = Head(np.ones((3, 7), np.float32), np.zeros(7, np.float32))
    kind = ScoreRows.of(model(head=head, labels=tuple("abcdefg")))
    (best,) = kind.table(images(CLOSE))["top_k"].to_pylist()
    assert [ranked["label"] for ranked in best] == list("abcde")


def test_a_score_at_the_threshold_is_enough():
    (exact,) = score(model(), AcceptanceRule(), CLOSE)
    assert score(model(), AcceptanceRule(threshold=exact.score), CLOSE)[0].label == "cat"
    above = float(np.nextafter(np.float32(exact.score), np.float32(1)))
    assert score(model(), AcceptanceRule(threshold=above), CLOSE)[0].label == "unknown"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"threshold": 2.0}, "threshold is from 0 to 1, not 2.0"),
        ({"threshold": -0.1}, "threshold is from 0 to 1, not -0.1"),
        ({"threshold": float("nan")}, "threshold is from 0 to 1, not nan"),
        ({"min_margin": 1.5}, "min margin is from 0 to 1, not 1.5"),
        ({"min_margin": float("nan")}, "min margin is from 0 to 1, not nan"),
        ({"target_precision": 0.0}, "above 0 and up to 1, not 0.0"),
        ({"target_precision": 1.01}, "above 0 and up to 1, not 1.01"),
        ({"target_precision": float("nan")}, "above 0 and up to 1, not nan"),
        ({"target_precision": 0.9, "threshold": 0.5}, "give one of the two"),
    ],
)
def test_wrong_rules(rule, message):
    with pytest.raises(InputError, match=message):
        AcceptanceRule(**rule)


VALIDATION = [(NOT_TESTING, s / 100, s > 40) for s in range(1, 90)]


def test_a_threshold_is_chosen_on_validation_and_checked_on_testing_images():
    rows = [*VALIDATION, (TESTING, 0.2, False), (TESTING, 0.7, True), (TESTING, 0.8, False)]
    point = choose_threshold(model(held_out=held_out(*rows)), 0.9)
    # Of the 49 right ones on top and one wrong 9 in 10 are right, of two wrong ones not surely.
    assert point.threshold == pytest.approx(0.4)
    assert point.chosen[:3] == (89, pytest.approx(39 / 89), pytest.approx(49 / 50))
    assert point.testing[:3] == (3, pytest.approx(1 / 3), 0.5)
    assert str(point) == (
        "threshold 0.4000, chosen on validation images: 98.0% right (95 % interval 89.5% to 99.6%),"
        " 43.8% unknown, of 89; on testing images: 50.0% right (95 % interval 9.5% to 90.5%), 33.3%"
        " unknown, of 3"
    )
    thresholds = AcceptanceRule(target_precision=0.9).thresholds_for(
        model(held_out=held_out(*rows))
    )
    assert thresholds.by_class == (point.threshold,) * 3
    assert thresholds.rule == f"score >= {point.threshold:.9g}"
    folds = choose_threshold(model(held_out=held_out(*rows), choices={"folds": 5}), 0.9)
    assert "chosen on held-out images" in str(folds)


def test_testing_images_serve_where_there_are_no_others():
    point = choose_threshold(model(held_out=held_out(*[(TESTING, 0.5, True)] * 22)), 0.9)
    assert (point.split, point.threshold, point.testing) == ("testing", 0.5, None)


def test_a_threshold_without_testing_images_is_not_checked():
    point = choose_threshold(model(held_out=held_out(*VALIDATION)), 0.9)
    assert point.testing is None
    assert str(point).endswith(" 43.8% unknown, of 89")
    assert str(ThresholdResult(4, 1.0, None)) == "no label given, 100.0% unknown, of 4"


@pytest.mark.parametrize(
    ("bundle", "error", "message"),
    [
        (model(), ModelError, "older version.*train it again, or give a threshold"),
        (model(held_out=held_out()), ModelError, "trained on all its images"),
        (
            model(held_out=held_out((NOT_TESTING, 0.5, True), (NOT_TESTING, 0.9, False))),
            InputError,
            "precision of 0.9 on these 2 images: .* takes 22 .*the best here is 0.5000 of 2",
        ),
        (model(multi_label=True), ModelError, "neither a min margin nor a target precision"),
    ],
)
def test_a_target_that_cannot_be_met(bundle, error, message):
    with pytest.raises(error, match=message):
        AcceptanceRule(target_precision=0.9).thresholds_for(bundle)


def test_held_out_images_travel_in_the_bundle(tmp_path):
    rows = held_out(*VALIDATION)
    write_bundle(str(tmp_path), model(held_out=rows))
    np.testing.assert_array_equal(read_bundle(str(tmp_path)).held_out, rows)
    write_bundle(str(tmp_path), model())
    assert read_bundle(str(tmp_path)).held_out is None
    assert not (tmp_path / "held_out.npy").exists()
    with pytest.raises(ModelError, match="held_out is float32"):
        model(held_out=np.zeros(3, np.float32))


class TestSeveralLabels:
    BUNDLE = model(multi_label=True, thresholds=(0.9, 0.5, 0.3))

    def test_each_label_is_held_to_its_own_threshold(self):
        # Scores 0.88, 0.73, 0.12: the best one does not pass its threshold, the second does.
        found = score(self.BUNDLE, AcceptanceRule(), (2, 1, -2), (3, 1, 5), (-9, -9, -9))
        assert [f.labels for f in found] == [("bee",), ("cat", "ant", "bee"), ()]
        assert [f.label for f in found] == ["bee", "cat", "unknown"]
        assert found[0].score == found[0].top_k[1].score
        assert found[2].score == found[2].top_k[0].score

    def test_a_threshold_replaces_those_of_the_model(self):
        (found,) = score(self.BUNDLE, AcceptanceRule(threshold=0.1), (2, 1, -2))
        assert found.labels == ("ant", "bee", "cat")
        assert AcceptanceRule(threshold=0.1).thresholds_for(self.BUNDLE).rule == "score >= 0.1"

    def test_without_thresholds_a_half_it_is(self):
        (found,) = score(model(multi_label=True), AcceptanceRule(), (2, -1, 1))
        assert found.labels == ("ant", "cat")

    def test_the_table_has_all_of_them(self):
        kind = ScoreRows.of(self.BUNDLE)
        table = kind.table(images((3, 1, 5), (-9, -9, -9)))
        assert table["labels"].to_pylist() == [["cat", "ant", "bee"], []]
        assert table["label_id"].to_pylist() == [2, 3]
        assert kind.class_names == (*LABELS, "unknown")
        assert "rule" not in table.schema.names

    def test_a_margin_makes_no_sense(self):
        with pytest.raises(ModelError, match="neither a min margin"):
            AcceptanceRule(min_margin=0.1).thresholds_for(self.BUNDLE)


def test_a_class_called_unknown_keeps_its_number():
    bundle = model(labels=("ant", "unknown", "cat"))
    assert ScoreRows.of(bundle, AcceptanceRule(threshold=0.6)).class_names == bundle.labels
    table = ScoreRows.of(bundle, AcceptanceRule(threshold=0.6)).table(images(CLOSE))
    assert (table["label"][0].as_py(), table["label_id"][0].as_py()) == ("unknown", 1)


def test_the_rule_is_part_of_what_a_table_is():
    rows = held_out(*VALIDATION)
    rules = [{}, {"threshold": 0.5}, {"threshold": 0.6}, {"min_margin": 0.5}]
    prints = {
        ScoreRows.of(model(held_out=rows), AcceptanceRule(**rule)).fingerprint for rule in rules
    }
    assert len(prints) == len(rules)
    chosen = ScoreRows.of(model(held_out=rows), AcceptanceRule(target_precision=0.9))
    assert chosen.about()["models"][0]["rule"].startswith("score >= 0.")


class TestSeveralModels:
    def test_their_order_does_not_matter(self):
        one, other = model(), model(seed=2)
        kinds = ScoreRows.of([one, other]), ScoreRows.of([other, one])
        assert kinds[0].fingerprint == kinds[1].fingerprint != ScoreRows.of(one).fingerprint
        table = kinds[0].table(images(CLEAR, CLOSE))
        assert table["uri"].to_pylist() == ["/p/0.jpg", "/p/0.jpg", "/p/1.jpg", "/p/1.jpg"]
        assert len(set(table["model_id"].to_pylist())) == 2

    def test_their_labels_are_numbered_together(self):
        kind = ScoreRows.of(
            [model(), model(labels=("dog", "bee", "eel"))], AcceptanceRule(threshold=0.1)
        )
        assert sorted(kind.class_names) == ["ant", "bee", "cat", "dog", "eel", "unknown"]
        table = kind.table(images(CLEAR))
        named = [kind.class_names[i] for i in table["label_id"].to_pylist()]
        assert sorted(named) == ["ant", "dog"] == sorted(table["label"].to_pylist())

    @pytest.mark.parametrize(
        ("models", "error", "message"),
        [
            ([], InputError, "name a model"),
            ([model(), model()], InputError, "is named twice"),
            (
                [model(), model(fingerprint="a" * 64 + "+" + "b" * 64, backbone="x+y")],
                ModelError,
                r"backbones: [0-9a-f]{8} of net \(ffffffff\), .* of x\+y \(aaaaaaaa\+bbbbbbbb\);"
                " score with those of one",
            ),
        ],
    )
    def test_models_that_do_not_go_together(self, models, error, message):
        with pytest.raises(error, match=message):
            make_labellers(models)
