"""Breaks the rules of the store, the split and the labels in small ways; names what no test sees.

    python tests/mutants.py                     # all modules: a quarter of an hour on one core
    python tests/mutants.py ledger split        # some of them, see TARGETS
    python tests/mutants.py ledger --only DESC  # mutants whose name contains a text
    python tests/mutants.py commits --list      # their names, without a run

Each mutant is one change of one module, in Python by its syntax tree and in SQL by patterns: a
comparison or an AND turned round, a condition, a statement or an argument left out, a number one
off, a result swapped. It is applied to a copy of the package, and the module's fast tests run on
that. A mutant that they let pass survives. The exit code is 1 if one does that `EXPLAINED` does
not excuse.

Not mutated: annotations, docstrings, messages of errors, `strict=` of zip, indexes of tables (they
only speed a join up) and their columns. pytest does not collect this file.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from importlib.util import cache_from_source
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 30
"""Seconds of a run after which a mutant counts as killed: it loops."""


class Target(NamedTuple):
    """Modules of the package, and the files of tests that have to notice a change of them."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = {
    "ledger": Target(("store/ledger.py", "store/ledger_sql.py"), ("test_ledger.py",)),
    "split": Target(("head/split.py",), ("test_split.py",)),
    "rule": Target(("scores/rule.py", "scores/ranking.py"), ("test_rules.py",)),
    "plan": Target(("store/plan.py",), ("test_plan.py", "test_units.py")),
    "commits": Target(("store/commits.py",), ("test_commits.py", "test_store.py")),
}

EXPLAINED = {
    "only memory and speed": (
        "ledger._BLOCK: ",
        "ledger._CACHE_KIB: ",
        'execute(f"PRAGMA cache_size ... => pass',
        'execute("PRAGMA shrink_memory") => pass',
        "make_plan: ... => parts = [False or describe_part",
        "_stale: ... => names = set(names)",
        "commits._AT_ONCE: ",
        "_for_each: ... => with ThreadPoolExecutor(2",
        "_for_each: ... => with ThreadPoolExecutor(1 if not",
    ),
    "one row is fetched; a query in the place of a value gives its first row": (
        '_refuse_two_labels: ... => ... > 1 "',
        '_refuse_two_labels: ... => ... LIMIT 2"',
        "FROM reasons r ... => ... listing.uri )",
        "FROM reasons r ... => ... LIMIT 2)",
    ),
    "SQLite groups by sorting; ORDER BY says that the order is meant": (
        'found_rejects: "ORDER BY uri" => ""',
        'part_names: ... => ... GROUP BY p.id "',
        "shared_contents: ... => ... > 1 LIMIT ?) ",
        "SOURCES: ... => GROUP BY s.sha256",
    ),
    "of the pairs of labels the one with the smallest and the largest is taken anyway": (
        'shared_contents: "WHERE a.label < b.label ... => " GROUP BY t.sha256"',
        'shared_contents: ... => "WHERE a.label <= b.label',
    ),
    "any number above all rowids will do": (
        "LISTED: ... => ... (2 << 50)",
        "LISTED: ... => ... (1 << 49)",
        "LISTED: ... => ... (1 << 51)",
    ),
    "`doubtful` is only ever asked whether a size is in it": (
        "DOUBT: ... => SELECT bytes FROM fresh WHERE bytes IN (",
        "DOUBT: ... => UNION ALL ",
    ),
    "FRESH and DOUBTFUL say themselves where files without a size go": (
        "DOUBT: ... => ... HAVING count(*) > :unit_rows ;",
    ),
    "the lowest bit decides only between files of more than 3 GB": (
        "FRESH: ... => ... 4294967294",
    ),
    "no content is known whose place is a whole percent": (
        "split._code_at: ... => if position <= ",
        "split._code_at: ... => ... if position <= ",
    ),
    "what moves to training lies below its side, what moves to validation above": (
        "nearest: ... => start, end = ((self.bounds[1], 101), ",
        "nearest: ... => start, end = ((self.bounds[1], 99), ",
        "nearest: ... => start, end = ((self.bounds[1], 100), (1, ",
    ),
    "a part taken in a second time has only rows that are double": (
        "fill_ledger: ... => for name in sorted(set(work_parts(place))):",
    ),
    "the order is not used": (
        "_stale: ... => return encoded_otherwise(place, list(names)",
        "_present: ... => folders = [f for f in list(",
        "_present: ... => return list(",
    ),
    "the units themselves name their file": ('"XXunits.parquet"',),
    "`files` makes the folders of what it writes, and takes what is not there for deleted": (
        "commit: files.make_folder(files.parent(uri)) => pass",
        "move: files.make_folder(files.parent(place.published(name))) => pass",
        "delete: ... => with contextlib.suppress():",
    ),
    "what this run just wrote is read back as this run's": ("commits.commit: return True => pass",),
    "False is 0 as a float32": ("Rule.bar: ... => ... self.min_margin or False",),
    "the bit that is lost is that of the sign, the same in all scores >= 0": (
        "best_first: ... => ... np.uint64(33)",
    ),
}
"""Why no test can notice a mutant -> parts of the names of such, ` ... ` for anything between."""

NOT_MUTATED = {"commits": ("vacuum", "_vacuum", "_table_files")}

_SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|FROM|JOIN)\b")
_COMPARISONS = {
    "==": "!=",
    "!=": "==",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "is": "is not",
    "is not": "is",
    "in": "not in",
    "not in": "in",
}
_ARITHMETIC = {"+": "-", "-": "+", "*": "//", "//": "*", "/": "*", "%": "*", "**": "*"}
_ARITHMETIC |= {"<<": ">>", ">>": "<<", "&": "|", "^": "&"}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "filterfalse": "filter"}
_STATES = {"gone": "kept", "stale": "kept", "changed": "kept", "kept": "changed", "double": "kept"}
_TERM_ENDS = re.compile(
    r"\s*(?:AND|OR|THEN|ORDER|GROUP|UNION|WHEN|ELSE|HAVING|LIMIT|LEFT|JOIN)\b|\s*[;\"]"
)
_SQL_SWAPS = [
    (r"\bAND\b", "OR"),
    (r"\bOR\b", "AND"),
    (r"\bIS NOT\b", "IS"),
    (r"\bIS (?!NOT)", "IS NOT "),
    (r"\bNOT IN\b", "IN"),
    (r"(?<!NOT )\bIN\b", "NOT IN"),
    (r"(?<!IS )\bNOT (?=[a-z:])", ""),
    (r"(?<= )=(?= )", "<>"),
    (r" > ", " >= "),
    (r" > ", " < "),
    (r" < ", " <= "),
    (r" < ", " > "),
    (r" <> ", " = "),
    (r" DESC\b", ""),
    (r"\bASC\b", "DESC"),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bDISTINCT ", ""),
    (r"\bUNION\b(?! ALL)", "UNION ALL"),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r"\bPARTITION BY \w+", ""),
    (r"\bGROUP BY [\w.]+(, \w+)*", ""),
    (r"\bLIMIT [\d?]+", ""),
    (r" \+ ", " - "),
    (r" \* ", " + "),
    (r" & ", " | "),
    (r" << ", " >> "),
]


class Mutant(NamedTuple):
    """One change of a module's bytes; `name` says what changes, in which function or constant."""

    name: str
    module: str
    source: bytes


Edit = tuple[int, int, str, str]
"""Start, end, the text instead, and the scope it is in."""


class _Python(ast.NodeVisitor):
    """Collects the edits of one module."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.scope: list[str] = []
        self.edits: list[Edit] = []

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def text(self, node: ast.expr | ast.stmt) -> str:
        start, end = self.span(node)
        return self.source[start:end].decode()

    def edit(self, start: int, end: int, text: str) -> None:
        self.edits.append((start, end, text, ".".join(self.scope)))

    def replace(self, node: ast.expr | ast.stmt, text: str) -> None:
        self.edit(*self.span(node), text)

    def between(self, left: ast.expr, right: ast.expr, pairs: dict[str, str]) -> None:
        """Swaps the operator that stands between two operands."""
        start, end = self.span(left)[1], self.span(right)[0]
        gap = self.source[start:end].decode()
        operator = re.sub(r"[()\s]+", " ", gap).strip()
        if operator in pairs:
            at = re.search(re.escape(operator).replace(r"\ ", r"\s+"), gap)
            assert at
            self.edit(start + at.start(), start + at.end(), pairs[operator])

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.scope.append(node.name)
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(default)
        for statement in node.body:
            self.visit(statement)
        self.scope.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.scope.append(node.name)
        for statement in node.body:
            self.visit(statement)
        self.scope.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        target = node.targets[0]
        is_global = not self.scope and isinstance(target, ast.Name)
        if is_global:
            is_union = isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.BitOr)
            if is_union or isinstance(node.value, ast.Subscript):
                return  # An alias of a type.
            self.scope.append(target.id if isinstance(target, ast.Name) else "")
        if isinstance(target, ast.Subscript | ast.Attribute):
            self.replace(node, "pass")
        self.visit(node.value)
        if is_global:
            self.scope.pop()

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.replace(node, "pass")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return  # A docstring.
        self.replace(node, "pass")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.replace(node, "pass")

    def visit_If(self, node: ast.If) -> None:
        for statement in node.body:
            if isinstance(statement, ast.Return | ast.Continue):
                self.replace(statement, "pass")
        self.negate(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def negate(self, test: ast.expr) -> None:
        # Comparisons, and, or, not and constants are turned round where they are visited.
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
            self.replace(test, f"not ({self.text(test)})")

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self.replace(condition, "True")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, right in pairwise(operands):
            self.between(left, right, _COMPARISONS)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in pairwise(node.values):
            self.between(left, right, {"and": "or", "or": "and"})
        for value in node.values:
            self.replace(value, str(isinstance(node.op, ast.And)))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not | ast.Invert | ast.USub):
            self.replace(node, f"({self.text(node.operand)})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.between(node.left, node.right, _ARITHMETIC)
        if isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.Add):
            self.replace(node, f"({self.text(node.left)})")
        if isinstance(node.op, ast.BitOr | ast.BitAnd):
            self.replace(node, f"({self.text(node.right)})")
        self.generic_visit(node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if isinstance(node.type, ast.Tuple):
            for element in node.type.elts:
                others = [self.text(e) for e in node.type.elts if e is not element]
                self.replace(node.type, f"({', '.join(others)},)")
        elif node.type:
            self.replace(node.type, "()")
        for statement in node.body:
            self.visit(statement)

    def visit_Call(self, node: ast.Call) -> None:
        name = self.text(node.func).split(".")[-1]
        if name in ("TypeVar", "field"):
            return
        if name in _FUNCTIONS:
            self.replace(node.func, _FUNCTIONS[name])
        if name in ("filter", "filterfalse"):
            self.replace(node, self.text(node.args[1]))
        if name == "difference" and isinstance(node.func, ast.Attribute):
            self.replace(node, self.text(node.func.value))
        if name == "sorted":
            arguments = [self.text(argument) for argument in node.args]
            self.replace(node, f"{'sorted' if node.keywords else 'list'}({', '.join(arguments)})")
        if name == "suppress":
            self.replace(node, f"{self.text(node.func)}()")
        self.visit(node.func)
        for argument in node.args:
            self.visit(argument)
        for keyword in node.keywords:
            if keyword.arg != "strict":
                self.visit(keyword.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self.string(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.replace(node, str(not node.value))
        elif isinstance(node.value, int | float):
            self.replace(node, str(node.value + 1))
            if node.value:
                self.replace(node, str(node.value - 1))
        elif isinstance(node.value, str):
            self.string(node)

    def string(self, node: ast.expr) -> None:
        start, end = self.span(node)
        text = self.source[start:end].decode()
        if _SQL.search(text):
            for at, to, other in _sql_edits(text):
                if re.search(r"\{[^}]*$", text[:at]):
                    continue  # Python in an f-string.
                first = start + len(text[:at].encode())
                self.edit(first, first + len(text[at:to].encode()), other)
        else:
            quotes = re.match(r"\w*(\"\"\"|\"|')(?!\1)", text)
            if quotes:
                self.edit(start + quotes.end(), start + quotes.end(), "XX")


def _sql_edits(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and other text of each change of some SQL."""
    for pattern, other in _SQL_SWAPS:
        for match in re.finditer(pattern, text):
            clause = re.split(r"\b(?:WHERE|SELECT|CASE)\b", text[: match.start()])[-1]
            if pattern.startswith("(?<= )=") and re.search(r"\bSET\b", clause):
                continue  # An assignment, no comparison.
            yield match.start(), match.end(), other
    for match in re.finditer(r"(?<![\w'?])\d+\b(?!\}|\*)", text):
        yield match.start(), match.end(), str(int(match[0]) + 1)
        if int(match[0]) > 0:
            yield match.start(), match.end(), str(int(match[0]) - 1)
    for match in re.finditer(r"\b(THEN|ELSE) '(\w+)'", text):
        if match[2] in _STATES:
            yield match.start(2), match.end(2), _STATES[match[2]]
    for match in re.finditer(r"\bTHEN (\S+) ELSE (\S+)(?= END)", text):
        yield match.start(), match.end(), f"THEN {match[2]} ELSE {match[1]}"
    for match in re.finditer(r"\bIN (\('\w+', '\w+'\))", text):
        for state in re.findall(r"'\w+'", match[1]):
            yield match.start(1), match.end(1), f"({state})"
    for match in re.finditer(r"= '\w+'", text):
        if text[match.start() - 6 : match.start()].strip() != "message":
            yield match.end() - 1, match.end() - 1, "XX"
    for match in re.finditer(r"\b(AND|OR) ", text):
        yield match.start(), _term_end(text, match.end()), ""
    for match in re.finditer(r"(?:\bWHEN |\bWHERE |\bHAVING |\()(?=[\w:(])", text):
        end = _term_end(text, match.end())
        if conjunction := re.match(r"\s*(AND|OR)\s+", text[end:]):
            yield match.end(), end + conjunction.end(), ""
        elif match[0] == "WHERE ":
            yield match.start(), end, ""
    for match in re.finditer(r"\bORDER BY ", text):
        yield match.start(), _term_end(text, match.end()), ""
    for match in re.finditer(r"\bUPDATE listing .*?whole[^;]*;", text, re.DOTALL):
        yield match.start(), match.end(), ""


def _term_end(text: str, start: int) -> int:
    """Where the condition that begins at `start` ends."""
    depth = 0
    for at in range(start, len(text)):
        if depth == 0 and _TERM_ENDS.match(text, at):
            return at
        depth += (text[at] == "(") - (text[at] == ")")
        if depth < 0:
            return at
    return len(text)


def mutants(target: str) -> list[Mutant]:
    """All mutants of a target, in the order of its source."""
    found = []
    for module in TARGETS[target].modules:
        source = (ROOT / "beam_flowers" / module).read_bytes()
        visitor = _Python(source)
        visitor.visit(ast.parse(source))
        again: Counter[str] = Counter()
        for start, end, text, scope in sorted(set(visitor.edits)):
            if scope in NOT_MUTATED.get(target, ()):
                continue
            changed = source[:start] + text.encode() + source[end:]
            name = f"{Path(module).stem}.{scope}: {_change(source, start, end, text)}"
            again[name] += 1
            suffix = f" #{again[name]}" if again[name] > 1 else ""
            found.append(Mutant(name + suffix, module, changed))
    return found


def _change(source: bytes, start: int, end: int, text: str) -> str:
    """The line or lines as they are and as they would be."""
    first = source.rfind(b"\n", 0, start) + 1
    last = source.find(b"\n", end)
    before, after = source[first:start].decode(), source[end:last].decode()
    lines = (before + source[start:end].decode() + after, before + text + after)
    return " => ".join(" ".join(line.split()) for line in lines)


class Bench:
    """A copy of the package, on which tests of the repository run."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        package = self.folder / "beam_flowers"
        ignored = shutil.ignore_patterns("__pycache__", "data")
        shutil.copytree(ROOT / "beam_flowers", package, ignore=ignored)
        for name in ("pandas", "pyarrow.parquet"):  # For all the forks at once.
            import_module(name)
        (package / "data").symlink_to(ROOT / "beam_flowers" / "data")
        compileall.compile_dir(package, quiet=1)

    def passes(self, tests: tuple[str, ...], module: str = "", source: bytes = b"") -> bool:
        """True if the tests pass, with `source` as the module where one is named."""
        if not module:
            return self._run(tests)
        path = self.folder / "beam_flowers" / module
        original = path.read_bytes()
        # Of a file of the same second and size it would be taken for up to date.
        Path(cache_from_source(path)).unlink(missing_ok=True)
        path.write_bytes(source)
        try:
            return self._run(tests)
        finally:
            path.write_bytes(original)

    def _run(self, tests: tuple[str, ...]) -> bool:
        # A fork has pytest and Arrow already, which take longer to import than the tests to run.
        child = multiprocessing.get_context("fork").Process(target=self._pytest, args=(tests,))
        child.start()
        child.join(TIMEOUT)
        if child.exitcode is None:
            child.kill()
            child.join()
        return child.exitcode == 0

    def _pytest(self, tests: tuple[str, ...]) -> NoReturn:
        sys.path[0] = str(self.folder)
        sys.dont_write_bytecode = True
        os.chdir(self.folder)
        os.dup2(os.open("output.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 1)
        os.dup2(1, 2)
        options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
        options += ["-c", str(ROOT / "pyproject.toml"), *(str(ROOT / "tests" / n) for n in tests)]
        os._exit(pytest.main(options))


def is_explained(name: str) -> bool:
    """True if `EXPLAINED` has a reason why the mutant survives."""
    patterns = chain(*EXPLAINED.values())
    return any(re.search(re.escape(p).replace(r"\ \.\.\.\ ", ".*"), name) for p in patterns)


def run(bench: Bench, target: str, chosen: list[Mutant]) -> int:
    """Runs a target's mutants and prints what became of them; returns how many survive."""
    tests = tuple(n for n in TARGETS[target].tests if (ROOT / "tests" / n).exists())
    if not bench.passes(tests):
        sys.exit(f"{target}: {', '.join(tests)} fail as they are")
    for module in TARGETS[target].modules:
        if bench.passes(tests, module, b"raise SystemError"):
            sys.exit(f"{target}: {', '.join(tests)} do not import the copy of {module}")
    started, killed, explained, survived = time.monotonic(), 0, 0, 0
    for mutant in chosen:
        if not bench.passes(tests, mutant.module, mutant.source):
            killed += 1
            if is_explained(mutant.name):
                print(f"  explained, yet killed  {mutant.name}", flush=True)
        elif is_explained(mutant.name):
            explained += 1
        else:
            survived += 1
            print(f"  survived  {mutant.name}", flush=True)
    seconds = time.monotonic() - started
    print(
        f"{target}: {len(chosen)} mutants, {killed} killed, {explained} explained,"
        f" {survived} survived, {seconds:.0f} s",
        flush=True,
    )
    return survived


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="|".join(TARGETS), help="default: all")
    parser.add_argument("--only", default="", help="mutants whose name contains this text")
    parser.add_argument("--list", action="store_true", help="only print their names")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets).difference(TARGETS):
        parser.error(
            f"no such target: {', '.join(sorted(unknown))}; choose of {', '.join(TARGETS)}"
        )
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(folder)
        for target in arguments.targets or TARGETS:
            chosen = [m for m in mutants(target) if arguments.only in m.name]
            if arguments.list:
                print("\n".join(m.name for m in chosen))
            else:
                survived += run(bench, target, chosen)
    return min(survived, 1)


if __name__ == "__main__":
    sys.exit(main())
