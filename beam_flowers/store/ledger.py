"""The join of what is listed with what is stored, in a private SQLite database.

SQLite keeps the tables in its page cache and spills them to a temporary file, so that the plan
of fifty million files takes disk, not memory. SQL holds the rules; Python only carries rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import NamedTuple

from beam_flowers.errors import InputError
from beam_flowers.records import Hidden, Image, Reject, RootListed

Found = Image | Reject | Hidden | RootListed
_BLOCK = 10_000
_CACHE_KIB = 256 * 1024

_TABLES = """
CREATE TABLE listing(uri, root, relative_path, label, split, bytes INT, modified INT,
                     stage, error_class, message);
CREATE TABLE roots(root PRIMARY KEY, complete INT);
CREATE TABLE parts(id INTEGER PRIMARY KEY, name, rejects INT, committed INT);
CREATE TABLE stored(part INT, uri, root, relative_path, label, split, bytes INT, modified INT,
                    sha256, error_class);
CREATE TABLE source(part, uri, sha256);
"""

# One row a uri: the first one found, one with a label before one without.
_LISTED = """
CREATE TABLE listed AS
SELECT uri, root, relative_path, label, split, bytes, modified, stage, error_class, message,
       min(rowid + (label IS NULL) * (1 << 50)) AS first
FROM listing GROUP BY uri;
CREATE UNIQUE INDEX listed_uri ON listed(uri);
"""

# What becomes of every stored row. What a killed run left is taken up for listed files only:
# nobody may want the rest any more. Without a listed label a stored one under another root stays:
# naming one folder of a labelled tree does not wipe its label.
_STATES = """
CREATE TABLE states AS
WITH judged AS (
  SELECT s.rowid AS row, s.part AS part, s.uri AS uri, p.committed AS committed,
    CASE
      WHEN l.uri IS NULL THEN
        CASE WHEN :exact OR NOT p.committed OR s.root IN (SELECT root FROM roots WHERE complete)
             THEN 'gone' ELSE 'kept' END
      WHEN l.error_class IS NOT NULL THEN
        CASE WHEN s.error_class = l.error_class THEN 'kept' ELSE 'gone' END
      WHEN :verify OR s.bytes IS NOT l.bytes OR s.modified IS NOT l.modified
           OR (p.rejects AND :retry) THEN 'stale'
      WHEN :relabel AND (l.label IS NOT NULL OR l.root = s.root)
           AND (l.label IS NOT s.label OR l.split IS NOT s.split OR l.root IS NOT s.root
                OR l.relative_path IS NOT s.relative_path) THEN 'changed'
      ELSE 'kept'
    END AS state
  FROM stored s JOIN parts p ON p.id = s.part LEFT JOIN listed l ON l.uri = s.uri),
ranked AS (
  SELECT *, row_number() OVER (PARTITION BY uri
    ORDER BY state IN ('kept', 'changed') DESC, committed DESC, part) AS rank
  FROM judged)
SELECT row, part, uri, CASE WHEN rank > 1 THEN 'double' ELSE state END AS state FROM ranked;
CREATE INDEX states_part ON states(part);
CREATE TABLE known AS SELECT uri FROM states WHERE state IN ('kept', 'changed');
CREATE UNIQUE INDEX known_uri ON known(uri);
CREATE TABLE fresh AS
SELECT uri, root, relative_path, label, split, bytes, modified FROM listed
WHERE error_class IS NULL AND uri NOT IN known;
CREATE INDEX fresh_bytes ON fresh(bytes);
"""

# Files that may be copies of a stored one, or of more new ones than fit into one unit.
_DOUBT = """
CREATE TABLE doubtful AS
SELECT DISTINCT bytes FROM fresh WHERE bytes IN (
  SELECT s.bytes FROM stored s JOIN parts p ON p.id = s.part WHERE NOT p.rejects)
UNION SELECT bytes FROM fresh GROUP BY bytes HAVING count(*) > :unit_rows OR bytes IS NULL;
"""

# Multiplying by Knuth's 2**32 / phi scatters the sizes, so that no unit gets all big pictures,
# while files of one size, which may be copies of each other, stay together.
_FRESH = """
SELECT uri, root, relative_path, label, split, bytes, modified FROM fresh
WHERE bytes NOT IN (SELECT bytes FROM doubtful WHERE bytes IS NOT NULL) AND bytes IS NOT NULL
ORDER BY (bytes * 2654435761) & 4294967295, bytes, uri
"""
_DOUBTFUL = """
SELECT uri, root, relative_path, label, split, bytes, modified FROM fresh
WHERE bytes IS NULL OR bytes IN (SELECT bytes FROM doubtful) ORDER BY uri
"""
_SOURCES = """
SELECT s.sha256, min(p.name) FROM stored s JOIN parts p ON p.id = s.part
WHERE NOT p.rejects AND s.bytes IN (SELECT bytes FROM doubtful)
GROUP BY s.sha256 ORDER BY s.sha256
"""
_REMAINING = """
SELECT t.uri, CASE t.state WHEN 'changed' THEN l.root ELSE s.root END,
  CASE t.state WHEN 'changed' THEN l.relative_path ELSE s.relative_path END,
  CASE t.state WHEN 'changed' THEN l.label ELSE s.label END,
  CASE t.state WHEN 'changed' THEN l.split ELSE s.split END, s.bytes, s.modified, s.sha256
FROM states t JOIN stored s ON s.rowid = t.row LEFT JOIN listed l ON l.uri = t.uri
WHERE t.part = :part AND t.state IN ('kept', 'changed') ORDER BY s.rowid
"""


class StoredRow(NamedTuple):
    """A stored file: its identity, the digest of its content and, if rejected, the reason."""

    image: Image
    sha256: str | None
    error_class: str | None = None


class Rules(NamedTuple):
    """What a run wants of the join.

    Attributes:
        exact: a stored row that was not listed leaves the table, whatever its root.
        verify: nothing is trusted; every listed file is read again.
        retry: files that were rejected are tried again.
        relabel: a changed label, split or root updates the row.
    """

    exact: bool = False
    verify: bool = False
    retry: bool = False
    relabel: bool = True


class Ledger:
    """Fill it with `list_found` and `add_part`, `join` once, then ask."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.executescript(_TABLES)
        self.hidden = 0

    def list_found(self, found: Iterable[Found]) -> None:
        """Takes in a listing."""
        found = iter(found)
        while block := list(islice(found, _BLOCK)):
            self.hidden += sum(isinstance(f, Hidden) for f in block)
            rows = [
                (*f, None, None, None) if isinstance(f, Image) else (*f.image, *f[1:4])
                for f in block
                if isinstance(f, Image | Reject)
            ]
            self._db.executemany(f"INSERT INTO listing VALUES ({','.join('?' * 10)})", rows)
            roots = [f for f in block if isinstance(f, RootListed)]
            self._db.executemany(
                "INSERT INTO roots VALUES (?, ?) "
                "ON CONFLICT(root) DO UPDATE SET complete = max(complete, excluded.complete)",
                roots,
            )

    def is_empty(self) -> bool:
        """Whether nothing was listed that is not hidden."""
        return not self._number("SELECT count(*) FROM listing")

    def add_part(
        self, name: str, rows: Iterable[StoredRow], rejects: bool, committed: bool
    ) -> None:
        """Takes in one stored part's rows."""
        cursor = self._db.execute(
            "INSERT INTO parts(name, rejects, committed) VALUES (?, ?, ?)",
            (name, rejects, committed),
        )
        self._db.executemany(
            f"INSERT INTO stored VALUES ({','.join('?' * 10)})",
            ((cursor.lastrowid, *row.image, row.sha256, row.error_class) for row in rows),
        )

    def join(self, rules: Rules) -> None:
        """Judges every stored row and finds what has to be read.

        Raises:
            InputError: if one manifest gives one file two labels.
        """
        self._refuse_two_labels()
        self._db.executescript(_LISTED)
        script = _STATES
        for name, value in rules._asdict().items():
            # executescript takes no parameters; these are numbers and truth values of our own.
            script = script.replace(f":{name}", str(int(value)))
        self._db.executescript(script)

    def doubt(self, unit_rows: int) -> None:
        """Marks the files that have to be hashed before it is known whether to embed them."""
        self._db.executescript(_DOUBT.replace(":unit_rows", str(int(unit_rows))))

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
        """Files listed and not hidden, each once."""
        return self._number("SELECT count(*) FROM listed")

    def fresh(self) -> int:
        """Files that have to be read."""
        return self._number("SELECT count(*) FROM fresh")

    def known(self, condition: str) -> int:
        """Listed files whose stored row stays and meets an SQL condition on `s` (its row)."""
        return self._number(
            "SELECT count(*) FROM states t JOIN stored s ON s.rowid = t.row "
            "JOIN listed l ON l.uri = t.uri JOIN parts p ON p.id = s.part "
            f"WHERE t.state IN ('kept', 'changed') AND {condition}"
        )

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def complete_roots(self) -> list[str]:
        """Roots that were listed completely."""
        return [r for (r,) in self._db.execute("SELECT root FROM roots WHERE complete ORDER BY 1")]

    def found_rejects(self) -> Iterator[Reject]:
        """Files that the listing itself rejected and the store does not know as such, by uri."""
        cursor = self._db.execute(
            "SELECT uri, root, relative_path, label, split, bytes, modified, stage, error_class, "
            "message FROM listed WHERE error_class IS NOT NULL AND uri NOT IN known ORDER BY uri"
        )
        return (Reject(Image(*row[:7]), *row[7:]) for row in cursor)

    def fresh_units(self, unit_rows: int) -> Iterator[list[Image]]:
        """Files to read, those of one size always in one unit."""
        unit: list[Image] = []
        images = (Image(*row) for row in self._db.execute(_FRESH))
        for _, same_size in groupby(images, key=lambda image: image.bytes):
            group = list(same_size)
            if unit and len(unit) + len(group) > unit_rows:
                yield unit
                unit = []
            unit += group
        if unit:
            yield unit

    def doubtful_units(self, unit_rows: int) -> Iterator[list[Image]]:
        """Files to hash first, since others, here or in the store, are of the same size."""
        cursor = self._db.execute(_DOUBTFUL)
        while block := cursor.fetchmany(unit_rows):
            yield [Image(*row) for row in block]

    def add_source(self, name: str, rows: Iterable[StoredRow]) -> None:
        """Takes in a part of another table, from which rows can be made without reading files."""
        self._db.executemany(
            "INSERT INTO source VALUES (?, ?, ?)", ((name, r.image.uri, r.sha256) for r in rows)
        )

    def source_units(self) -> Iterator[tuple[str, list[StoredRow]]]:
        """Files to make rows of, by the part of the other table that has them."""
        self._db.execute("CREATE UNIQUE INDEX source_uri ON source(uri)")
        cursor = self._db.execute(
            "SELECT o.part, f.*, o.sha256 FROM fresh f JOIN source o ON o.uri = f.uri "
            "ORDER BY o.part, f.uri"
        )
        for part, rows in groupby(cursor, key=lambda row: row[0]):
            yield part, [StoredRow(Image(*row[1:8]), row[8]) for row in rows]

    def without_source(self) -> Iterator[Image]:
        """Files to make rows of that the other table has not: its rejects, by uri."""
        cursor = self._db.execute(
            "SELECT * FROM fresh WHERE uri NOT IN (SELECT uri FROM source) ORDER BY uri"
        )
        return (Image(*row) for row in cursor)

    def sources(self) -> Iterator[tuple[str, str]]:
        """(sha256, part name) of stored rows that a doubtful file may equal, by sha256."""
        return iter(self._db.execute(_SOURCES))

    def part_names(self) -> tuple[list[str], list[str]]:
        """Parts all of whose rows stay as they are, and parts some of whose rows stay."""
        cursor = self._db.execute(
            "SELECT p.name, sum(t.state = 'kept') = count(*), sum(t.state IN ('kept', 'changed')) "
            "FROM parts p JOIN states t ON t.part = p.id GROUP BY p.id ORDER BY p.id"
        )
        rows = cursor.fetchall()
        return [n for n, whole, _ in rows if whole], [
            n for n, whole, some in rows if some and not whole
        ]

    def remaining(self, name: str) -> list[StoredRow]:
        """The rows of one part that stay, with their new identities, in the part's order."""
        (part,) = self._db.execute("SELECT id FROM parts WHERE name = ?", (name,)).fetchone()
        cursor = self._db.execute(_REMAINING, {"part": part})
        return [StoredRow(Image(*row[:7]), row[7]) for row in cursor]

    def keep_parts(self, names: Iterable[str]) -> None:
        """Forgets the rows of all other parts."""
        self._db.execute("CREATE TEMP TABLE keep AS SELECT '' AS name")
        self._db.executemany("INSERT INTO keep VALUES (?)", ((name,) for name in names))
        self._db.execute(
            "DELETE FROM stored WHERE part NOT IN "
            "(SELECT id FROM parts WHERE name IN (SELECT name FROM keep))"
        )

    def shared_contents(self, most: int = 5) -> list[tuple[str, str, str, str]]:
        """(uri, label, uri, label) of files with the same bytes and two labels, at most `most`."""
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
        """The labels of the listed files."""
        return [
            v
            for (v,) in self._db.execute(
                "SELECT DISTINCT label FROM listed WHERE label IS NOT NULL ORDER BY label"
            )
        ]

    def close(self) -> None:
        self._db.close()
