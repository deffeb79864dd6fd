"""Small changes of a module of Python, and of the SQL in its texts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

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


Edit = tuple[int, int, str, str]
"""Start, end, the text instead, and the scope it is in."""


def edits(source: bytes) -> list[Edit]:
    """All changes of a module, each once, in the order of its source."""
    visitor = _Python(source)
    visitor.visit(ast.parse(source))
    return sorted(set(visitor.edits))


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
