"""`train` on what cannot be trained on: an error of one line with value, place and cure."""

import numpy as np
import pytest
from vectors import LABELS, add, embeddings, examples, make_store, write_manifest

from beam_flowers.cli.main import main
from beam_flowers.errors import TrainingError
from beam_flowers.head.examples import prepare
from beam_flowers.head.image_classifier import ImageClassifierOptions
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.retrain import RetrainOptions
from beam_flowers.head.split import SplitOptions
from beam_flowers.head.sweep import SweepOptions, cross_validate
from beam_flowers.workflows.fine_tune import FineTuneOptions


@pytest.fixture
def refused(tmp_path, capsys):
    """The error of `train` on a store, with nothing written."""

    def run(store, *flags):
        capsys.readouterr()
        assert main(["train", str(store), "--model", str(tmp_path / "model"), *flags]) == 1
        assert not (tmp_path / "model").exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with two backbones."""
    return make_store(tmp_path_factory.mktemp("two"))


def relabelled(root, label, count=20, all_rows=True):
    """A store whose rows, or the first alone, have another label."""
    rows = [
        b._replace(image=b.image._replace(label=label)) if all_rows or i == 0 else b
        for i, b in enumerate(embeddings(range(count), 6))
    ]
    add(root, "small", rows)
    return root


def test_a_label_in_the_manifest_that_no_image_has(store, tmp_path, refused):
    rows = [{"uri": "/r/0.jpg", "label": "ant"}, {"uri": "/r/nowhere.jpg", "label": "tiger"}]
    manifest = write_manifest(tmp_path, "csv", rows)
    line = refused(store, "--backbone", "small", "--labels", manifest)
    assert manifest in line
    assert "'/r/nowhere.jpg' with the label 'tiger'; embed them first or take these" in line


def test_one_class(tmp_path, refused):
    line = refused(relabelled(tmp_path / "store", "ant"))
    assert "needs at least 2 labels, found 1 ['ant'] (20 images, 0 of them without" in line


def test_a_class_with_one_image(tmp_path, refused):
    line = refused(relabelled(tmp_path / "store", "dog", all_rows=False))
    assert "1 of 4 labels have a single image, such as 'dog'" in line
    assert "add images, or leave such labels out by --min-images 2" in line


def test_vectors_that_are_not_finite(tmp_path, refused):
    rows = [*embeddings(range(20), 6)]
    rows[3] = rows[3]._replace(vector=rows[3].vector * np.float32(np.nan))
    add(tmp_path / "store", "small", rows)
    line = refused(tmp_path / "store")
    assert "1 vectors hold numbers that are not finite, the first is of '/r/3.jpg'; embed" in line


def test_two_backbones_and_none_chosen(store, refused):
    assert "several backbones; choose one with --backbone: large-" in refused(store)


def test_a_model_of_other_classes_to_start_from(store, tmp_path, refused):
    rows = embeddings(range(40), 6)
    others = [b._replace(image=b.image._replace(label=f"x{b.image.label}")) for b in rows]
    add(other := tmp_path / "store", "small", others)
    assert main(["train", str(other), "--model", str(tmp_path / "old")]) == 0
    line = refused(store, "--backbone", "small", "--warm-start", str(tmp_path / "old"))
    assert f"cannot start from '{tmp_path}/old'" in line
    assert f"['xant', 'xbee', 'xcat'], none of which is among {list(LABELS)}" in line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--validation-percentage 60 --testing-percentage 50", "take 60 + 50 percent and leave"),
        ("--validation-percentage -1", "validation percentage must be a whole number >= 0, got -1"),
        ("--split retrain --testing-percentage 1", "1 percent testing leaves no testing image"),
        ("--seed -1", "seed must be a whole number >= 0, got -1"),
        ("--l2 nan", "l2 must be >= 0 and finite, got nan"),
        ("--folds 1 --sweep", "folds must be a whole number >= 2, got 1"),
        ("--early-stopping 3", "'lbfgs' does not take 'early_stopping'; those that do: ['image-"),
        ("--backbone nope", "has no vectors of 'nope'; it holds: large-"),
        ("--backbone small+nope", "has no vectors of 'nope'; it holds: large-"),
    ],
)
def test_values_that_cannot_be(store, refused, flags, message):
    chosen = [] if "--backbone" in flags else ["--backbone", "small"]
    assert message in refused(store, *chosen, *flags.split())


@pytest.mark.parametrize(
    "make",
    [LbfgsOptions, RetrainOptions, ImageClassifierOptions, FineTuneOptions],
    ids=lambda make: make.__name__,
)
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "0.1", None, True, 1j, 1.5])
def test_every_kind_of_options_checks_its_numbers_alike(make, value):
    for name in make.__dataclass_fields__:
        default = make.__dataclass_fields__[name].default
        if value is None and default is None:
            continue
        takes_fractions = isinstance(default, float) or name == "l2"
        if takes_fractions and value in (True, 1.5) and name != "dropout":
            continue
        if (name, value) in (("validation_batch_size", -1), ("flip", True)):
            continue
        with pytest.raises(TrainingError, match=f"{name} must be .* got"):
            make(**{name: value})


@pytest.mark.parametrize("value", [True, 2.0, "2"])
def test_whole_numbers_are_whole(value):
    with pytest.raises(TrainingError, match="folds must be a whole number"):
        SweepOptions(value)
    with pytest.raises(TrainingError, match="testing percentage must be a whole number"):
        SplitOptions(testing_percentage=value)
    with pytest.raises(TrainingError, match="seed must be a whole number"):
        prepare(examples(), SplitOptions(), seed=value)


def test_stopping_early_in_a_sweep_watches_another_fold_than_the_one_measured(store, capsys):
    recipe = RetrainOptions(how_many_training_steps=60, early_stopping=2)
    found = cross_validate(examples(), recipe, folds=3)
    assert len(found.folds) == 3
    assert found.accuracy > 0.5
    with pytest.raises(TrainingError, match="with 2 folds there is none to stop early by"):
        cross_validate(examples(), recipe, folds=2)
