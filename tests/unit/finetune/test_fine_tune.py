"""`train --fine-tune`: a new backbone from the images of a store."""

import csv
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stores import cli, photos

from beam_flowers.backbones import engine
from beam_flowers.backbones.keras_models import keras_library
from beam_flowers.backbones.resolve import resolve
from beam_flowers.backbones.tf_runtime import tensorflow
from beam_flowers.cli.main import main
from beam_flowers.errors import BackboneError, InputError, StoreError, TrainingError
from beam_flowers.finetune.training import Tuner, _distortions
from beam_flowers.head.bundle import read_bundle
from beam_flowers.head.split import SplitOptions
from beam_flowers.store.features import open_store
from beam_flowers.workflows.embed import embed_images
from beam_flowers.workflows.fine_tune import FineTuneOptions, fine_tune
from beam_flowers.workflows.progress import Progress

pytestmark = pytest.mark.slow

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
PIXELS[1::2] //= 4
CLASSES = np.array([0, 1, 0, 1])
SPLIT = SplitOptions("hash", 25, 25)
DESCENT = FineTuneOptions().descent()


@pytest.fixture(scope="module", autouse=True)
def put_back_determinism():
    """Other tests draw random numbers without a seed."""
    yield
    from tensorflow.python.framework import config

    config.disable_op_determinism()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A folder with one small network in several formats."""
    folder = tmp_path_factory.mktemp("network")
    keras = keras_library()
    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3))
    maps = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3)(pixels))
    vectors = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(maps))
    model = keras.Model(pixels, vectors)
    model.save(folder / "net.keras")
    model.export(str(folder / "exported"), verbose=False)
    return folder


@pytest.fixture(scope="module")
def original(network, tmp_path_factory):
    """A folder with 20 photographs of five flowers and the store of their vectors."""
    base = tmp_path_factory.mktemp("tune")
    backbone = resolve(str(network / "net.keras"), pixel_range=(-1, 1))
    embed_images([str(photos(base / "images", 4))], str(base / "store"), backbone)
    return base


@pytest.fixture
def work(original, tmp_path):
    """A copy of `original`."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def tune(network, work):
    """`fine_tune` on `work`, with the lines that it says."""

    def run(output="tuned", images="images", seed=0, say=print, backbone=None, **options):
        run.lines, run.warnings, run.progress = [], [], Progress()
        return fine_tune(
            str(work / "store"),
            backbone or resolve(str(network / "net.keras"), pixel_range=(-1, 1)),
            [str(work / images)],
            str(work / output),
            FineTuneOptions(**{"train_epochs": 1, "batch_size": 2} | options),
            SPLIT,
            seed=seed,
            say=lambda line: (run.lines.append(line), say(line)),
            warn=run.warnings.append,
            progress=run.progress,
        )

    return run


def embed(path, **options):
    return engine.load(resolve(str(path), **options)).embed(PIXELS)


# The network


def tuner_of(path, **options):
    backbone = resolve(str(path), **options)
    length = engine.load(backbone).vector_length
    kernel, bias = np.zeros((length, 2), np.float32), np.zeros(2, np.float32)
    descent = FineTuneOptions(learning_rate=0.01).descent()
    return Tuner(backbone, kernel, bias, descent, seed=0)


@pytest.mark.parametrize("name", ["net.keras", "exported"])
def test_a_network_is_saved_as_it_was_and_as_it_became(network, name, tmp_path):
    tuner = tuner_of(network / name, pixel_range=(0, 1))
    tuner.save(str(tmp_path / "before"))
    np.testing.assert_allclose(
        embed(tmp_path / "before"), embed(network / name, pixel_range=(0, 1)), atol=1e-5
    )
    losses = [tuner.step(PIXELS, CLASSES)[0] for _ in range(20)]
    assert losses[-1] < losses[0]
    tuner.save(str(tmp_path / "after"))
    assert np.abs(embed(tmp_path / "after") - embed(tmp_path / "before")).max() > 1e-3


def test_a_saved_network_cuts_images_as_it_did_in_training(network, tmp_path):
    net = resolve(str(network / "exported"), pixel_range=(-1, 1))
    cut = replace(net, row=replace(net.row, crop=0.9, resample="bicubic"))
    tuner = Tuner(cut, np.zeros((8, 2), np.float32), np.zeros(2, np.float32), DESCENT, seed=0)
    assert tuner.recipe.crop == 0.9
    tuner.save(str(tmp_path / "net"))
    found = resolve(str(tmp_path / "net"))
    assert (found.row.crop, found.row.resample) == (0.9, "bicubic")
    config = tmp_path / "net" / "preprocessor_config.json"
    config.write_text(config.read_text().replace("0.9", "0.8"))
    other = resolve(str(tmp_path / "net"))
    assert other.row.crop == 0.8
    assert other.fingerprint != found.fingerprint


def test_distortions_stay_inside_of_the_image():
    boxes, factors = _distortions(np.random.default_rng(0), 1000, DESCENT)
    assert 0 <= boxes.min() < boxes.max() <= 1
    heights, widths = (boxes[:, 2:] - boxes[:, :2]).T
    np.testing.assert_allclose(np.abs(widths), heights, atol=1e-6)
    assert 0.6 <= (heights**2).min() < 0.62
    assert 400 < (widths < 0).sum() < 600
    assert 0.8 <= factors.min() < 0.81 < 1.19 < factors.max() <= 1.2
    plain = replace(DESCENT, flip=False, crop=0, brightness=0)
    boxes, factors = _distortions(np.random.default_rng(0), 9, plain)
    np.testing.assert_array_equal(boxes, [[0, 0, 1, 1]] * 9)
    np.testing.assert_array_equal(factors, 1)


def test_the_rate_rises_and_falls():
    paces = [FineTuneOptions().pace(step, 100) for step in range(100)]
    assert paces[0] == 0.1
    assert paces[9] == paces[10] == max(paces) == 1
    assert paces[10:] == sorted(paces[10:], reverse=True)
    assert 0 < paces[-1] < 0.001
    assert FineTuneOptions().pace(0, 1) == 1


def test_what_was_tuned_can_be_tuned_again(network, tmp_path):
    tuner_of(network / "net.keras", pixel_range=(-1, 1)).save(str(tmp_path / "once"))
    again = tuner_of(tmp_path / "once")
    first = again.step(PIXELS, CLASSES)
    assert first == tuner_of(network / "net.keras", pixel_range=(-1, 1)).step(PIXELS, CLASSES)


def test_a_recipe_is_written_beside_what_was_tuned(network, tmp_path):
    backbone = resolve(str(network / "net.keras"), pixel_range=(-1, 1))
    recipe = {"crop": None, "resize": 18, "mean": (1.0, 2.0, 3.0), "channels": "bgr"}
    row = replace(backbone.row, resample="bicubic", **recipe)
    length = engine.load(backbone).vector_length
    kernel, bias = np.zeros((length, 2), np.float32), np.zeros(2, np.float32)
    tuner = Tuner(replace(backbone, row=row), kernel, bias, DESCENT, seed=0)
    tuner.save(str(tmp_path / "tuned"))
    there = resolve(str(tmp_path / "tuned"))
    assert there.row == replace(row, name="tuned", source=there.row.source, input_size=16)
    assert tuner.recipe == there.row.recipe(16, 16)
    before = engine.load(replace(backbone, row=row)).embed(PIXELS)
    np.testing.assert_allclose(engine.load(there).embed(PIXELS), before, atol=1e-4)


def plain_module(folder, batch, weights):
    tf = tensorflow()
    module = tf.Module()
    module.kernel = weights
    spec = tf.TensorSpec([batch, 16, 16, 3], tf.float32)
    module.__call__ = tf.function(
        lambda x: tf.reduce_mean(x, [1, 2]) @ module.kernel, input_signature=[spec]
    )
    tf.saved_model.save(module, str(folder))
    return folder


def test_a_network_of_constants_cannot_be_tuned(tmp_path):
    kernel = tensorflow().constant(np.ones((3, 6), np.float32))
    path = plain_module(tmp_path / "net", None, kernel)
    with pytest.raises(BackboneError, match="'net' has no trainable variables"):
        tuner_of(path, pixel_range=(0, 1))


def test_a_network_for_one_image_at_a_time_cannot_be_tuned(tmp_path):
    path = plain_module(tmp_path / "net", 1, tensorflow().Variable(np.ones((3, 6), np.float32)))
    with pytest.raises(BackboneError, match="'net' cannot be trained on batches"):
        tuner_of(path, pixel_range=(0, 1))


# The run


def test_the_run_ends_in_another_backbone(tune, work, network):
    tuned = tune(train_epochs=2)
    there = resolve(str(work / "tuned"))
    assert there == tuned.backbone
    assert there.fingerprint != resolve(str(network / "net.keras"), pixel_range=(-1, 1)).fingerprint
    assert engine.load(there).vector_length == 8
    text = "\n".join(tune.lines)
    assert "x 2 epochs = " in text
    at = tune.progress.state()
    assert (at.stage, at.done, at.total) == ("fine-tuning", 16, 16)
    assert "epoch 2: loss" in text
    assert {n: a.total for n, a in tuned.after.items()} == {"validation": 6, "testing": 6}
    assert tune.warnings == []


def test_the_best_epoch_is_kept(tune, monkeypatch):
    # At this rate the second and third epoch undo what the first has learnt.
    monkeypatch.setattr(FineTuneOptions, "pace", lambda self, step, steps: float(step >= 4) * 900)
    tuned = tune("many", train_epochs=3)
    assert tune.lines[-2].startswith("kept: epoch 1") or tune.lines[-3].startswith("kept: epoch 1")
    np.testing.assert_allclose(
        embed(tuned.backbone.path), embed(tune("one", train_epochs=1).backbone.path), atol=1e-6
    )


def test_one_seed_gives_one_network(tune):
    first, same, other = (
        embed(tune(output, seed=seed).backbone.path)
        for output, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    np.testing.assert_array_equal(first, same)
    assert np.any(first != other)


def test_it_does_not_matter_where_the_images_lie(tune, work):
    first = embed(tune("a").backbone.path)
    (work / "images").rename(work / "moved")
    np.testing.assert_array_equal(embed(tune("b", "moved").backbone.path), first)


def test_what_is_no_image_of_the_store_is_counted_and_passed_over(tune, work):
    (work / "images" / "daisy" / "notes.jpg").write_text("no image")
    gone = sorted((work / "images" / "daisy").iterdir())[0]
    gone.unlink()
    tune()
    missing, others = tune.warnings
    assert missing.startswith("1 images of the store are not among the images")
    assert gone.name in missing
    assert others.startswith("1 files are passed over")


def test_images_that_go_bad_on_the_way_end_nothing(tune, work):
    photographs = sorted((work / "images" / "tulips").iterdir())

    def spoil(line):
        if line.startswith("fine-tuning"):
            photographs[0].write_bytes(b"changed")
            photographs[1].unlink()

    tune(say=spoil)
    assert sorted(line.partition(":")[0] for line in tune.warnings) == ["1 images were skipped"] * 2
    assert "changed" in str(tune.warnings)
    assert "FileNotFoundError" in str(tune.warnings)


def test_a_network_that_runs_away_is_not_written(tune, work):
    with pytest.raises(TrainingError, match=r"diverged: .* lower --learning-rate"):
        tune(learning_rate=1e30, train_epochs=5)
    assert sorted(p.name for p in work.iterdir()) == ["images", "store"]


def test_what_is_there_is_not_written_over(tune):
    with pytest.raises(InputError, match="store' is an input of this command"):
        tune("store")


def test_images_of_another_store_are_refused(tune, work):
    (work / "others").mkdir()
    (work / "others" / "a.jpg").write_text("another")
    with pytest.raises(InputError, match="none of the 20 labelled images"):
        tune(images="others")


def test_a_label_without_a_image_is_refused(tune):
    with pytest.raises(InputError, match="4 of 5 labels, such as 'daisy', have no training"):
        tune(images="images/roses")


def test_a_backbone_that_the_store_lacks_is_named(tune):
    with pytest.raises(StoreError, match=r"no vectors of 'efficientnet-lite0-.*holds: net-"):
        tune(backbone=resolve("efficientnet-lite0"))


# The command


def test_the_command_and_the_two_that_it_names(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "images", 3)
    assert cli("embed", "images", "--store", "store") == 0
    tune = "train store --fine-tune images --fine-tuned tuned --train-epochs 1 --batch-size 8"
    assert main(shlex.split(tune)) == 0
    commands = capsys.readouterr().out.partition("next:\n")[2].splitlines()
    for line in commands:
        assert main(shlex.split(line)[1:]) == 0, line
    assert "embedded 15, reused 0" in capsys.readouterr().out
    assert [key[:12] for key in sorted(open_store("store").sections)][1] == "backbone=tun"
    assert (tmp_path / "MODEL" / "model.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "--fine-tune writes a new backbone: name its folder with --fine-tuned"),
        ("--fine-tuned t --hidden 5", "--fine-tune does not take --hidden"),
        ("--fine-tuned t --no-flip --train-epochs 0", "--train-epochs must be"),
        ("--fine-tuned t --sweep", "--fine-tune does not take --sweep"),
        ("--fine-tuned t --recipe retrain", "does not take --recipe retrain"),
        ("--fine-tuned t --backbone a+b", "one backbone at a time, not 'a+b'"),
        ("--fine-tuned t --train-epochs 0", "--train-epochs must be a whole number >= 1, got 0"),
    ],
)
def test_flags_that_do_not_fit(original, flags, message, capsys):
    command = f"train {original / 'store'} --fine-tune {original / 'images'} {flags}"
    assert main(shlex.split(command)) == 1
    assert message in capsys.readouterr().err


def test_the_tuned_head_labels_with_the_tuned_network(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "images", 4)
    assert cli("embed", "images", "--store", "store") == 0
    tune = "train store --fine-tune images --fine-tuned tuned --model m --train-epochs 2"
    assert main(shlex.split(tune)) == 0
    said = capsys.readouterr().out
    bundle = read_bundle(str(tmp_path / "m"))
    assert bundle.backbone == "tuned"
    assert bundle.recipe["name"] == "fine-tune"
    assert len(bundle.held_out) == sum(
        bundle.metrics[n]["count"] for n in ("validation", "testing")
    )
    image = str(next((tmp_path / "images").glob("*/*")))
    assert main(["classify", image, "--model", "m"]) == 1
    refused = capsys.readouterr().err
    assert "'tuned', which is not in the catalogue" in refused
    assert "as --backbone-path" in refused
    (command,) = said.partition("next:\n")[2].splitlines()
    assert main(shlex.split(command)[1:]) == 0
    with open("TABLE.csv") as table:
        found = [(Path(row["uri"]).parent.name, row["label"]) for row in csv.DictReader(table)]
    assert len(found) == 20
    # Of the images that it learnt, and they are most, it knows nearly all.
    assert sum(folder == label for folder, label in found) >= 15
    for split in ("validation", "testing"):
        metrics = bundle.metrics[split]
        share = f"{metrics['accuracy']:.1%} (95 % interval"
        assert f"after, tuned network: {split} accuracy {share}" in said


def test_a_folder_that_is_no_model_is_refused_before_the_work(original, network, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    places = f"{original / 'store'} --fine-tune {original / 'images'} --fine-tuned {tmp_path}/t"
    network = f"--backbone-path {network}/net.keras"
    assert main(shlex.split(f"train {places} {network} --model {tmp_path}")) == 2
    assert "holds other things than a model" in capsys.readouterr().err


def test_a_place_for_the_model_has_to_be_named(capsys):
    assert main(["train", "store"]) == 1
    assert "name a folder to write the model to with --model" in capsys.readouterr().err
