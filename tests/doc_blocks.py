"""The blocks of README and the docs, as a reader meets them, and what runs them.

A fence has a language: `bash`, `python`, or that of what it shows (`text`, `yaml`, ...). A comment
just before it may say something else than that it runs:

    <!-- not run: needs Flink -->     a reason; what can be checked without running is
    <!-- file: flowers.yaml -->       the block is the content of that file

and `<!-- run: commands -->`, anywhere, are commands that readers need not see.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import metadata
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from places import DOCS, ROOT

from beam_flowers.cli.beam_flags import split_flags
from beam_flowers.cli.config import command_parser
from beam_flowers.cli.main import main
from beam_flowers.cli.parser import COMMANDS, make_parser

PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
_COMMENT = re.compile(r"<!--\s*(not run|file|run):\s*(.*?)\s*-->", re.DOTALL)
_SHELL = re.compile(r"[|&;<>$*?`(){}~]")


class Block(NamedTuple):
    """A fence, or a comment's hidden commands.

    Attributes:
        where: page and line, for messages.
        language: of the fence.
        text: its content.
        kind: `run`, `not run`, `file`; empty for what is only shown.
        about: what the comment says behind the kind.
    """

    where: str
    language: str
    text: str
    kind: str
    about: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in its order."""
    found, comment = [], ("", "")
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type == "html_block":
            match = _COMMENT.search(token.content)
            comment = (match[1], match[2]) if match else ("", "")
            if comment[0] == "run":
                found.append(Block(_where(page, token), "bash", comment[1], "run", ""))
                comment = ("", "")
        elif token.type in ("fence", "code_block"):
            language = (token.info.split() or [""])[0] if token.type == "fence" else "text"
            kind = comment[0] or ("run" if language in ("bash", "python") else "")
            found.append(Block(_where(page, token), language, token.content, kind, comment[1]))
            comment = ("", "")
        elif token.type != "inline":
            comment = ("", "")
    return found


def _where(page: Path, token: Any) -> str:
    return f"{page.relative_to(ROOT)}:{token.map[0] + 1}"


def run_page(page: Path) -> None:
    """Runs all blocks of a page that run, in the working folder."""
    names: dict[str, Any] = {}
    for block in blocks(page):
        run(block, names)


def run(block: Block, names: dict[str, Any]) -> None:
    """Runs a block in the working folder; `names` are those of the page's Python blocks."""
    if block.kind == "file":
        Path(block.about).write_text(block.text)
    elif block.kind == "run" and block.language == "python":
        exec(compile(block.text, block.where, "exec"), names)
    elif block.kind == "run":
        for ours, lines in groupby(_lines(block.text), _is_plain):
            runner = _run_here if ours else _run_shell
            runner(list(lines), block)


def check(block: Block) -> None:
    """What can be said of a block that is not run: its flags, extras, files and grammar."""
    if block.language == "python":
        ast.parse(block.text)
    if block.language != "bash":
        return
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for line in _lines(block.text):
        for words in _commands(line):
            _check_words(words, block)


def _check_words(words: list[str], block: Block) -> None:
    name, *rest = words
    if "beam-flowers" in words:
        command, *arguments = [*words[words.index("beam-flowers") + 1 :], ""]
        if command in COMMANDS:
            parser = command_parser(make_parser(), command)
            assert parser is not None
            parser.parse_args(split_flags(arguments[:-1], parser).ours)
    elif name == "pip":
        known = metadata("beam-flowers").get_all("Provides-Extra") or []
        for extras in re.findall(r"^(?:\.|beam-flowers)\[(.*)\]$", "\n".join(rest), re.MULTILINE):
            assert set(extras.split(",")) <= set(known), block.where
    elif name == "python" and rest[0].endswith(".py"):
        assert (ROOT / rest[0]).exists(), f"{block.where}: no {rest[0]}"


def _lines(text: str) -> list[str]:
    """The lines of a script, those that go on in the next one joined, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.split("#")[0].strip()]


def _is_plain(line: str) -> bool:
    """Whether a line is a command of ours that no shell has to read: then no process is started,
    which would load TensorFlow each time."""
    return line.startswith("beam-flowers ") and not _SHELL.search(line.partition(" #")[0])


def _run_here(lines: list[str], block: Block) -> None:
    for line in lines:
        code = main(shlex.split(line, comments=True)[1:])
        assert code == 0, f"{block.where}: exit code {code}: {line}"


def _run_shell(lines: list[str], block: Block) -> None:
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        env={**os.environ, "PATH": own},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, f"{block.where}: {result.stdout[-1000:]}{result.stderr[-2000:]}"


def _commands(line: str) -> list[list[str]]:
    """The words of each command of a line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
    lexer.whitespace_split = True
    split = groupby(lexer, lambda word: set(word) <= set("|&;"))
    return [list(words) for between, words in split if not between]
