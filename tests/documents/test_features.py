"""docs/features.md: every claim leads to a test or a file that is there."""

import re

import pytest
from places import DOCS, ROOT

TEXT = (DOCS / "features.md").read_text()
LINKS = sorted(set(re.findall(r'\]\(\.\./([^ )]+)(?: "(\w+)")?\)', TEXT)))
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize(("path", "test"), LINKS, ids=lambda value: value)
def test_a_claim_leads_to_what_is_there(path, test):
    assert (ROOT / path).is_file()
    assert not test or f"def {test}(" in (ROOT / path).read_text()


def test_rows_are_whole_and_a_yes_is_a_link():
    assert len(LINKS) > 60
    table = [row.strip("|").split("|") for row in ROWS[: ROWS.index("| feature | ours |")]]
    assert {len(cells) for cells in table} == {10}
    assert not [cells[0] for cells in table[1:] if cells[1].strip() in ("Y", "yes")]
