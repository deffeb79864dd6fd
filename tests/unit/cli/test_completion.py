"""Completion as the shells themselves do it; those that are not installed are passed over."""

import os
import pty
import select
import shutil
import subprocess
import time

import pytest

from beam_flowers.backbones.catalogue import CATALOGUE
from beam_flowers.cli.completion import script
from beam_flowers.cli.parser import COMMANDS, make_parser

BACKBONES = {row.name for row in CATALOGUE}

# What a press of the tabulator does: the function that is registered fills COMPREPLY.
_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
$(complete -p beam-flowers | sed 's/.*-F \\([^ ]*\\).*/\\1/') beam-flowers "${@: -1}" "${@: -2:1}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def in_bash(folder, *words):
    return _said(["bash", "--norc", "-c", _BASH, "bash"], folder, "bash", "beam-flowers", *words)


def in_fish(folder, *words):
    line = " ".join(["beam-flowers", *words])
    command = ["fish", "--no-config", "-c", 'source "$argv[1]"; complete -C "$argv[2]"']
    return {word.partition("\t")[0] for word in _said(command, folder, "fish", line)}


def _said(command, folder, shell, *arguments):
    file = folder / f"completion.{shell}"
    if not file.exists():
        file.write_text(script(shell, make_parser()))
    command = [*command, file, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert not done.stderr
    return set(done.stdout.split("\n")) - {""}


def _shells():
    for name, complete in {"bash": in_bash, "fish": in_fish}.items():
        absent = not shutil.which(name)
        yield pytest.param(complete, id=name, marks=pytest.mark.skipif(absent, reason="absent"))


@pytest.mark.parametrize("complete", [*_shells()])
def test_commands_flags_choices_backbones_and_files_are_completed(complete, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "phone.yaml").touch()
    assert complete(tmp_path, "") >= set(COMMANDS)
    assert complete(tmp_path, "ev") == {"evaluate"}
    assert complete(tmp_path, "embed", "--max-ba") == {"--max-bad-fraction"}
    assert complete(tmp_path, "embed", "--engine", "o") == {"openvino", "onnxruntime"}
    assert complete(tmp_path, "train", "--recipe", "") == {"lbfgs", "retrain", "image-classifier"}
    assert complete(tmp_path, "embed", "--backbone", "eff") == {
        name for name in BACKBONES if name.startswith("eff")
    }
    named = complete(tmp_path, "embed", "--backbone", "ph")
    assert {name.rstrip("/") for name in named} == {"photos", "phone.yaml"}
    for words in (["embed", "ph"], ["embed", "photos", "--config", "ph"], ["classify", "ph"]):
        assert {name.rstrip("/") for name in complete(tmp_path, *words)} == {"photos", "phone.yaml"}
    assert complete(tmp_path, "init", "trai") == {"train"}


@pytest.mark.skipif(not shutil.which("zsh"), reason="absent")
def test_zsh_completes_what_is_unambiguous(tmp_path):
    (tmp_path / "_beam-flowers").write_text(script("zsh", make_parser()))
    terminal, end = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"],
        cwd=tmp_path,
        env={**os.environ, "TERM": "dumb", "PS1": "> "},
        **dict.fromkeys(("stdin", "stdout", "stderr"), end),
        start_new_session=True,
    )
    os.close(end)
    try:
        _type(terminal, f"fpath=({tmp_path} $fpath); autoload -U compinit; compinit -u -D; ", "")
        _type(terminal, "echo rea''dy\n", "ready")
        _type(terminal, "beam-flowers evalua\t", "evaluate ")
        _type(terminal, "--ne\t", "--neighbours")
        _type(terminal, "\x15beam-flowers embed --backbone inc\t", "inception-v3")
        _type(terminal, "\x15beam-flowers embed --engine open\t", "openvino")
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)


def _type(terminal, keys, expected):
    """Types into a terminal and waits until it shows what is expected."""
    os.write(terminal, keys.encode())
    shown, deadline = "", time.monotonic() + 30
    while expected not in shown:
        assert time.monotonic() < deadline, shown
        if select.select([terminal], [], [], 1)[0]:
            shown += os.read(terminal, 4096).decode(errors="replace")
