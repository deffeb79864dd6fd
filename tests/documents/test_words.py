"""Plain words: first sentences of docstrings are verb and object, and one thing has one word."""

import ast
from typing import NamedTuple

from places import ROOT

PACKAGE = sorted((ROOT / "beam_flowers").rglob("*.py"))

# CONTRIBUTING.md has the glossary. Names that users' files, flags and notebooks hold stay.
WORDS = {
    r"pictures?": "image",
    r"photographs?": "photo, of a person's files, or image",
    r"bottlenecks?": "embedding",
    r"folds? of images": "images of a fold",
}
RIDDLES = (
    r"^(What|Whether|Who|Whom|Where|Which|How|Why|As|See|For|Like|If|None)\b",
    r"\b(is|are) none\b",
    r"\bwhoever\b",
    r"\bas far as\b",
    r"\bof one's own\b",
    r"\bso many\b",
    r"\bbut for\b",
    r"\bis no [a-z]+ (any more|at all)\b",
)


class Text(NamedTuple):
    """A docstring and the line that it begins in."""

    where: str
    text: str
    is_function: bool


def docstrings(path):
    """Yields the docstrings of modules, classes, functions and fields."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                named = isinstance(node, ast.FunctionDef) and not any(
                    "property" in ast.unparse(decorator) for decorator in node.decorator_list
                )
                line = getattr(node, "lineno", 1)
                yield Text(f"{path.relative_to(ROOT)}:{line}", text, named)
