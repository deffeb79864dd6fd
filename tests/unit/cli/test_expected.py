"""Each command says so when it got images for a store, a store for a model, and so on."""

import make_images
import pytest
from report_cases import make_model, make_store
from stores import cli

from beam_flowers.cli.expected import EXPECTED
from beam_flowers.cli.parser import COMMANDS, make_parser
from beam_flowers.scoring import recognise


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    base = tmp_path_factory.mktemp("things")
    make_store(base, 90)
    make_model(base)
    header = ["uri", "sha256", "label", "score", "top_k", "model_id", "label_id"]
    (base / "scores.csv").write_text(",".join(f'"{name}"' for name in header) + "\n")
    (base / "photos" / "ant").mkdir(parents=True)
    (base / "photos" / "ant" / "1.jpg").write_bytes(make_images.jpeg())
    (base / "list.txt").write_text("photos/ant/1.jpg\n")
    (base / "other").mkdir()
    (base / "other" / "notes.md").write_text("none of ours")
    return base


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("store", recognise.STORE),
        ("model", recognise.MODEL),
        ("scores.csv", recognise.SCORES),
        ("photos", recognise.FOLDER),
        ("photos/ant/1.jpg", recognise.IMAGE),
        ("list.txt", recognise.LIST),
        ("other", None),
        ("other/notes.md", None),
        ("nowhere", None),
    ],
)
def test_things_are_told_apart(things, name, found):
    assert recognise.recognise(str(things / name)) == found


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "train photos",
            "'photos' is a folder of images. First: beam-flowers embed photos --store",
        ),
        ("train model", "'model' is a model. Name the feature store"),
        ("train scores.csv", "'scores.csv' is a table of scores. Name the feature store that it"),
        ("train list.txt", "'list.txt' is a list of images. First: beam-flowers embed list.txt"),
        ("evaluate model --model store", "is a model and 'store' is a feature store: exchange"),
        (
            "evaluate store --model store",
            "a feature store. First: beam-flowers train store --model",
        ),
        ("score photos --model photos --output x.csv", "then: beam-flowers train STORE --model"),
        ("score model --model store --output x.csv", "exchange the two"),
        ("score model --model model --output x.csv", "'model' is a model. Name a folder of images"),
        ("score photos --model model --output x.csv --store model", "another folder for the store"),
        ("classify store --model model", "Name the images that it was made from"),
        ("classify photos/ant/1.jpg --model scores.csv", "Name the model, the folder that `train`"),
        ("report photos", "'photos' is a folder of images. First: beam-flowers embed photos"),
        ("review model", "'model' is a model. Name the feature store"),
        ("export photos --to labels --output x.txt", "'photos' is a folder of images. First"),
        ("embed store --store x", "'store' is a feature store. Name the images"),
        ("embed photos/ant/1.jpg --store photos", "Name another folder for the store"),
        ("doctor model", "'model' is a model. Name a folder of images"),
        ("check photos --store model", "'model' is a model. Name another folder for the store"),
        ("vacuum photos", "'photos' is a folder of images"),
        ("forget model x", "'model' is a model"),
        ("fsck photos", "'photos' is a folder of images"),
        ("history model", "'model' is a model"),
        ("restore model 1", "'model' is a model"),
        ("import-bottlenecks x --images store --store x", "'store' is a feature store"),
    ],
)
def test_a_wrong_thing_is_named_with_the_next_step(things, command, message, capsys, monkeypatch):
    monkeypatch.chdir(things)
    assert cli(*command.split()) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("beam-flowers: ")
    assert message in line
    assert not (things / "x").exists()
    assert not (things / "x.csv").exists()


def test_expected_arguments_are_those_of_the_parser():
    actions = make_parser()._subparsers._group_actions[0].choices
    for command, arguments in EXPECTED.items():
        assert set(arguments) <= {action.dest for action in actions[command]._actions}
    assert set(COMMANDS) - set(EXPECTED) == {"backbones", "init", "completion", "demo"}


def test_a_store_without_labels_names_the_way_to_some(tmp_path, capsys):
    make_store(tmp_path, 6, labels=(None,))
    assert cli("train", tmp_path / "store", "--model", tmp_path / "model") == 1
    assert f"First: beam-flowers review {tmp_path / 'store'}" in capsys.readouterr().err


def test_a_folder_around_the_folders_of_labels_is_named(tmp_path, capsys, monkeypatch):
    from beam_flowers.cli.embed import _warn_of_wrapper

    for label in "ab":
        (tmp_path / "wrapper" / "dataset" / label).mkdir(parents=True)
    (tmp_path / "wrapper" / ".DS_Store").touch()
    _warn_of_wrapper([str(tmp_path / "wrapper" / "dataset"), str(tmp_path / "nowhere")])
    assert not capsys.readouterr().err
    _warn_of_wrapper([str(tmp_path / "wrapper")])
    assert f"name {tmp_path / 'wrapper' / 'dataset'} to have its" in capsys.readouterr().err


def test_images_that_are_not_there_are_named_before_a_network_is_loaded(
    things, capsys, monkeypatch
):
    monkeypatch.chdir(things)
    image, model = "photos/ant/1.jpg", ("--model", "nowhere")
    assert cli("classify", image, "absent.jpg", "lost.jpg", *model) == 1
    assert "'absent.jpg' and 1 more are not there" in capsys.readouterr().err
    assert cli("classify", "photos", "--model", "model") == 1
    said = capsys.readouterr().err
    assert "beam-flowers score photos --model model --output labels.csv" in said
