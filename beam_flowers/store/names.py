"""Defines the names of a table's files and folders, and matches them in full.

A name that was read from a disk becomes part of a path only after it has matched one of these,
since a table may come from somebody else. `vacuum` deletes no other files.
"""

from __future__ import annotations

import re

WORK = "__work"
REJECTS = "__rejects"
COMMITS = "__commits"

AUGMENTED = "__augmented"
"""Folder of a store with a separate table: embeddings of distorted copies of its images."""
SCORED = "__scored"
"""Folder of a store with a separate table: embeddings of images that were only scored."""
INNER = (AUGMENTED, SCORED)
DAMAGED = "__damaged"
"""Folder of damaged parts, whose bytes are not as they were written; nothing reads them there."""
RETIRED = "__retired"
"""Folder of parts that only older versions need; readers of the newest do not look there."""
RESERVED = (WORK, REJECTS, COMMITS, DAMAGED, RETIRED, *INNER)

_HEX24 = "[0-9a-f]{24}"
# `scoring.folders` escapes the characters that this class excludes; `%` only begins an escape.
_PARTITION = r"label=(?:[^\x00-\x1f\x7f\"#%'*/:=?\\{\[\]^]|%[0-9A-F]{2})+"
# A part's name is the run that wrote it and its content; before layout 4 it was a hash of both.
_CONTENT = f"(?:{_HEX24}|[0-9a-f]{{16}}-[0-9a-f]{{16}})"
_PART = rf"(?:{_PARTITION}/)?part-{_CONTENT}\.parquet"
_REJECTS = rf"rejects-{_CONTENT}\.parquet"
_WRITER = re.compile(r".*?-([0-9a-f]{16})-[0-9a-f]{16}\.parquet")
# Compiled once, as it is matched with each part of each manifest that is read.
_ANY_PART = re.compile(f"{_PART}|{_REJECTS}")
_DIGEST = re.compile("[0-9a-f]{64}")
_ENGINE = re.compile("[a-z][a-z0-9]{1,31}")
# Names of the catalogue, slugs of paths, and `imported-<name of retrain.py's module>`.
_SECTION = r"backbone=[A-Za-z0-9][A-Za-z0-9._~-]*-[0-9a-f]{8}"
_RUN_ID = "[0-9a-f]{16}"
_RUN = f"run-{_RUN_ID}"
LEASES = "leases"
"""Folder below `__work` with a file for each run that has begun to commit or was withdrawn."""
BEAT = "beat"
"""File that a run writes again and again while it lasts."""
OUTCOMES = "outcomes"
"""Folder of a run with a file for each finished unit."""
_RUN_FILE = (
    rf"(?:(?:units|sources|unchanged)\.parquet|(?:result|findings)\.json|nonce|models|{BEAT}"
    r"|answers/[^/]+-[0-9a-f]{16}-[0-9]+"
    r"|references/(?:[0-9a-f]{8}|\.lock)"
    rf"|{OUTCOMES}/(?:[0-9a-f]{{32}}|\.lock))"
)
_COMMIT = r"([0-9]{8,})\.json"
CLOCK = "clock"
"""Prefix of the file below `__work` by which `vacuum` and runs read the storage's time."""
PRESENT = "present"
"""Prefix of the file below `__work` that says that a run uses the table; see `store.presence`."""

_WORK_FILE = (
    rf"(?:{_RUN}/)?[0-9a-f]{{16}}/(?:{_PART}|{_REJECTS})|{_RUN}/{_RUN_FILE}|{LEASES}/{_RUN}"
    rf"|{LEASES}/\.lock|{CLOCK}-[0-9a-f]{{12}}|{PRESENT}-[0-9a-f]{{16}}"
)
# `files.write_atomic` first writes `.<name>.<12 hex>` beside a file.
_TEMPORARY = re.compile(r"((?:[^/]+/)*)\.([^/]+)\.[0-9a-f]{12}")


def is_part(name: str) -> bool:
    """Tells if `name` is the name of a part of rows or of rejects."""
    return bool(_ANY_PART.fullmatch(name))


def is_run(text: str) -> bool:
    """Tells if `text` is the id of a run."""
    return bool(re.fullmatch(_RUN_ID, text))


def writer_of(name: str) -> str:
    """Returns the id of the run that wrote a part; empty for one of before layout 4."""
    found = _WRITER.fullmatch(name)
    return found[1] if found else ""


def adopted_name(name: str, run: str) -> str:
    """Returns the new name of a part that the run `run` takes up."""
    head, _, content = name.removesuffix(".parquet").rpartition("-")
    head = head.removesuffix(f"-{writer_of(name)}") if writer_of(name) else head
    return f"{head}-{run}-{content[-16:]}.parquet"


def is_section(key: str) -> bool:
    """Tells if `key` is a section's folder, `backbone=<name>-<8 hex>`, or empty, as for scores."""
    return key == "" or bool(re.fullmatch(_SECTION, key))


def is_digest(text: str) -> bool:
    """Tells if `text` is a sha256 in hex, as fingerprints are."""
    return bool(_DIGEST.fullmatch(text))


def is_engine(text: str) -> bool:
    """Tells if `text` has the form of an engine's name, such as `openvino`."""
    return bool(_ENGINE.fullmatch(text))


def commit_version(name: str) -> int | None:
    """Returns the version of a manifest by its file name; None for other files."""
    found = re.fullmatch(_COMMIT, name)
    version = int(found[1]) if found else 0
    return version if version and name == commit_name(version) else None


def commit_name(version: int) -> str:
    """Returns the file name of a version's manifest."""
    return f"{version:08d}.json"


def published_name(version: int) -> str:
    """Returns the name of the empty file that marks a version as fully published."""
    return f"{version:08d}.published"


def is_reserved_file(relative: str) -> bool:
    """Tells if a path below a table has the form of a file that we write to its reserved folders.

    These are `__work`, `__commits`, `__retired` and `__rejects`. Temporary files count as well.
    """
    top, _, rest = relative.partition("/")
    if top == WORK:
        return bool(re.fullmatch(_WORK_FILE, _final(rest)))
    if top == COMMITS:
        name = _final(rest)
        is_mark = bool(re.fullmatch(r"[0-9]{8,}\.published", name))
        return rest == ".lock" or is_mark or commit_version(name) is not None
    if top == RETIRED:
        form = rf"(?:{_SECTION}/)?(?:{_PART}|{_REJECTS})\.retired"
        return bool(re.fullmatch(form, _final(rest)))
    return top == REJECTS and bool(re.fullmatch(rf"(?:{_SECTION}/)?{_REJECTS}", rest))


def _final(relative: str) -> str:
    """Returns the path that a temporary file is renamed to; other paths as they are."""
    found = _TEMPORARY.fullmatch(relative)
    return found[1] + found[2] if found else relative
