"""Compares the public API with that of the last tag: `python deploy/check_api.py [TAG]`.

Looks at the names of `beam_flowers.__all__` only. Ends with 1 if one that callers may use is gone
or takes other arguments. A renamed one keeps its old name for one minor version, with a warning.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import griffe

_ROOT = Path(__file__).parents[1]


def main(tag: str) -> int:
    """Prints what breaks callers, and returns the exit code."""
    old = griffe.load_git("beam_flowers", ref=tag, repo=_ROOT, resolve_aliases=True)
    new = griffe.load("beam_flowers", search_paths=[_ROOT], resolve_aliases=True)
    breaks = list(griffe.find_breaking_changes(_public(old), _public(new)))
    for found in breaks:
        print(found.explain(griffe.ExplanationStyle.ONE_LINE))
    if not breaks:
        print(f"The public API is that of {tag}, or more.")
    return bool(breaks)


def _public(package: griffe.Module) -> griffe.Module:
    """Returns a module of all that the package imports for type checkers, which `__all__` lists."""
    public = griffe.Module("beam_flowers", filepath=package.filepath)
    for name, member in package.members.items():
        if member.is_alias and member.target_path.startswith("beam_flowers."):
            public.set_member(name, member.final_target)
    return public


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(main(sys.argv[1]))
    described = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0"], cwd=_ROOT, capture_output=True, text=True
    )
    if described.returncode:
        print("There is no tag yet to compare the public API with.")
    else:
        sys.exit(main(described.stdout.strip()))
