"""Counts what the package is made of: `python benchmarks/house.py [FOLDER]`.

Lines of code are those that hold a token other than a comment or a docstring. The core is
`beam_flowers/` without `contrib/`. Equal lines are pylint's: `pylint --disable=all
--enable=duplicate-code --min-similarity-lines=6 beam_flowers` (needs `pip install pylint`).
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections import Counter
from pathlib import Path
from typing import NamedTuple

_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}
_SMALL = 4
"""A helper that is used once and has fewer lines is better read where it is used."""


class Module(NamedTuple):
    """Counts of one file.

    Attributes:
        code: lines of code.
        comments: lines that hold a comment.
        functions: (name, lines of code in its body) of each function.
        names: how often each identifier is read.
    """

    code: int
    comments: int
    functions: list[tuple[str, int]]
    names: Counter[str]


def measure(path: Path) -> Module:
    """Counts the lines and functions of a Python file."""
    text = path.read_text()
    tree = ast.parse(text)
    documented: set[int] = set()
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                documented.update(range(child.lineno, (child.end_lineno or child.lineno) + 1))
    code: set[int] = set()
    comments: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in _LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    code -= documented
    functions = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = range(node.body[0].lineno, (node.end_lineno or node.lineno) + 1)
            functions.append((node.name, len(code & set(body))))
    names = Counter(re.findall(r"[A-Za-z_]\w*", re.sub(r"(?m)^\s*(async )?def \w+", "", text)))
    return Module(len(code), len(comments), functions, names)


def main(base: Path) -> None:
    """Prints the table."""
    rooms = {
        "core": [p for p in (base / "beam_flowers").rglob("*.py") if "contrib" not in p.parts],
        "contrib": list((base / "beam_flowers" / "contrib").rglob("*.py")),
        "tests": list((base / "tests").rglob("*.py")),
    }
    print("| | modules | code | functions | median/p90/max | small, used once | comments |")
    print("|---|---|---|---|---|---|---|")
    package = [measure(p) for room in ("core", "contrib") for p in rooms[room]]
    names = sum((module.names for module in package), Counter())
    for room, paths in rooms.items():
        modules = [measure(path) for path in paths]
        lengths = sorted(n for module in modules for _, n in module.functions)
        code = sum(module.code for module in modules)
        comments = sum(module.comments for module in modules)
        once = sum(names[name] == 1 and n < _SMALL for m in modules for name, n in m.functions)
        spread = (statistics.median(lengths), lengths[len(lengths) * 9 // 10], lengths[-1])
        print(
            f"| {room} | {len(paths)} | {code} | {len(lengths)} | "
            f"{spread[0]:.0f}/{spread[1]}/{spread[2]} | {once} | {comments / code:.1%} |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
