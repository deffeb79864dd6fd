"""Ledgers filled with made-up files and rows."""

import itertools

from beam_flowers.records import Image, Reject
from beam_flowers.store.ledger import Ledger, Rules, StoredRow

SHA, OTHER_SHA = "ab" * 32, "cd" * 32
COMMITTED, LEFT, REJECTS = "part-c", "part-left", "rejects-c"
"""Names of parts: of rows, of rows that a killed run left uncommitted, of rejects."""


def image(name, label="rose", size=10, modified=1, root="/r", split=None):
    return Image(f"{root}/{name}", root, name, label, split, size, modified)


def reject(found, error_class="DanglingLink", sha256=None):
    return Reject(found, "find", error_class, "leads to nothing", sha256)


def stored(*parts):
    """A ledger with parts of rows: pairs of a name and `Image`s or `StoredRow`s."""
    ledger = Ledger()
    for name, rows in parts:
        rows = [row if isinstance(row, StoredRow) else StoredRow(row, SHA) for row in rows]
        ledger.add_part(name, rows, name.startswith("rejects"), name != LEFT)
    return ledger


def joined(found, *parts, rules=None, unit_rows=64):
    ledger = stored(*parts)
    ledger.list_found(found)
    ledger.join(rules or Rules())
    ledger.doubt(unit_rows)
    return ledger


def states(ledger):
    """The state of every stored row, in the order they were added."""
    return [state for (state,) in ledger._db.execute("SELECT state FROM states ORDER BY row")]


def names(units):
    return [[image.relative_path for image in unit] for unit in units]


def fresh(ledger):
    units = names(ledger.fresh_units(64)) + names(ledger.doubtful_units(64))
    return sorted(itertools.chain(*units))


A = image("a")
UNLABELLED = image("a", label=None)
INSIDE = A._replace(root="/r/sub", label=None)
