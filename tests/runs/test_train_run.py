"""`train` on stores: warm start, sweep, gate, step log and the command."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vectors import SPLIT, add, embeddings, make_store, train_run, write_manifest

from beam_flowers.cli.main import main
from beam_flowers.errors import InputError, ModelError, TrainingError
from beam_flowers.head.bundle import read_bundle
from beam_flowers.head.image_classifier import ImageClassifierOptions
from beam_flowers.head.lbfgs import LbfgsOptions
from beam_flowers.head.retrain import RetrainOptions
from beam_flowers.head.split import SplitOptions
from beam_flowers.head.sweep import SweepOptions
from beam_flowers.workflows.train import TrainOptions, train_model


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


RECIPES = (
    LbfgsOptions(),
    LbfgsOptions(l1=0.001, class_weights="balanced"),
    RetrainOptions(how_many_training_steps=30, dropout=0.2),
    ImageClassifierOptions(hidden=5),
)


@pytest.mark.parametrize("backbone", ["small", "small+large"])
@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_two_runs_give_the_same_bytes(store, backbone, recipe, tmp_path):
    train_run(store, backbone, recipe)
    first = contents(tmp_path / "model")
    train_run(store, backbone, recipe)
    assert contents(tmp_path / "model") == first


def test_two_sweeps_give_the_same_bytes(store):
    ids = [train_run(store, sweep=SweepOptions(2)).model_id for _ in range(2)]
    assert ids[0] == ids[1]


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(store, tmp_path):
    # Each with another order of its sets.
    flags = ["--backbone", "small+large", "--recipe", "retrain", "--how-many-training-steps", "20"]
    command = [sys.executable, "-m", "beam_flowers.cli.main", "train", store, *flags]
    for seed in "12":
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        model = ["--model", str(tmp_path / seed)]
        subprocess.run([*command, *model], env=environment, check=True, capture_output=True)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


# Warm start


@pytest.mark.parametrize("backbone", ["small", "small+large"])
def test_warm_start_from_a_model(store, tmp_path, backbone):
    old, steps = str(tmp_path / "old"), []
    train_model(store, old, LbfgsOptions(), SPLIT, backbone)
    options = TrainOptions(warm_start=old)
    train_model(
        store, str(tmp_path / "new"), LbfgsOptions(), SPLIT, backbone, 0, steps.append, options
    )
    assert len(steps) <= 3
    before, after = (read_bundle(str(tmp_path / name)) for name in ("old", "new"))
    np.testing.assert_allclose(after.head.bias, before.head.bias, atol=1e-3)
    assert after.metrics["testing"]["accuracy"] == before.metrics["testing"]["accuracy"]


def test_warm_start_from_a_model_that_does_not_fit(store, tmp_path):
    old = str(tmp_path / "old")
    train_model(store, old, LbfgsOptions(), SPLIT, "large")
    with pytest.raises(ModelError, match=r"cannot start from .*old': .* backbone 'large'"):
        train_run(store, warm_start=old)
    with pytest.raises(ModelError, match=r"cannot start from .*old': .* no hidden layer"):
        train_run(store, "large", ImageClassifierOptions(hidden=4), warm_start=old)


# Sweep and gate


def test_a_sweep_tries_every_backbone_and_their_union(store):
    trained = train_run(store, None, sweep=SweepOptions(3))
    rows = trained.bundle.sweep
    assert len({row["backbone"] for row in rows}) == 3
    lowest = min(rows, key=lambda row: row["cross_entropy"])
    same = [row for row in rows if row["backbone"] == lowest["backbone"]]
    chosen = next(row for row in same if row["recipe"] == trained.bundle.recipe)
    assert lowest["recipe"]["l2"] <= chosen["recipe"]["l2"]
    again = train_model(
        store,
        str(Path(store).parent / "m"),
        LbfgsOptions(),
        SPLIT,
        options=TrainOptions(sweep=SweepOptions(3)),
    )
    assert again.model_id == trained.model_id
    assert list(read_bundle(str(Path(store).parent / "m")).sweep) == list(rows)


def test_under_the_min_accuracy_nothing_is_written(store, tmp_path, capsys):
    flags = ["train", store, "--model", str(tmp_path / "m"), "--backbone", "small"]
    assert main([*flags, "--min-accuracy", "0.999"]) == 1
    assert "is below the min accuracy 99.90%; nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
    assert main([*flags, "--min-accuracy", "0.3"]) == 0


def test_the_gate_takes_nested_folds_or_validation_where_nothing_tests(store):
    model = str(Path(store).parent / "m")
    options, untested = TrainOptions(min_accuracy=1.0), replace(SPLIT, testing_percentage=0)
    with pytest.raises(TrainingError, match=r"nested accuracy .* below the min accuracy 100.00%"):
        train_model(store, model, LbfgsOptions(), untested, "small", options=options)
    options = replace(options, folds=0)
    with pytest.raises(
        TrainingError, match=r"validation accuracy .* below the min accuracy 100.00%"
    ):
        train_model(
            store,
            model,
            LbfgsOptions(),
            untested,
            "small",
            options=options,
        )
    with pytest.raises(TrainingError, match="no test or validation image to measure"):
        train_model(
            store, model, LbfgsOptions(), SplitOptions("hash", 0, 0), "small", options=options
        )


@pytest.mark.parametrize("least", [-0.1, 1.5, float("nan")])
def test_a_min_accuracy_is_a_share(least):
    with pytest.raises(TrainingError, match="min accuracy must be from 0 to 1, got"):
        TrainOptions(min_accuracy=least)


# The step log


def test_summaries_are_new_folders_beside_what_is_there(store, tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "mine.txt").write_text("keep")
    for number in (1, 2):
        train_run(store, recipe=ImageClassifierOptions(), summaries_dir=str(folder))
        lines = (folder / f"run-{number:03}" / "steps.jsonl").read_text().splitlines()
        assert len(lines) == 5
        assert set(json.loads(lines[0])) >= {"step", "train_accuracy", "cross_entropy"}
    assert (folder / "mine.txt").read_text() == "keep"
    assert len(list(folder.glob("run-00?/*/events.out.tfevents.*"))) == 4


def test_summaries_hold_scalars_and_histograms(store, tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    train_run(store, summaries_dir=str(tmp_path / "logs"))
    data = next((tmp_path / "logs").glob("run-001/train/events*")).read_bytes()
    tags = set()
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        tags |= {value.tag for value in event.summary.value}
        data = data[16 + length :]
    assert tags == {"accuracy", "cross_entropy", "weights", "bias"}


@pytest.mark.parametrize("inside", ["model", "model/logs"])
def test_summaries_never_lie_in_the_model(store, tmp_path, inside):
    with pytest.raises(InputError, match="lies in the model's"):
        train_run(store, summaries_dir=str(tmp_path / inside))
    assert not (tmp_path / "model").exists()


# The command


def test_several_labels_from_the_command_line(tmp_path):
    rows = list(embeddings(range(150), 6, spread=0.5))
    rows = [
        row._replace(image=row.image._replace(label=f"{row.image.label};insect"))
        if row.image.label != "cat"
        else row
        for row in rows
    ]
    add(tmp_path / "store", "small", rows)
    model = str(tmp_path / "model")
    assert main(["train", str(tmp_path / "store"), "--model", model, "--label-separator", ";"]) == 0
    bundle = read_bundle(model)
    assert bundle.labels == ("ant", "bee", "cat", "insect")
    assert bundle.head.multi_label
    assert len(bundle.thresholds) == 4


def test_ancestors_flags_are_understood(store, tmp_path):
    flags = "--recipe image-classifier --train_epochs 2 --batch_size 8 --momentum 0.5"
    more = "--dropout_rate 0.1 --l1_regularizer 0.001 --l2_regularizer 0.002 --label_smoothing 0.2"
    model = str(tmp_path / "m")
    words = ["train", store, "--model", model, "--backbone", "small", *flags.split(), *more.split()]
    assert main([*words, "--learning_rate", "0.1"]) == 0
    expected = ImageClassifierOptions(2, 8, 0.1, 0.5, 0.1, 0.001, 0.002, 0.2)
    recipe = dict(read_bundle(model).recipe)
    assert recipe.pop("name") == "image-classifier"
    assert ImageClassifierOptions(**recipe) == expected


def test_a_percentage_that_was_given_must_hold(store, tmp_path, capsys):
    rows = [{"uri": f"/r/{i}.jpg", "label": "rare"} for i in (3, 4)]
    flags = ["--labels", write_manifest(tmp_path, "csv", rows), "--testing-percentage", "10"]
    words = ["train", store, "--model", str(tmp_path / "m"), "--backbone", "small", *flags]
    assert main(words) == 1
    assert "10 percent testing leaves no testing image for 1 of 4" in capsys.readouterr().err
