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
