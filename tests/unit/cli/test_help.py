"""Help, examples, and what a wrong command line says."""

import os
import shlex
import shutil
import subprocess
import sys

import make_images
import pytest
from report_cases import make_model, make_scores, make_store
from stores import cli, photos

import beam_flowers
from beam_flowers.cli import parser as parsers
from beam_flowers.cli.config import command_parser
from beam_flowers.cli.help import COMMAND_GROUPS, in_plain_words
from beam_flowers.cli.main import main

COMMANDS = tuple(parsers.COMMANDS)
WITH_NETWORK = {"embed", "score", "classify", "export", "check", "demo", "import-bottlenecks"}


def said_by(capsys, *arguments):
    """The output of a call that ends well."""
    assert cli(*arguments) == 0
    said = capsys.readouterr()
    assert not said.err
    return said.out


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",), ("-h",)])
def test_help_without_a_command_lists_all_in_groups(arguments, capsys):
    text = said_by(capsys, *arguments)
    assert sorted(name for _, names in COMMAND_GROUPS for name in names) == sorted(COMMANDS)
    for name, (summary, _) in parsers.COMMANDS.items():
        assert f"  {name:<20}{summary}\n" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_few_common_flags_first_and_an_example_last(name, capsys):
    text = said_by(capsys, "help", name)
    parser = command_parser(parsers.make_parser(), name)
    assert parser.format_help() in text
    arguments, common, *groups = parser._action_groups
    assert len(common._group_actions) <= 12
    grouped = [action for group in groups for action in group._group_actions]
    assert sorted(map(id, parser._actions)) == sorted(
        map(id, [*arguments._group_actions, *common._group_actions, *grouped])
    )
    *_, title, example = text.rstrip().splitlines()
    assert title == "example:"
    assert shlex.split(example)[:2] == ["beam-flowers", name]


def test_the_version(capsys):
    assert said_by(capsys, "--version") == f"beam-flowers {beam_flowers.__version__}\n"


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "beam_flowers", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
    )
    assert (done.returncode, done.stdout.partition(" ")[0]) == (0, "beam-flowers"), done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("scor", "beam-flowers: there is no command scor; did you mean score?"),
        ("help emebd", "beam-flowers: there is no command emebd; did you mean embed?"),
        ("qqq", "beam-flowers: there is no command qqq"),
        ("--verbose embed", "the command comes before --verbose, as in beam-flowers embed"),
        ("embed", "beam-flowers embed: missing: --store"),
        ("embed p --store", "--store takes a value"),
        (
            "embed p --store s --engine openvin",
            "openvino or onnxruntime, not openvin; did you mean",
        ),
        ("review s --choose x", "--choose takes a whole number, not 'x'"),
        ("embed p --store s --stroe t", "unknown flag '--stroe'; did you mean --store?"),
        ("vacuum s --older-than soon", "'soon' is no age"),
    ],
)
def test_a_usage_error_is_two_lines(command, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    said = capsys.readouterr()
    assert (stop.value.code, said.out) == (2, "")
    first, second = said.err.splitlines()
    assert message in first
    assert second.startswith("How to call it: beam-flowers ")
    assert second.endswith("--help")


def test_choices_are_in_plain_words_of_every_python():
    for quote in ("'", ""):
        choices = f"{quote}y{quote}, {quote}z{quote}"
        text = f"argument --a/--abc: invalid choice: 'x' (choose from {choices})"
        assert in_plain_words(text) == "--abc takes y or z, not x"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """A folder in which the examples work that need no network."""
    base = tmp_path_factory.mktemp("examples")
    make_store(base, 90)
    make_model(base)
    make_scores(base)
    (base / "photos").symlink_to(base / "images")
    # Some images without a label, for `review`.
    make_store(unlabelled := base / "unlabelled", 12, labels=(None,))
    shutil.move(unlabelled / "store", base / "unlabelled-store")
    return base


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITH_NETWORK))
def test_the_example_of_help_runs(name, examples, monkeypatch, capsys):
    monkeypatch.chdir(examples)
    _, *arguments = shlex.split(parsers.COMMANDS[name][1].EXAMPLE)
    if name == "review":
        monkeypatch.setattr("webbrowser.open", lambda url: True)
        monkeypatch.setattr("werkzeug.serving.BaseWSGIServer.serve_forever", lambda self: None)
        arguments[1] = "unlabelled-store"
    assert main(arguments) == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WITH_NETWORK - {"import-bottlenecks"}))
def test_the_example_of_help_that_takes_a_network_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 4)
    photos(tmp_path / "more-photos", 1)
    (tmp_path / "one.jpg").write_bytes(make_images.jpeg())
    if name in ("score", "classify", "export"):
        assert cli("embed", "photos", "--store", "store") == 0
        assert cli("train", "store", "--model", "model") == 0
    _, *arguments = shlex.split(parsers.COMMANDS[name][1].EXAMPLE)
    assert main(arguments) == 0, capsys.readouterr().err
