"""Which image trains, validates and tests."""

import hashlib
from functools import cache

import numpy as np
import pytest

from beam_flowers.errors import TrainingError
from beam_flowers.head.groups import fold_codes, image_groups
from beam_flowers.head.split import (
    SPLITS,
    SplitOptions,
    hash_split,
    retrain_percentage,
    retrain_split,
    split_codes,
)

# Computed with tensorflow/hub's retrain.py for 10 % validation and 10 % testing.
RETRAIN = [
    ("/data/flower_photos/daisy/100080576_f52e8ee070_n.jpg", 22.055859, "training"),
    ("daisy/100080576_f52e8ee070_n.jpg", 65.536754, "training"),
    ("100080576_f52e8ee070_n.jpg", 8.575361, "validation"),
    ("/d/roses/1.jpg", 5.790412, "validation"),
    ("/d/roses/2.jpg", 58.015483, "training"),
    ("/d/leaf/a_nohash_0.jpg", 53.793750, "training"),
    ("/d/leaf/a_nohash_1.jpg", 53.793750, "training"),
    ("/d/leaf/a", 53.793750, "training"),
]


SIDES = dict(zip("tve", SPLITS, strict=True))
"""The sides of a split as letters: t trains, v validates, e tests."""


def digests(count, start=0):
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(start, start + count)]


def split(sha256, class_ids, validation=10, testing=10, **kwargs):
    codes = hash_split(sha256, np.asarray(class_ids), validation, testing, **kwargs)
    return [SPLITS[code] for code in codes]


def letters(sides):
    return "".join(letter for side in sides for letter, name in SIDES.items() if name == side)


@pytest.mark.parametrize(
    ("each", "percentages", "seed", "expected"),
    [
        pytest.param(30, (10, 10), 0, "tttttettvetttttttvvtttttttteev", id="one-class"),
        pytest.param(3, (10, 10), 0, "etvtveetvevtevttevvettevtevetv", id="ten-classes-of-three"),
        pytest.param(3, (10, 10), 7, "etvvetetvvetevtevttevtveetvevt", id="another-seed"),
        pytest.param(5, (30, 0), 0, "ttttvvttvvtttvtttvvttttvtttvvv", id="no-testing"),
        pytest.param(5, (0, 30), 0, "tttteetteetttettteettttettteee", id="no-validation"),
        pytest.param(3, (45, 45), 0, "etvetvetvvetevtetvvettevetvetv", id="little-training"),
        pytest.param(3, (1, 1), 0, "etvtevetvvetevttevvettevtevetv", id="one-percent-each"),
        pytest.param(
            2, (40, 40), 0, "ttettvetvtetteettvvttetetetvtv", id="too-few-for-three-sides"
        ),
        pytest.param(1, (40, 40), 0, "tttttttttttttttttttttttttttttt", id="one-each"),
    ],
)
def test_the_split_of_thirty_contents(each, percentages, seed, expected):
    class_ids = np.arange(30) // each
    options = SplitOptions("hash", *percentages)
    codes = split_codes(options, [""] * 30, digests(30), class_ids, seed=seed)
    assert letters(SPLITS[code] for code in codes) == expected


def test_the_split_of_thirty_contents_by_default():
    class_ids, expected = np.arange(30) // 3, "etvtveetvevtevttevvettevtevetv"
    codes = split_codes(SplitOptions(), [""] * 30, digests(30), class_ids)
    assert letters(SPLITS[code] for code in codes) == expected
    assert letters(split(digests(30), class_ids)) == expected


def test_the_split_of_thirty_paths():
    paths = [f"/photos/{('rose', 'tulip')[n % 2]}/{n}.jpg" for n in range(30)]
    codes = split_codes(SplitOptions("retrain"), paths, digests(30), np.zeros(30, int))
    assert letters(SPLITS[code] for code in codes) == "ttttttvttttttettttttttttttvttt"
    codes = retrain_split(paths, 25, 30)
    assert letters(SPLITS[code] for code in codes) == "teetetvttteeevettetteetttvvvev"


@pytest.mark.parametrize(("path", "percentage", "expected"), RETRAIN)
def test_retrain_split_is_exact(path, percentage, expected):
    assert retrain_percentage(path) == pytest.approx(percentage, abs=5e-7)
    assert SPLITS[retrain_split([path], 10, 10)[0]] == expected


def test_retrain_split_tests_between_the_bounds():
    codes = retrain_split(["/d/roses/1.jpg", "100080576_f52e8ee070_n.jpg"], 6, 3)
    assert [SPLITS[code] for code in codes] == ["validation", "testing"]


def test_hash_split_follows_the_percentages():
    found = split(digests(20_000), np.zeros(20_000, int), 10, 20)
    counts = [found.count(name) for name in SPLITS]
    assert counts == pytest.approx([14_000, 2_000, 4_000], abs=200)
    assert counts == [14_023, 1_968, 4_009]


@pytest.mark.parametrize(("classes", "each"), [(400, 50), (300, 3), (50, 4)])
def test_no_class_has_an_empty_split(classes, each):
    class_ids = np.repeat(np.arange(classes), each)
    found = np.array(split(digests(classes * each), class_ids))
    for name in SPLITS:
        assert set(class_ids[found == name]) == set(range(classes))


@pytest.mark.parametrize("each", [1, 2])
def test_training_comes_first_with_few_contents(each):
    class_ids = np.repeat(np.arange(200), each)
    found = np.array(split(digests(200 * each), class_ids, 40, 40))
    assert set(class_ids[found == "training"]) == set(range(200))


def test_a_split_of_no_percent_is_empty():
    assert set(split(digests(90), np.arange(90) % 30, 10, 0)) == {"training", "validation"}
    assert set(split(digests(90), np.arange(90) % 30, 0, 0)) == {"training"}


def test_row_order_changes_nothing():
    sha256, class_ids = digests(60), np.arange(60) % 15
    order = np.random.default_rng(0).permutation(60)
    shuffled = split([sha256[i] for i in order], class_ids[order])
    assert shuffled == [split(sha256, class_ids)[i] for i in order]


def test_more_images_move_few():
    sha256 = digests(1100)
    before = split(sha256[:1000], np.zeros(1000, int))
    assert split(sha256, np.zeros(1100, int))[:1000] == before


def test_another_seed_is_another_split():
    sha256, class_ids = digests(100), np.zeros(100, int)
    assert split(sha256, class_ids, seed=1) != split(sha256, class_ids, seed=2)


def test_duplicates_stay_together_even_in_two_classes():
    shared = digests(3)
    sha256 = [*shared, *shared, *digests(6, start=3), shared[0]]
    found = split(sha256, [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0])
    assert found[:3] == found[3:6]
    assert found[12] == found[0]
    assert set(found[:3]) | set(found[6:9]) == set(SPLITS)


def test_no_class_is_robbed_for_another():
    # Each class shares one content with the next, and has just enough of them.
    contents = digests(100)
    sha256 = [contents[i] for c in range(49) for i in (2 * c, 2 * c + 1, 2 * c + 2)]
    class_ids = np.repeat(np.arange(49), 3)
    found = np.array(split(sha256, class_ids, 10, 0))
    for name in ("training", "validation"):
        assert set(class_ids[found == name]) == set(range(49))


def test_given_splits_stay_and_count():
    sha256 = digests(5)
    given = ["testing", "testing", None, "validation", None]
    found = split([*sha256, sha256[0]], [0] * 6, given=[*given, None])
    assert [found[0], found[1], found[3], found[5]] == [
        "testing",
        "testing",
        "validation",
        "testing",
    ]
    assert "training" in (found[2], found[4])


def test_one_image_cannot_be_given_two_splits():
    with pytest.raises(TrainingError, match=r"1 images are given two splits.*testing.*training"):
        split(digests(1) * 2, [0, 0], given=["training", "testing"])
    torn = sorted(digests(20), reverse=True) * 2
    with pytest.raises(TrainingError, match=f"20 images .* has the sha256 {torn[-1]} and is in"):
        split(torn, [0] * 40, given=["training"] * 20 + ["testing"] * 20)


def test_unknown_given_split():
    given = [f"holdout{n:02}" for n in reversed(range(40))]
    with pytest.raises(TrainingError, match="unknown split 'holdout00'"):
        split(digests(40), [0] * 40, given=given)


@pytest.mark.parametrize(
    ("validation", "testing", "message"),
    [
        (50, 50, "leave nothing to train on"),
        (-1, 10, "^validation percentage must be a whole number >= 0, got -1"),
        (10, 2.5, "^testing percentage must be a whole number >= 0, got 2.5"),
    ],
)
def test_impossible_percentages(validation, testing, message):
    with pytest.raises(TrainingError, match=message):
        SplitOptions(validation_percentage=validation, testing_percentage=testing)
    with pytest.raises(TrainingError, match=message):
        retrain_split([], validation, testing)
    with pytest.raises(TrainingError, match=message):
        hash_split([], np.zeros(0, int), validation, testing)


def test_one_percent_is_enough_to_train_on():
    assert SplitOptions("hash", 50, 49).testing_percentage == 49


def test_unknown_rule():
    with pytest.raises(TrainingError, match="unknown split rule 'random'"):
        SplitOptions(rule="random")


def test_a_relative_image_dir_of_retrain_is_restored():
    # The tutorials' `--image_dir flower_photos`, or `./flower_photos/`.
    names = [f"{label}/{i}.jpg" for label in ("daisy", "roses") for i in range(200)]
    uris, classes = [f"/data/deep/flower_photos/{name}" for name in names], np.zeros(400, int)
    for given in ("flower_photos", "./flower_photos/", "/data/deep/flower_photos"):
        paths = [f"{given.rstrip('/')}/{name}" for name in names]
        options = SplitOptions("retrain", retrain_image_dir=given)
        codes = split_codes(options, uris, digests(400), classes)
        np.testing.assert_array_equal(codes, retrain_split(paths, 10, 10))
    plain = split_codes(SplitOptions("retrain"), uris, digests(400), classes)
    np.testing.assert_array_equal(plain, codes)
    relative = split_codes(options.__class__("retrain", 10, 10, "f"), uris, digests(400), classes)
    assert 0.5 < (plain == relative).mean() < 0.8


def test_options_of_a_split_that_do_not_fit():
    with pytest.raises(TrainingError, match="for the split rule 'retrain', not 'hash'"):
        SplitOptions(retrain_image_dir="flower_photos")
    with pytest.raises(TrainingError, match="min images must be a whole number >= 1, got 0"):
        SplitOptions(min_images=0)


def test_a_model_keeps_only_what_is_not_the_default():
    assert list(SplitOptions().as_dict()) == ["rule", "validation_percentage", "testing_percentage"]
    given = SplitOptions("retrain", 20, 0, "flowers", 3)
    assert SplitOptions(**given.as_dict()) == given


@pytest.mark.parametrize(("rule", "expected"), [("retrain", "validation"), ("hash", "training")])
def test_only_retrain_looks_at_the_path(rule, expected):
    codes = split_codes(SplitOptions(rule), ["/d/roses/1.jpg"], ["ab"], np.array([0]))
    assert SPLITS[codes[0]] == expected


@cache
def places():
    """A thousand made-up contents and their places in 0..100, ascending."""
    found = {c: int(hashlib.sha256(f"0:{c}".encode()).hexdigest()[:16], 16) for c in digests(1000)}
    return sorted((100 * number / 2**64, content) for content, number in found.items())


def at(percent):
    """The first content whose place is `percent` or later."""
    return next(content for place, content in places() if place >= percent)


def test_the_content_nearest_to_an_empty_split_moves_there():
    near, nearer, far = at(20.3), at(20.1), at(70)
    assert near < nearer  # So that their order by name would be another one.
    assert split([near, nearer, far], [0, 0, 0], 20, 0) == ["training", "validation", "training"]


def test_a_given_split_is_not_moved_into_an_empty_one():
    sha256 = [at(21), at(30), at(50)]
    assert split(sha256, [0] * 3)[0] == "validation"
    sides = split(sha256, [0] * 3, given=["training", None, None])
    assert sides == ["training", "validation", "testing"]


def test_a_content_of_two_classes_that_moved_counts_in_both():
    shared, stays, leaves = at(22), at(21), at(5)
    sha256 = [shared, at(50), at(60), shared, stays, leaves]
    sides = split(sha256, [0, 0, 0, 1, 1, 1])
    assert sides[:3] == ["validation", "testing", "training"]
    assert sides[3:] == ["validation", "training", "testing"]


def test_row_order_changes_nothing_where_classes_share_contents():
    contents = digests(100)
    sha256 = [contents[i] for c in range(49) for i in (2 * c, 2 * c + 1, 2 * c + 2)]
    class_ids = np.repeat(np.arange(49), 3)
    assert split(sha256[::-1], class_ids[::-1])[::-1] == split(sha256, class_ids)


def test_by_default_a_tenth_validates_and_a_tenth_tests():
    assert SplitOptions() == SplitOptions("hash", 10, 10)


def test_variants_and_copies_are_one_group():
    uris = ["/d/a_nohash_0.jpg", "/d/a_nohash_1.jpg", "/d/b.jpg", "/e/a_nohash_0.jpg", "/d/c.jpg"]
    assert image_groups(uris, ["5", "3", "3", "4", "1"]) == ["3", "3", "3", "4", "1"]


def test_groups_of_copies_alone_are_their_contents():
    contents = digests(20)
    assert image_groups([f"/d/{i}.jpg" for i in range(20)], contents) == contents


def test_groups_link_up_through_chains():
    uris = [
        "/a_nohash_0",
        "/a_nohash_1",
        "/b_nohash_0",
        "/b_nohash_1",
        "/c_nohash_0",
        "/c_nohash_1",
    ]
    assert len(set(image_groups(uris, ["9", "5", "5", "7", "7", "1"]))) == 1


def test_folds_are_stratified_and_keep_groups():
    class_ids = np.repeat(np.arange(4), 53)
    groups = digests(212)
    groups[60:64] = groups[:4]
    folds = fold_codes(groups, class_ids, 5)
    for class_id in range(4):
        assert np.ptp(np.bincount(folds[class_ids == class_id], minlength=5)) <= 3
    np.testing.assert_array_equal(folds[60:64], folds[:4])
    order = np.random.default_rng(0).permutation(212)
    shuffled = fold_codes([groups[i] for i in order], class_ids[order], 5)
    np.testing.assert_array_equal(shuffled, folds[order])
    assert (fold_codes(groups, class_ids, 5, seed=1) != folds).any()


@pytest.mark.parametrize("folds", [0, 1, 4])
def test_impossible_folds(folds):
    with pytest.raises(TrainingError, match=rf"cannot make {folds} folds of 3 different images"):
        fold_codes(digests(3), np.array([0, 0, 1]), folds)
