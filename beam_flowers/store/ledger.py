"""Joins listed files with stored rows, in a private SQLite database.

SQLite keeps the tables in its page cache and spills them to a temporary file. So the plan of fifty
million files takes disk, not memory. SQL holds the rules; Python only carries rows.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import NamedTuple, TypeVar

from beam_flowers import files
from beam_flowers.errors import InputError
from beam_flowers.records import HiddenFile, Image, Listed, Reject, RootListed
from beam_flowers.store import ledger_sql as sql

T = TypeVar("T")
_BLOCK = 10_000
_CACHE_KIB = 8 * 1024
"""KiB of SQLite's page cache. With 256 MB the join of a million names with a million rows took as
long."""
_KNOWN = """FROM states t JOIN stored s ON s.rowid = t.row
JOIN listed l ON l.uri = t.uri JOIN parts p ON p.id = s.part
WHERE t.state IN ('kept', 'changed')"""


def packed(groups: Iterable[list[T]], most: int) -> Iterator[list[T]]:
    """Yields units of whole groups, of at most `most` elements unless one group alone has more."""
    unit: list[T] = []
    for group in groups:
        if unit and len(unit) + len(group) > most:
            yield unit
            unit = []
        unit += group
    if unit:
        yield unit


def _went_with(uri: str, root: str) -> bool:
    """Tells if a file is gone, given that its root is gone."""
    # A manifest may name files outside of its root, so these have to be looked for.
    return uri.startswith(files.join(root, "")) or files.is_certainly_gone(uri)


class StoredRow(NamedTuple):
    """A stored row or reject, without its embedding.

    Attributes:
        image: the file as the row has it.
        sha256: hex digest of its content.
        error_class: reason of a reject; None for a row.
        unread: True if the file was rejected because it could not be read.
        outdated: True if the rules that accepted or rejected it have changed since.
    """

    image: Image
    sha256: str | None
    error_class: str | None = None
    unread: bool = False
    outdated: bool = False


class Rules(NamedTuple):
    """Rules of the join in one run.

    Attributes:
        exact: stored rows that were not listed leave the table, whatever their roots.
        verify: every listed file is read again, even if it looks unchanged.
        retry: files that were rejected are read again.
        relabel: a changed label, split or root updates the row.
        reread: files that could not be read, or whose rules changed, are read again.
    """

    exact: bool = False
    verify: bool = False
    retry: bool = False
    relabel: bool = True
    reread: bool = True


class Going(NamedTuple):
    """Counts of the stored rows that leave.

    Attributes:
        rows: rows that leave and whose contents were not seen in another listed file.
        covered: all rows that the listing covers: rows of listed files, and rows that leave.
        doubtful: rows among `rows` whose file may have moved, as a file still to be read has the
            same size.
    """

    rows: int
    covered: int
    doubtful: int


class Ledger:
    """Join of listed files and stored rows.

    Fill it by `list_found` and `add_part`, call `join` once, then query it.

    Attributes:
        hidden: number of hidden files that were listed.
        sections: number of sections of another table that rows are made from; 0 if files are read.
    """

    def __init__(self) -> None:
        # An empty name is a temporary file of SQLite's own, deleted when it is closed.
        self._db = sqlite3.connect("")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.create_function("behind_link", 2, files.is_behind_link)
        self._db.create_function("went_with", 2, _went_with)
        self._db.executescript(sql.TABLES)
        self._relabel: bool
        self.hidden = 0
        self.sections = 0

    def list_found(self, found: Iterable[Listed]) -> None:
        """Adds a listing."""
        found = iter(found)
        while block := list(islice(found, _BLOCK)):
            self.hidden += sum(isinstance(f, HiddenFile) for f in block)
            rows = [
                (*f, None, None, None, None) if isinstance(f, Image) else (*f.image, *f[1:])
                for f in block
                if isinstance(f, Image | Reject)
            ]
            self._db.executemany(f"INSERT INTO listing VALUES ({','.join('?' * 12)})", rows)
            roots = [
                (f.root, f.complete, files.join(f.root, "") if f.is_tree else None)
                for f in block
                if isinstance(f, RootListed)
            ]
            self._db.executemany(
                "INSERT INTO roots VALUES (?, ?, ?) "
                "ON CONFLICT(root) DO UPDATE SET complete = max(complete, excluded.complete), "
                "prefix = coalesce(prefix, excluded.prefix)",
                roots,
            )

    def is_empty(self) -> bool:
        """Tells if the listing has no files, apart from hidden ones."""
        return not self._number("SELECT count(*) FROM listing")

    def gap(self) -> tuple[str, str] | None:
        """Returns a folder or archive that was not listed to its end, and the reason, if any."""
        return self._db.execute(sql.GAP).fetchone()

    def leave_out(self, rows: Iterable[StoredRow]) -> None:
        """Removes listed files that another table has with the same size and time.

        Args:
            rows: rows and rejects of that table.
        """
        self._db.execute("CREATE TEMP TABLE held(uri, bytes INT, modified INT, etag)")
        images = (row.image for row in rows)
        held = ((image.uri, image.bytes, image.modified, image.etag) for image in images)
        self._db.executemany("INSERT INTO held VALUES (?, ?, ?, ?)", held)
        self._db.executescript(sql.LEAVE_OUT)

    def add_part(
        self, name: str, rows: Iterable[StoredRow], rejects: bool, committed: bool, place: int = 0
    ) -> None:
        """Adds the rows of one stored part.

        Args:
            name: of the part.
            rows: rows of the part.
            rejects: True for a part of rejects.
            committed: True if the table's version names it.
            place: number of the table that has it, 0 for the one that is written. Parts of others
                are added after `join`; files of the same content take their vectors.
        """
        cursor = self._db.execute(
            "INSERT INTO parts(name, rejects, committed, place) VALUES (?, ?, ?, ?)",
            (name, rejects, committed, place),
        )
        values = ((cursor.lastrowid, *row.image, *row[1:]) for row in rows)
        try:
            self._db.executemany(f"INSERT INTO stored VALUES ({','.join('?' * 13)})", values)
        except Exception:
            # If a part turns out to be damaged in the middle, none of its rows may count.
            self._db.execute("DELETE FROM stored WHERE part = ?", (cursor.lastrowid,))
            raise

    def join(self, rules: Rules) -> None:
        """Judges every stored row and finds the files that have to be read.

        Raises:
            InputError: one manifest gives one file two labels.
        """
        self._refuse_two_labels()
        self._relabel = rules.relabel
        self._db.executescript(sql.LISTED)
        script = sql.STATES
        for name, value in rules._asdict().items():
            # executescript takes no parameters; these are numbers and truth values of our own.
            script = script.replace(f":{name}", str(int(value)))
        self._db.executescript(script)

    def stray_roots(self) -> dict[str, bool]:
        """Finds the roots of rows that stay although this run has not listed their files.

        Returns:
            By root, True if the run has listed the content of one of its rows, or may have.
        """
        self._db.executescript(sql.CONTENTS)
        return {root: bool(may) for root, may in self._db.execute(sql.STRAY_ROOTS)}

    def take_out_ghosts(self, absent: Iterable[str]) -> None:
        """Removes rows of absent roots whose contents the run lists at other addresses.

        Args:
            absent: stray roots that are gone.
        """
        self._db.executemany("INSERT INTO absent VALUES (?)", ((root,) for root in absent))
        self._db.execute(sql.GHOSTS)

    def is_undecided(self) -> bool:
        """Tells if a file still to be read may have the content of a row of an absent root."""
        return self._number(sql.UNDECIDED) > 0

    def going(self) -> Going:
        """Counts the rows that leave."""
        return Going(*self._db.execute(sql.GOING).fetchone())

    def hold(self) -> None:
        """Keeps all rows and rejects that were to leave."""
        self._db.executescript(sql.HOLD)

    def absent_rows(self) -> dict[str, int]:
        """Counts the rows and rejects that stay although their roots are gone, by root."""
        return dict(self._db.execute(sql.ABSENT))

    def empty(self) -> None:
        """Drops the stored rows, for another join with the same listing."""
        self._db.executescript(sql.EMPTY)

    def doubt(self, unit_rows: int) -> None:
        """Marks the files that have to be hashed first, as their content may be known already."""
        self._db.executescript(sql.DOUBT.replace(":unit_rows", str(int(unit_rows))))

    def _refuse_two_labels(self) -> None:
        row = self._db.execute(
            "SELECT uri, root, min(label), max(label) FROM listing "
            "GROUP BY uri, root HAVING count(DISTINCT label) > 1 LIMIT 1"
        ).fetchone()
        if row:
            raise InputError(
                f"{row[1]} gives {row[0]} two labels, {row[2]!r} and {row[3]!r}; keep one of them"
            )

    def listed(self) -> int:
        """Counts the files that were listed and are not hidden, each once."""
        return self._number("SELECT count(*) FROM listed")

    def fresh(self) -> int:
        """Counts the files that have to be read."""
        return self._number("SELECT count(*) FROM fresh")

    def known(self) -> int:
        """Counts the listed files whose stored row stays."""
        return self._number(f"SELECT count(*) {_KNOWN} AND NOT p.rejects")

    def known_rejects(self) -> dict[str, int]:
        """Counts the listed files that stay rejected, by error class."""
        query = f"SELECT s.error_class, count(*) {_KNOWN} AND p.rejects GROUP BY 1"
        return dict(self._db.execute(query))

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def complete_roots(self) -> list[str]:
        """Returns the roots that were listed completely, sorted."""
        return [r for (r,) in self._db.execute("SELECT root FROM roots WHERE complete ORDER BY 1")]

    def listing_name(self) -> str:
        """Returns a digest of the roots that were listed; equal for another listing of the same."""
        roots = sorted(root for (root,) in self._db.execute("SELECT root FROM roots"))
        return hashlib.sha256(json.dumps(roots).encode()).hexdigest()

    def found_rejects(self) -> Iterator[Reject]:
        """Yields the rejects of the listing itself that the store does not have yet, by uri."""
        cursor = self._db.execute(
            "SELECT uri, root, relative_path, label, split, bytes, modified, etag, "
            "stage, error_class, message, sha256 FROM listed "
            "WHERE error_class IS NOT NULL AND uri NOT IN known ORDER BY uri"
        )
        return (Reject(Image(*row[:8]), *row[8:]) for row in cursor)

    def fresh_units(self, unit_rows: int) -> Iterator[list[Image]]:
        """Yields units of files to read; files of one size are always in one unit."""
        images = (Image(*row) for row in self._db.execute(sql.FRESH))
        sizes = groupby(images, key=lambda image: image.bytes)
        return packed((list(same_size) for _, same_size in sizes), unit_rows)

    def doubtful_units(self, unit_rows: int) -> Iterator[list[Image]]:
        """Yields units of files to hash first, as listed or stored files have the same size."""
        cursor = self._db.execute(sql.DOUBTFUL)
        while block := cursor.fetchmany(unit_rows):
            yield [Image(*row) for row in block]

    def add_source(self, section: int, parts: Iterable[tuple[str, Iterable[StoredRow]]]) -> None:
        """Adds a section of another table, from which rows are made without reading files.

        Args:
            section: number of the section, from 0 on.
            parts: `<place>/<name>` and rows of each of its parts.
        """
        self.sections = max(self.sections, section + 1)
        for name, rows in parts:
            values = (
                (section, name, image.uri, sha256, image.bytes, image.modified, image.etag)
                for image, sha256, *_ in rows
            )
            self._db.executemany("INSERT INTO source VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def add_reasons(self, rejects: Iterable[Reject]) -> None:
        """Adds the rejects of another table, with their reasons."""
        reasons = ((r.image.uri, *r[1:]) for r in rejects)
        self._db.executemany("INSERT INTO reasons VALUES (?, ?, ?, ?, ?)", reasons)

    def keep_current_sources(self) -> None:
        """Drops sources of files that changed since, and all but the first source of a file."""
        self._db.executescript(sql.CURRENT)

    def reject_without_source(self) -> None:
        """Rejects the listed files that lack a row in one of the added sections."""
        self._db.executescript(sql.REJECT.replace(":sections", str(self.sections)))

    def source_units(self) -> Iterator[tuple[str, list[StoredRow]]]:
        """Yields files to make rows of, by the parts of the other table that have them, `a+b`."""
        numbers = range(self.sections)
        names = " || '+' || ".join(f"o{i}.part" for i in numbers)
        joins = "".join(
            f"JOIN source o{i} ON o{i}.uri = f.uri AND o{i}.section = {i} " for i in numbers
        )
        cursor = self._db.execute(
            f"SELECT {names}, f.*, o0.sha256 FROM fresh f {joins} ORDER BY 1, f.uri"
        )
        for part, rows in groupby(cursor, key=lambda row: row[0]):
            yield part, [StoredRow(Image(*row[1:9]), row[9]) for row in rows]

    def sources(self) -> Iterator[tuple[str, str]]:
        """Yields (sha256, `<place>/<part>`) of rows that doubtful files may equal, by sha256."""
        return iter(self._db.execute(sql.SOURCES))

    def part_names(self) -> tuple[list[str], list[str]]:
        """Returns the parts all of whose rows stay unchanged, and parts some of whose rows stay."""
        cursor = self._db.execute(
            "SELECT p.name, sum(t.state = 'kept') = count(*), sum(t.state IN ('kept', 'changed')) "
            "FROM parts p JOIN states t ON t.part = p.id GROUP BY p.id ORDER BY p.id"
        )
        rows = cursor.fetchall()
        partly = [name for name, whole, some in rows if some and not whole]
        return [name for name, whole, _ in rows if whole], partly

    def remaining(self, name: str) -> list[StoredRow]:
        """Returns the rows of a part that stay, with their new identities, in the part's order."""
        (part,) = self._db.execute("SELECT id FROM parts WHERE name = ?", (name,)).fetchone()
        cursor = self._db.execute(sql.REMAINING, {"part": part})
        return [StoredRow(Image(*row[:8]), row[8]) for row in cursor]

    def unchanged(self) -> Iterator[tuple[StoredRow, str]]:
        """Yields the rows of files that are read again although they look unchanged, by uri.

        Each row has the identity that it would stay with, and comes with the name of its part.
        """
        cursor = self._db.execute(sql.UNCHANGED, {"relabel": self._relabel})
        return ((StoredRow(Image(*row[:8]), row[8]), row[9]) for row in cursor)

    def keep_parts(self, names: Iterable[str]) -> None:
        """Drops the rows of all other parts."""
        self._db.execute("CREATE TEMP TABLE keep AS SELECT '' AS name")
        self._db.executemany("INSERT INTO keep VALUES (?)", ((name,) for name in names))
        self._db.execute(
            "DELETE FROM stored WHERE part NOT IN "
            "(SELECT id FROM parts WHERE name IN (SELECT name FROM keep))"
        )

    def shared_contents(self, most: int = 5) -> list[tuple[str, str, str, str]]:
        """Returns (uri, label, uri, label) of up to `most` pairs of equal bytes with two labels."""
        cursor = self._db.execute(
            "WITH twins AS (SELECT sha256 FROM stored WHERE sha256 IS NOT NULL "
            "  GROUP BY sha256 HAVING count(DISTINCT label) > 1 ORDER BY sha256 LIMIT ?) "
            "SELECT a.uri, min(a.label), b.uri, max(b.label) FROM twins t "
            "JOIN stored a ON a.sha256 = t.sha256 JOIN stored b ON b.sha256 = t.sha256 "
            "WHERE a.label < b.label GROUP BY t.sha256",
            (most,),
        )
        return cursor.fetchall()

    def label_names(self) -> list[str]:
        """Returns the labels of the listed files, sorted."""
        query = "SELECT DISTINCT label FROM listed WHERE label IS NOT NULL ORDER BY label"
        return [label for (label,) in self._db.execute(query)]

    def listed_images(self) -> Iterator[tuple[str, str | None, str]]:
        """Yields uri, label and path below the root of the listed files, by uri."""
        yield from self._db.execute(
            "SELECT uri, label, relative_path FROM listed WHERE error_class IS NULL ORDER BY uri"
        )

    def rest(self) -> None:
        """Frees SQLite's page cache; the next query fills it again."""
        self._db.execute("PRAGMA shrink_memory")

    def close(self) -> None:
        self._db.close()
