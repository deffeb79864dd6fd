"""What README and the docs show works: each block is run, or says why it is not."""

import re
import shutil
from pathlib import Path

import doc_blocks
import pytest
from doc_blocks import PAGES, ROOT, blocks

import beam_flowers
from beam_flowers.cli.main import main

FLOWERS = Path(beam_flowers.__file__).parent / "data" / "flowers"
ALL = [block for page in PAGES for block in blocks(page)]
RUN = [page for page in PAGES if any(block.kind == "run" for block in blocks(page))]


def photographs(folder):
    """What a reader has: photographs by label, further ones, two on their own."""
    for label in sorted((FLOWERS / "labelled").iterdir()):
        (folder / "photos" / label.name).mkdir(parents=True)
        for photo in sorted(label.iterdir())[:20]:
            shutil.copy2(photo, folder / "photos" / label.name)
    (folder / "photos" / "roses" / "broken.jpg").write_bytes(photo.read_bytes()[:9000])
    shutil.copytree(FLOWERS / "unseen", folder / "more-photos")
    shutil.copy2(photo, folder / "one.jpg")
    shutil.copy2(photo, folder / "another.png")


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Two folders: in `work` each page runs, in `ready` lie the store and the model that most
    pages begin with."""
    base = tmp_path_factory.mktemp("pages")
    photographs(base / "work")
    store, model = str(base / "ready" / "store"), str(base / "ready" / "model")
    assert main(["embed", str(base / "work" / "photos"), "--store", store]) == 0
    assert main(["train", store, "--model", model]) == 0
    return base


@pytest.fixture
def work(kept, monkeypatch):
    """The working folder as a reader has it at the top of a page."""
    shutil.rmtree(kept / "work")
    photographs(kept / "work")
    monkeypatch.chdir(kept / "work")
    return kept / "work"


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_their_order(page, work, capsys):
    names = {}
    for block in blocks(page):
        doc_blocks.run(block, names)
    if page.name == "README.md":
        lines = [line for path in work.glob("labels-*.txt") for line in path.open()]
        assert len(lines) == 100


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
        ("docker run x beam-flowers train", "the following arguments are required: STORE"),
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


def test_a_command_that_fails_fails_its_page(work):
    for text in ("beam-flowers train absent --model model", "ls absent | cat", "false"):
        with pytest.raises(AssertionError, match=r"README\.md:1"):
            doc_blocks.run(doc_blocks.Block("README.md:1", "bash", text, "run", ""), {})


def test_the_reference_has_every_public_name():
    text = (ROOT / "docs" / "reference" / "api.md").read_text()
    assert sorted(re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.M)) == beam_flowers.__all__


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
