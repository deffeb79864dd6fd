"""Labels from paths, and which labels are one."""

import pytest

from beam_flowers.errors import InputError
from beam_flowers.images.labels import (
    are_splits,
    collisions,
    is_hidden,
    label_and_split,
    normalize,
    parse_split,
)


@pytest.mark.parametrize(
    ("path", "splits", "expected"),
    [
        ("a.jpg", False, (None, None)),
        ("Red Rose/a.jpg", False, ("Red Rose", None)),
        ("rose/wild/a.jpg", False, ("rose", None)),
        ("train/a.jpg", False, ("train", None)),
        ("train/rose/wild/a.jpg", True, ("rose", "training")),
        ("val/rose/a.jpg", True, ("rose", "validation")),
        ("validation/rose/a.jpg", True, ("rose", "validation")),
        ("test/a.jpg", True, (None, "testing")),
        ("a.jpg", True, (None, None)),
    ],
)
def test_label_and_split(path, splits, expected):
    assert label_and_split(path, splits) == expected


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train", "val", "test"], True),
        (["test", "train"], True),
        ([".git", "train", "validation"], True),
        (["train"], False),
        (["val", "test"], False),
        (["train", "test", "rose"], False),
        (["Train", "Test"], False),
        ([], False),
    ],
)
def test_are_splits(folders, expected):
    assert are_splits(folders) is expected


def test_are_splits_stops_early():
    names = iter(["train", "rose", "test"])
    assert not are_splits(names)
    assert list(names) == ["test"]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Red_Rose", "red rose"),
        ("  red--rose! ", "red rose"),
        ("玫瑰", "玫瑰"),
        ("Ｒｏｓｅ", "rose"),
        ("Straße", "strasse"),
        ("cafe\u0301", "café"),
        ("गुलाब-लाल", "गुलाब लाल"),
        ("Rose 2", "rose 2"),
        ("!!!", ""),
    ],
)
def test_normalize(label, expected):
    assert normalize(label) == expected


def test_collisions():
    labels = ["rose", "Rose", "ROSE", "tulip", "rose", "Tulip!", "daisy"]
    assert collisions(labels) == [("ROSE", "Rose", "rose"), ("Tulip!", "tulip")]
    assert collisions(["a", "a", "b"]) == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [(".a.jpg", True), ("x/.git/a", True), ("x.y/a.b", False), ("", False), ("...", True)],
)
def test_is_hidden(path, expected):
    assert is_hidden(path) is expected


def test_parse_split():
    assert [parse_split(w) for w in ("", "Train", "val", "testing")] == [
        None,
        "training",
        "validation",
        "testing",
    ]
    with pytest.raises(InputError, match="'dev'; write one of train"):
        parse_split("dev")
