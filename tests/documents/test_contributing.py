"""CONTRIBUTING and ARCHITECTURE name what exists, and draw the layers that hold."""

import ast
import re

import pytest
from places import ROOT

PACKAGE = ROOT / "beam_flowers"
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md"]

FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)#:]+)\)")
PATH_AND_NAME = re.compile(r"([\w.-]+(?:/[\w.-]+)*/?)(?:: ?(\w[\w.]*))?")
MODULE = re.compile(r"beam_flowers(?:\.\w+)+")
ROOM = re.compile(r"^ *(\d+)  (\w+)(?:\.py|/) ", re.MULTILINE)


def references(text):
    """Paths with a name in them or None, and the names of modules, that a page has in backticks.

    `STORE/...` is a path in a user's store. What a fence shows is no reference.
    """
    plain = FENCE.sub("", text)
    for code in CODE.findall(plain):
        whole = PATH_AND_NAME.fullmatch(" ".join(code.split()))
        for found in [whole] if whole else map(PATH_AND_NAME.fullmatch, code.split()):
            if found and looks_like_a_path(found[1]):
                yield found[1], found[2]
        for name in MODULE.findall(code):
            yield name, None
    for path in LINK.findall(plain):
        yield path, None


def looks_like_a_path(text):
    return not text.startswith("STORE/") and ("/" in text or text.endswith((".py", ".md", ".toml")))


def names_in(path):
    """Functions, classes, methods as `Class.method`, and what a module assigns."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            yield node.name
            yield from (
                f"{node.name}.{own.name}" for own in node.body if isinstance(own, ast.FunctionDef)
            )
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def exists(path, name):
    if MODULE.fullmatch(path):
        path = path.replace(".", "/")
        return (ROOT / path).is_dir() or (ROOT / f"{path}.py").is_file()
    there = next((base / path for base in (PACKAGE, ROOT) if (base / path).exists()), None)
    return there is not None and (name is None or name in names_in(there))


def missing(text):
    """The references of a page that lead nowhere."""
    return [found for found in references(text) if not exists(*found)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_and_name_of_a_page_exists(page):
    text = page.read_text()
    assert len(list(references(text))) > 20
    assert missing(text) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("`store/planning.py`", ("store/planning.py", None)),
        ("`storage/`", ("storage/", None)),
        ("`store/plan.py: make_plans`", ("store/plan.py", "make_plans")),
        ("`store/plan.py:make_plans`", ("store/plan.py", "make_plans")),
        ("`scoring/decision.py: Thresholds.gives`", ("scoring/decision.py", "Thresholds.gives")),
        ("`store/plan.py:\n  make_plans`", ("store/plan.py", "make_plans")),
        ("`python tests/absent.py TARGET`", ("tests/absent.py", None)),
        ("`python -m beam_flowers.jobs.cancel`", ("beam_flowers.jobs.cancel", None)),
        ("[open](docs/opened.md)", ("docs/opened.md", None)),
    ],
)
def test_what_is_gone_is_found(text, found):
    assert missing(text) == [found]


def test_what_is_there_is_not_missed():
    good = "`.ci/run --one` `store/` `pyproject.toml` `STORE/__work` `.[dev,aws]` [a](docs/adr)"
    good += " `cli/parser.py: COMMANDS` `scoring/decision.py: Thresholds.given`"
    good += " `beam_flowers.yaml_transforms`"
    assert len(list(references(good))) == 7
    assert missing(good) == []


def test_ten_questions_are_answered_by_path():
    rows = re.findall(r"^\| ((?:Where|What|Add) [^|]+) \| (.+) \|$", PAGES[0].read_text(), re.M)
    assert len(rows) >= 10
    for question, answer in rows:
        assert any(path.endswith(".py") for path, _ in references(answer)), question


def test_the_rooms_are_drawn_as_lint_imports_holds_them():
    (declared,) = re.findall(
        r"^layers = (\[.*?^\])", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE
    )
    layers = [set(layer.split(" | ")) for layer in reversed(ast.literal_eval(declared))]
    drawn = [set() for _ in layers]
    for number, room in ROOM.findall(PAGES[1].read_text()):
        drawn[int(number) - 1].add(room)
    assert drawn == layers
