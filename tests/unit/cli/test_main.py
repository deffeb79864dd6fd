"""Flags, messages and exit codes."""

import argparse

import pytest

from beam_flowers.cli import parser as parsers
from beam_flowers.cli.beam_flags import split_flags
from beam_flowers.cli.config import command_parser
from beam_flowers.cli.main import _cause, main
from beam_flowers.errors import InputError
from beam_flowers.head.lbfgs import default_l2
from beam_flowers.head.retrain import RetrainOptions
from beam_flowers.head.split import SplitOptions
from beam_flowers.scoring.ranking import TOP_K

COMMANDS = tuple(parsers.COMMANDS)


def command(name):
    return command_parser(parsers.make_parser(), name)


def split(*arguments):
    return split_flags(arguments, command("embed"))


@pytest.mark.parametrize(
    ("arguments", "ours", "beams"),
    [
        (["p", "--store", "s"], ["p", "--store", "s"], []),
        (["--retry_rejects", "p"], ["--retry-rejects", "p"], []),
        (["--backbone_path=x"], ["--backbone-path=x"], []),
        (["--runner=FlinkRunner", "p"], ["p"], ["--runner=FlinkRunner"]),
        (["--runner", "FlinkRunner", "p"], ["p"], ["--runner=FlinkRunner"]),
        (["--direct-num-workers", "2", "p"], ["p"], ["--direct_num_workers=2"]),
        (["--pixel-range", "-1,1", "p"], ["--pixel-range=-1,1", "p"], []),
        (["--verify", "-1.jpg"], ["--verify", "-1.jpg"], []),
        (["--streaming", "p"], ["p"], ["--streaming"]),
        (["--faster_copy=true", "p"], ["p"], ["--faster_copy=true"]),
        (["--", "--odd.jpg"], ["--", "--odd.jpg"], []),
    ],
)
def test_flags_go_to_whom_they_belong(arguments, ours, beams):
    assert split(*arguments) == (ours, beams)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--stor", "did you mean --store"),
        ("--retryrejects", "did you mean --retry-rejects"),
        ("--runer=x", "did you mean --runner"),
        ("--max_bad_fractions=1", "did you mean --max-bad-fraction"),
    ],
)
def test_a_misspelt_flag_is_not_handed_on(flag, message):
    with pytest.raises(InputError, match=message):
        split(flag, "p")


def test_an_unknown_flag_must_say_whose_the_next_word_is():
    with pytest.raises(InputError, match="write --faster_copy=VALUE"):
        split("--faster_copy", "p")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_is_read_and_written_and_which_accuracy(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out.lower()
    assert "read" in text
    assert "accurac" in text


def test_help_states_the_true_defaults():
    text = " ".join(command("train").format_help().split())
    for name in ("validation", "testing"):
        percentage = getattr(SplitOptions(), f"{name}_percentage")
        assert f"percent of the images for {name} (default {percentage})" in text
    defaults = RetrainOptions()
    for value in (defaults.how_many_training_steps, defaults.learning_rate):
        assert f"(default {value}" in text
    assert f"at most {default_l2(2)}; 0 in retrain" in text
    assert f"{100 * default_l2(100):g} / number of labels, at most" in text
    assert (
        vars(command("score").parse_args(["p", "--model", "m", "--output", "o.csv"]))["top_k"]
        == TOP_K
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["embed", "absent", "--store", "s"], 1, "absent"),
        (["embed", ".", "--store", "s", "--max-bad-fraction", "2"], 1, "0 to 1"),
        (["embed", ".", "--store", "s", "--shards", "0"], 1, "1 or more"),
        (["embed", ".", "--store", "./s/t"], 1, "lies in"),
        (["embed", ".", "--store", "s", "--backbone", "inception-v2"], 1, "inception-v3"),
        (["embed", ".", "--store", "s", "--pixel-range", "x"], 1, "two numbers"),
        (["train", "absent", "--model", "m"], 1, "no store at"),
        (["train", "absent", "--model", "m", "--dropout", "0.5"], 1, "retrain"),
        (["score", ".", "--model", "absent", "--output", "o/o.csv"], 1, "absent"),
        (["classify", "p", "--model", "absent"], 1, "'p' is not there"),
        (["vacuum", "absent"], 1, "no store at"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    arguments, code, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert "Traceback" not in error


@pytest.mark.parametrize("arguments", [["frobnicate"], ["embed"], ["embed", "p", "--stor=s"]])
def test_a_wrong_command_line_ends_with_2(arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_backbones_are_listed(capsys):
    assert main(["backbones"]) == 0
    text = capsys.readouterr().out
    assert "efficientnet-lite0  224x224    1280" in text
    assert "inception-v3        299x299    2048" in text


def test_our_flags_do_not_shadow_beams():
    from apache_beam.options.pipeline_options import PipelineOptions

    beams = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(beams)
    # These run no pipeline, and their --labels is not that of a Dataflow job.
    for name in set(COMMANDS) - {"train", "evaluate", "report", "vacuum", "forget"}:
        own = {o.replace("-", "_") for a in command(name)._actions for o in a.option_strings}
        assert not own & {o.replace("-", "_") for o in beams._option_string_actions}


def test_an_error_that_is_its_own_cause_ends():
    """gRPC gives such ones when a job server dies."""
    error, cause = RuntimeError("the job failed"), ValueError("channel closed")
    error.__cause__, cause.__cause__ = cause, error
    assert "ValueError: channel closed" in _cause(error)
