"""Flags from a file, and the file that `init` writes."""

import argparse
import re
import subprocess
import sys

import pytest
import yaml
from stores import cli

from beam_flowers.cli import config as configs
from beam_flowers.cli.config import command_parsers
from beam_flowers.cli.init import template
from beam_flowers.cli.parser import make_parser
from beam_flowers.errors import InputError


def parsed(text, *arguments, command="embed"):
    """The arguments of a command, with the settings of a file of that text."""
    parsers = command_parsers(make_parser())
    config = configs.parse_config(text.encode(), "c.yaml")
    configs.check_sections(config, parsers)
    configs.set_defaults(config, command, parsers[command], configs.given_flags(arguments))
    return parsers[command].parse_args(arguments)


def beams(text, *given, command="embed"):
    config = configs.parse_config(text.encode(), "c.yaml")
    return configs.beam_flags(config, command, command_parsers(make_parser())[command], given)


def test_a_file_sets_flags_and_arguments():
    found = parsed("embed: {images: [a, b], store: s, shards: 3, verify: yes, max_bad_fraction: 1}")
    assert (found.images, found.store, found.shards) == (["a", "b"], "s", 3)
    assert found.verify is True
    assert found.max_bad_fraction == 1.0
    assert type(found.max_bad_fraction) is float


def test_the_command_line_wins():
    text = "embed: {images: [a], store: s, backbone: inception-v3, shards: 3}"
    found = parsed(text, "c", "--store=t", "--shards", "5")
    assert (found.images, found.store, found.shards) == (["c"], "t", 5)
    assert found.backbone == "inception-v3"


def test_flags_that_may_be_given_several_times_are_replaced_not_added_to():
    text = "score: {images: a, model: [m, n], output: o}"
    assert parsed(text, command="score").model == ["m", "n"]
    assert parsed(text, "--model", "x", command="score").model == ["x"]


def test_an_argument_that_must_be_there_may_stand_in_the_file():
    assert parsed("train: {store: s}", command="train").store == "s"
    assert parsed("train: {store: s}", "t", command="train").store == "t"
    assert parsed("classify: {images: a.jpg, model: m}", command="classify").images == ["a.jpg"]


def test_another_name_of_a_flag_is_the_same_flag():
    found = parsed("train: {store: s, l2_regularizer: 2}", "--l2", "3", command="train")
    assert found.l2 == 3
    assert parsed("train: {store: s, l2-regularizer: 2}", command="train").l2 == 2


def test_null_leaves_the_default():
    found = parsed("embed: {images: a, store: s, backbone: null, shards:}")
    assert (found.backbone, found.shards) == ("efficientnet-lite0", None)


def test_settings_may_be_shared_by_anchors():
    text = "x-all: &all {store: s}\nembed: {<<: *all, images: a}\ntrain: {<<: *all}\n"
    assert parsed(text).store == parsed(text, command="train").store == "s"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("embed:\n  stor: s", "line 2: embed has no flag 'stor'; did you mean store"),
        ("embed:\n  zebra: s", "line 2: embed has no flag 'zebra'; .*--help` lists them"),
        ("train:\n  runner: x", "line 2: train has no flag 'runner'"),
        ("embde:\n  store: s", "line 1: there is no command 'embde'; did you mean embed"),
        ("embed:\n  shards: many", "line 2: shards of embed must be a whole number, not 'many'"),
        ("embed:\n  shards: 1.5", "line 2: shards of embed must be a whole number, not 1.5"),
        ("embed:\n  shards: true", "line 2: shards of embed must be a whole number, not True"),
        ("embed:\n  max-bad-fraction: x", "line 2: .* must be a number, not 'x'"),
        ("embed:\n  verify: maybe", "line 2: verify of embed must be true or false, not 'maybe'"),
        ("embed:\n  store: 2024", "line 2: store of embed must be text, not 2024: put it betw"),
        ("embed:\n  store: [a]", r"line 2: store of embed must be text, not \['a'\]$"),
        ("embed:\n  images: [a, 1]", "line 2: images of embed must be text, not 1"),
        ("embed:\n  engine: openvin", "line 2: engine .* not 'openvin'; did you mean openvino"),
        ("embed:\n  store: a\n  store: b", "line 3: 'store' stands here and in line 2"),
        ("embed:\n  store: [a", "line 2: no YAML: "),
        ("embed:\n  - store", "line 2: here must be a setting a line"),
        ("- embed", "line 1: here must be a section for each command"),
        ("embed:\n  store: !!python/name:os.system x", "line 2: no YAML: could not determine"),
        ("embed:\n  store: \x00", "no YAML"),
        ("embed: {{ all }}", "line 1: a name must be text, not a list or a mapping"),
        ("{{ all }}: x", "line 1: a name must be text"),
        ("? [a]\n: x", "line 1: a name must be text"),
        ("embed:\n  backbone: 2024-13-45", "line 2: this value cannot be read: month must be"),
        ("embed:\n  verify: !!bool maybe", "line 2: this value cannot be read: 'maybe'"),
        ("embed:\n  backbone: {[a]: b}", "line 2: no YAML: found unhashable key"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text, message):
    with pytest.raises(InputError, match=f"^c.yaml.*{message}"):
        parsed(text, "p")


def test_beams_flags_stand_below_beam():
    text = "embed: {beam: {runner: PrismRunner, direct-num-workers: 2, experiments: [a, b]}}"
    found = beams(text)
    assert found == [
        "--runner=PrismRunner",
        "--direct_num_workers=2",
        "--experiments=a",
        "--experiments=b",
    ]
    assert beams(text, "--runner=FnApiRunner")[-1] == "--runner=FnApiRunner"
    assert "--runner=PrismRunner" not in beams(text, "--runner=FnApiRunner")
    assert beams("embed: {beam: {streaming: true}}") == ["--streaming"]
    assert beams("embed: {beam: {streaming: false}}") == []
    assert beams("embed: {beam:}") == beams("embed:") == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("runer: x", "line 3: beam: unknown flag '--runer'; did you mean --runner"),
        ("store: x", "line 3: 'store' is a flag of embed, not of Beam; move it up"),
    ],
)
def test_a_wrong_flag_of_beams_is_named_with_its_line(flags, message):
    with pytest.raises(InputError, match=message):
        beams(f"embed:\n  beam:\n    {flags}\n")


def test_the_log_may_be_named_in_the_file(tmp_path):
    file, log = tmp_path / "c.yaml", tmp_path / "run.log"
    file.write_text(f"backbones: {{log_file: {log}}}\n")
    command = [sys.executable, "-m", "beam_flowers.cli.main", "backbones", "--config", file]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert log.read_text().startswith("# log of beam-flowers")


@pytest.mark.parametrize("value", ["[a]", "7"])
def test_a_log_that_is_no_text_is_an_error_with_its_line(value, tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(f"backbones:\n  log_file: {value}\n")
    command = [sys.executable, "-m", "beam_flowers.cli.main", "backbones", "--config", file]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert re.fullmatch(r".*c.yaml, line 2: log_file .* must be text, .*\n", run.stderr)


def uncommented(text):
    """The template with each setting and Beam's section set."""
    return re.sub(r"(?m)^  #(?! )", "  ", text.replace("  #  runner", "    runner"))


def test_the_template_sets_nothing_and_is_one_sign_away_from_all_defaults():
    parsers = command_parsers(make_parser())
    text = template(parsers)
    assert set(yaml.safe_load(text)) == set(parsers)
    assert not any(yaml.safe_load(text).values())
    config = configs.parse_config(uncommented(text).encode(), "c.yaml")
    configs.check_sections(config, parsers)
    for name, command in parsers.items():
        assert {*config.sections[name]} - {configs.BEAM} == {
            next(key for key, a in configs.keys_of(command).items() if a is action)
            for action in configs.keys_of(command).values()
        }
        before = {a.dest: a.default for a in command._actions if a.nargs != 0}
        configs.set_defaults(config, name, command, ())
        assert {a.dest: a.default for a in command._actions if a.nargs != 0} == before


def test_the_template_has_every_flag_with_its_help():
    words = " ".join(template(command_parsers(make_parser())).replace("\n  # ", " ").split())
    for command in command_parsers(make_parser()).values():
        for action in command._actions:
            if action.help != argparse.SUPPRESS and action.dest not in ("help", "config"):
                assert " ".join(action.help.replace("%%", "%").split()) in words


def test_init_overwrites_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli("init", "embed") == 0
    written = (tmp_path / "beam-flowers.yaml").read_text()
    assert [*yaml.safe_load(written)] == ["embed"]
    assert cli("init") == 2
    assert (
        "is there already: name another output, or replace it with --overwrite"
        in capsys.readouterr().err
    )
    assert (tmp_path / "beam-flowers.yaml").read_text() == written
    assert cli("init", "trian", "--output", "other.yaml") == 1
    assert "there is no command 'trian'" in capsys.readouterr().err
