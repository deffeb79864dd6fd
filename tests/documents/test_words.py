"""Plain words: docstrings begin with verb and object, and define nothing by riddles."""

import ast
import re

import pytest
from places import ROOT

MODULES = sorted((ROOT / "beam_flowers").rglob("*.py"))
RIDDLE = re.compile(
    r"^(What|Whether|Who|Whom|Whose|Where|Which|How|Why|Whatever|Whoever|As|See|For)\b"
    r"|\b(is|are|was) none\b|\bwhoever\b|\bof one's own\b|\bas far as\b"
)
# A verb in the third person.
VERB = re.compile(r"^[A-Z][a-z-]*s[ ,]")

TEXTS = sorted(
    path
    for pattern in (
        "beam_flowers/**/*.py",
        "beam_flowers/**/*.html",
        "beam_flowers/**/*.js",
        "docs/**/*.md",
        "examples/*",
        "pipelines/*.py",
        "*.md",
    )
    for path in ROOT.glob(pattern)
    if path.name not in ("CHANGELOG.md", "CONTRIBUTING.md")
)
OLD_WORDS = re.compile(
    r"pictures?\b|\bown labels?\b|\btrue labels?\b|\bground truth\b|\bfeature vectors?\b"
    r"|\btold\b|\bwhoever\b|bottlenecks?\b",
    re.IGNORECASE,
)
"""The last column of CONTRIBUTING's glossary, and the words below it."""
OLD_NAMES = re.compile(
    # Kept for a minor version, or names of retrain.py's files and of a TensorFlow Hub signature.
    r"classify_pictures|\w*Bottleneck\w*|\.?bottlenecks\b\(?|import[-_]bottlenecks|image_feature_vector"
)
OF_RETRAIN = re.compile(r"retrain|import_bottlenecks|projector")


def described(path):
    """Yields (place, docstring, must begin with a verb) of a module and all in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                decorators = [ast.unparse(d) for d in getattr(node, "decorator_list", [])]
                is_noun = isinstance(node, ast.ClassDef) or any("property" in d for d in decorators)
                place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"
                yield place, text, not is_noun


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_say_what_a_function_does(path):
    for place, text, needs_verb in described(path):
        first = text.split("\n\n")[0]
        assert not RIDDLE.search(first), f"{place}: {first}"
        assert VERB.match(first + " ") or not needs_verb, f"{place}: begin with a verb: {first}"


def test_the_glossary_names_the_words_that_are_refused():
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Glossary")[1].split("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| ")]
    words = {word.strip() for row in rows for word in row[2].split(",")} - {"", "not"}
    assert {"picture", "bottleneck"} < words
    assert all(OLD_WORDS.fullmatch(word) for word in words)
    assert len(rows) == 21


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_one_word_a_thing(path):
    is_of_retrain = OF_RETRAIN.search(str(path.relative_to(ROOT)))
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = OLD_WORDS.search(OLD_NAMES.sub("", line))
        is_kept = found and is_of_retrain and "bottleneck" in found.group().lower()
        assert not found or is_kept, f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("What a head says.", True),
        ("Whether the nonce is there.", True),
        ("Returns the parts, if there are none, nothing.", True),
        ("The flags of a command.", True),
        ("Returns the flags of a command.", False),
    ],
)
def test_riddles_are_found(tmp_path, monkeypatch, text, fails):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    module = tmp_path / "module.py"
    module.write_text(f'"""Holds a test."""\n\n\ndef run():\n    """{text}"""\n')
    if fails:
        with pytest.raises(AssertionError):
            test_docstrings_say_what_a_function_does(module)
    else:
        test_docstrings_say_what_a_function_does(module)
