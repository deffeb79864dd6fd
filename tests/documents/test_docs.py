"""Each block of the docs is run, or says why it is not; the reference has what is public."""

import re

import doc_blocks
import pytest
from doc_blocks import PAGES, blocks
from places import DOCS, ROOT

import beam_flowers

ALL = [block for page in PAGES for block in blocks(page)]
# Each makes a store or more of its own; a minute in all.
SLOW = [
    "docs/plug-in.md",
    "docs/tutorial.md",
    "docs/how-to/own-network.md",
    "docs/how-to/precision.md",
    "docs/how-to/resume.md",
]


def page_cases():
    """The pages that have something to run, but for README, which test_readme.py runs."""
    for page in PAGES[1:]:
        name = str(page.relative_to(ROOT))
        if any(block.kind == "run" for block in blocks(page)):
            yield pytest.param(page, id=name, marks=[pytest.mark.slow] * (name in SLOW))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", [*page_cases()])
def test_the_blocks_of_a_page_run_in_their_order(page, reader):
    doc_blocks.run_page(page)


@pytest.mark.parametrize("block", ALL, ids=lambda block: block.where)
def test_a_block_is_run_or_says_why_not(block):
    assert block.language, f"{block.where}: name the language of the block, or text"
    assert block.kind != "not run" or block.about, f"{block.where}: say why it is not run"
    if block.language not in ("bash", "python"):
        hidden = [line for line in block.text.splitlines() if line.startswith("beam-flowers ")]
        assert not hidden, f"{block.where}: a command in a block of {block.language}"


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.kind == "not run"], ids=lambda block: block.where
)
def test_what_is_not_run_has_flags_and_files_that_exist(block):
    doc_blocks.check(block)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("beam-flowers embed photos --stor store", "did you mean --store"),
        ("docker run x beam-flowers train", "missing: STORE"),
        ("pip install 'beam-flowers[aws,moon]'", "README.md:1"),
        ("python benchmarks/absent.py", "no benchmarks/absent.py"),
        ("for x in; do", "bash"),
    ],
)
def test_wrong_blocks_are_found(text, error, capsys):
    block = doc_blocks.Block("README.md:1", "bash", text, "not run", "a test")
    with pytest.raises((Exception, SystemExit)) as found:
        doc_blocks.check(block)
    assert error in str(found.value) + capsys.readouterr().err


def test_a_command_that_fails_fails_its_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in ("beam-flowers train absent --model model", "ls absent | cat", "false"):
        with pytest.raises(AssertionError, match=r"README\.md:1"):
            doc_blocks.run(doc_blocks.Block("README.md:1", "bash", text, "run", ""), {})


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference" / "api.md").read_text()
    assert sorted(re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.M)) == beam_flowers.__all__
