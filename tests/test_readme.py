"""What README shows works."""

import re
import shutil
from pathlib import Path

import pytest

import beam_flowers
from beam_flowers.cli.main import main

README = Path(__file__).parent.parent / "README.md"
FLOWERS = Path(beam_flowers.__file__).parent / "data" / "flowers"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with some photographs and what README's commands made of them."""
    for name, count in (("roses", 12), ("daisy", 12)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for photo in sorted((FLOWERS / "labelled" / name).iterdir())[:count]:
            shutil.copy(photo, tmp_path / "photos" / name)
    shutil.copytree(tmp_path / "photos" / "roses", tmp_path / "more-photos")
    shutil.copy(photo, tmp_path / "one.jpg")
    shutil.copy(photo, tmp_path / "another.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_commands_and_python_blocks_run_in_their_order(work, capsys):
    commands = next(block for block in blocks("") if "embed photos" in block)
    for line in commands.strip().splitlines():
        assert main(line.partition("#")[0].split()[1:]) == 0, line
    assert "embedded 24, reused 0, rejected 0, hidden 0, of 24" in capsys.readouterr().out
    (work / "store" / "__rejects").mkdir()  # nothing was rejected, so there is none to read
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    lines = "".join(p.read_text() for p in work.glob("labels-*.txt")).splitlines()
    assert len(lines) == 24


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 200
