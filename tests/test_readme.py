"""What README shows works."""

import doc_blocks
from doc_blocks import ROOT

README = ROOT / "README.md"


def test_the_blocks_run_in_their_order(reader, capsys):
    doc_blocks.run_page(README)
    assert "embedded 60, reused 0, rejected 1, hidden 0, of 61" in capsys.readouterr().out
    lines = [line for path in reader.glob("labels-*.txt") for line in path.open()]
    assert len(lines) == 60


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 200
