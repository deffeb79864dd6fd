"""What README shows works."""

import re

import doc_blocks
import pytest
from places import ROOT
from stores import cli

README = ROOT / "README.md"


def test_the_blocks_run_in_their_order(reader, capsys):
    doc_blocks.run_page(README)
    assert "embedded 60, reused 0, rejected 1, hidden 0, of 61" in capsys.readouterr().out
    written = [path.read_text() for path in reader.glob("labels-*.txt")]
    lines = "".join(written).splitlines()
    assert len(lines) == 60


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 200


def test_the_demo_prints_the_lines_that_are_shown(tmp_path, capsys):
    """The same labels in the same order, with scores that agree to two digits."""
    assert cli("demo", "--folder", tmp_path / "demo") == 0
    printed = {line.split()[0]: line.split()[1:] for line in labelled(capsys.readouterr().out)}
    shown = labelled(README.read_text())
    assert len(shown) == 2
    for image, *ranking in map(str.split, shown):
        assert ranking[::2] == printed[image][::2]
        given = [float(score) for score in printed[image][1::2]]
        assert [float(score) for score in ranking[1::2]] == pytest.approx(given, abs=0.005)


def labelled(text):
    """The lines that give an image and its labels with their scores."""
    return re.findall(r"^\w+/\w+\.jpg(?: +[a-z]+ [01]\.\d{4}){3}$", text, re.MULTILINE)
