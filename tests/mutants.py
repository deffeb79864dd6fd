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
import compileall
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from importlib.util import cache_from_source
from itertools import chain
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
from mutations import edits
from places import ROOT

TESTS = ROOT / "tests" / "unit"
TIMEOUT = 30
"""Seconds of a run after which a mutant counts as killed: it loops."""


class Target(NamedTuple):
    """Modules of the package, and files below `TESTS` that have to notice a change of them."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


TARGETS = {
    "ledger": Target(
        ("store/ledger.py", "store/ledger_sql.py"),
        ("store/test_ledger.py", "store/test_ledger_units.py"),
    ),
    "split": Target(("head/split.py",), ("head/test_split.py",)),
    "rule": Target(("scoring/decision.py", "scoring/ranking.py"), ("scoring/test_decision.py",)),
    "plan": Target(("store/plan.py",), ("store/test_plan.py", "store/test_work_units.py")),
    "outcomes": Target(("store/outcomes.py",), ("store/test_outcomes.py",)),
    "rebase": Target(("store/rebase.py",), ("store/test_rebase.py",)),
    "commits": Target(("store/commits.py",), ("store/test_commits.py", "store/test_store.py")),
}

EXPLAINED = {
    "only memory and speed": (
        "ledger._BLOCK: ",
        "ledger._CACHE_KIB: ",
        'execute(f"PRAGMA cache_size ... => pass',
        'execute("PRAGMA shrink_memory") => pass',
        "_standing_parts: ... => parts = [False or describe_part",
        "_stale: ... => names = set(names)",
        "commits._AT_ONCE: ",
        "_Change.merged: self._checked |= new.keys() => pass",
        "_Change.merged: ... => ... new.items() if True):",
        "_for_each: ... => with ThreadPoolExecutor(2",
        "_for_each: ... => with ThreadPoolExecutor(1 if not",
        "UNCHANGED: ... => FROM found",
        "plan._AT_ONCE: ",
        "_outdated: return [False] * len(table) => pass",
    ),
    "a file below a folder that is not there is not there either": (
        'ledger._went_with: if uri.startswith(files.join(root, "")): => if False',
        "ledger._went_with: return True => pass",
    ),
    "one row is fetched; a query in the place of a value gives its first row": (
        "GAP: LIMIT 1 => ",
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
        'ABSENT: ... => ... GROUP BY 1 "',
        "listing_name: ... => roots = list(",
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
    "an address of an object store is no link of this machine": (
        "refuse_links: ... => if True and os.path.islink(folder):",
    ),
    "only which of several links is named": (
        "publish: ... => refuse_links(list(folders - {root}))",
    ),
    "EXISTS asks only if there is a row": (
        "LEAVE_OUT: SELECT 1 FROM held h => ",
        "CURRENT: SELECT 1 FROM listing l => ",
        "STATES: OR EXISTS (SELECT 1 FROM roots r ... => OR EXISTS (SELECT ",
        "STATES: OR EXISTS (SELECT 1 FROM source o ... => OR EXISTS (SELECT ",
        "_MAY_BE_LISTED: OR EXISTS (SELECT 1 FROM fresh ... => OR EXISTS (SELECT ",
    ),
    "only the join asks if a part is committed, and these come after it": (
        "_add_others: ... => ... False, False, number)",
    ),
    "the units themselves name their file": ('"XXunits.parquet"',),
    "what this run just wrote is read back as this run's": ("commits.commit: return True => pass",),
    "any word will do that tells one kind of unit from another": (
        'unit_key: ... => content = ["XX',
    ),
    "what was put is read again": ("outcomes.settle: return Settled(outcome, more) => pass",),
    "the next look finds what was committed": ("commit_on_newest: return own => pass",),
    "False is 0 as a float32": (
        "AcceptanceRule.thresholds_for: ... => ... self.min_margin or False",
    ),
    "the bit that is lost is that of the sign, the same in all scores >= 0": (
        "best_first: ... => ... np.uint64(33)",
    ),
}
"""Why no test can notice a mutant -> parts of the names of such, ` ... ` for anything between."""


class Mutant(NamedTuple):
    """One change of a module's bytes; `name` says what changes, in which function or constant."""

    name: str
    module: str
    source: bytes


def mutants(target: str) -> list[Mutant]:
    """All mutants of a target, in the order of its source."""
    found = []
    for module in TARGETS[target].modules:
        source = (ROOT / "beam_flowers" / module).read_bytes()
        again: Counter[str] = Counter()
        for start, end, text, scope in edits(source):
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
        # A fork has pytest already. Arrow starts threads, which a fork could wait for without end:
        # it is left to the fork.
        child = multiprocessing.get_context("fork").Process(target=self._pytest, args=(tests,))
        child.start()
        child.join(TIMEOUT)
        if child.exitcode is None:
            child.kill()
            child.join()
            print(f"  a run of more than {TIMEOUT} s is taken for an endless loop", flush=True)
        elif child.exitcode < 0:
            sys.exit(f"a run was ended by signal {-child.exitcode}, for want of memory perhaps")
        return child.exitcode == 0

    def _pytest(self, tests: tuple[str, ...]) -> NoReturn:
        sys.path[0] = str(self.folder)
        sys.dont_write_bytecode = True
        os.chdir(self.folder)
        os.dup2(os.open("output.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 1)
        os.dup2(1, 2)
        options = ["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
        options += ["-c", str(ROOT / "pyproject.toml"), *(str(TESTS / n) for n in tests)]
        os._exit(pytest.main(options))


def is_explained(name: str) -> bool:
    """True if `EXPLAINED` has a reason why the mutant survives."""
    patterns = chain(*EXPLAINED.values())
    return any(re.search(re.escape(p).replace(r"\ \.\.\.\ ", ".*"), name) for p in patterns)


def run(bench: Bench, target: str, chosen: list[Mutant]) -> int:
    """Runs a target's mutants and prints what became of them; returns how many survive."""
    tests = TARGETS[target].tests
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
