"""What README shows works."""

import re
import shlex

import doc_blocks
import pytest
from places import ROOT
from stores import cli

README = ROOT / "README.md"
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def test_the_commands_print_what_is_shown(tmp_path, monkeypatch, capsys):
    """Each line below a command begins a line of its output; numbers agree to two digits."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beam_flowers").symlink_to(ROOT / "beam_flowers")
    (block,) = (b for b in doc_blocks.blocks(README) if b.language == "console")
    shown = block.text.replace("\\\n", " ").splitlines()
    commands = [line for line in shown if line.startswith("$ ")]
    assert len(commands) == 4
    printed = []
    for line in shown:
        if line in commands:
            program, *arguments = shlex.split(line[2:])
            assert program == "beam-flowers"
            assert cli(*arguments) == 0
            said = capsys.readouterr()
            printed = (said.out + said.err).splitlines()
        else:
            assert any(map(begins_so(line), printed)), f"{line!r} is not in {printed}"
    # The Python block reads what these commands have written.
    doc_blocks.run_page(README)


def begins_so(shown):
    words, numbers = NUMBER.sub("#", shown), list(map(float, NUMBER.findall(shown)))

    def begins(line):
        found = list(map(float, NUMBER.findall(line)))[: len(numbers)]
        return NUMBER.sub("#", line).startswith(words) and found == pytest.approx(numbers, rel=0.01)

    return begins


@pytest.mark.parametrize(
    ("line", "is_there"),
    [
        ("test accuracy 83.2% (24 images)", True),
        ("test accuracy 73.3% (24 images)", False),
        ("test 83.3% (24 images)", False),
    ],
)
def test_other_numbers_and_words_are_seen(line, is_there):
    assert begins_so("test accuracy 83.3% (24")(line) == is_there


def test_readme_is_short():
    lines = README.read_text().splitlines()
    assert len(lines) <= 120
    assert max(map(len, lines)) <= 80


def test_the_demo_labels_photographs_that_the_head_has_not_seen(tmp_path, capsys):
    assert cli("demo", "--folder", tmp_path / "demo") == 0
    printed = capsys.readouterr().out
    pattern = r"^(\w+)/\w+\.jpg +([a-z]+) [01]\.\d{4}(?: +[a-z]+ [01]\.\d{4}){2}$"
    labelled = re.findall(pattern, printed, re.MULTILINE)
    right = sum(given == predicted for given, predicted in labelled)
    assert len(labelled) == 20
    assert right >= 17
    assert f"{right} of 20 carry the name of their folder" in printed
