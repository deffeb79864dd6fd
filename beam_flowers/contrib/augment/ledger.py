"""Joins labelled images with their stored distorted copies, in a private SQLite database.

The join is simpler than that of `store.ledger`, as the content of every image is known. Copies
belong to contents, their rows to files: if only name, label or place of a row changed, it is made
from any stored copy of the same content.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from beam_flowers.records import Embedding, Image
from beam_flowers.store.ledger import packed

_CACHE_KIB = 256 * 1024


class Copy(NamedTuple):
    """A distorted copy of an image.

    Attributes:
        image: the file of the image.
        sha256: hex digest of its bytes.
        k: number of the copy, from 1.
    """

    image: Image
    sha256: str
    k: int


class CopyVector(NamedTuple):
    """The vector of a distorted copy.

    Attributes:
        embedding: row of the file, with the copy's vector.
        k: number of the copy, from 1.
    """

    embedding: Embedding
    k: int


_TABLES = """
CREATE TABLE images(uri PRIMARY KEY, root, relative_path, label, split, bytes INT,
                      modified INT, sha256);
CREATE TABLE numbers(k INTEGER PRIMARY KEY);
CREATE TABLE parts(id INTEGER PRIMARY KEY, name, committed INT, stale INT);
CREATE TABLE stored(part INT, uri, root, relative_path, label, split, bytes INT, modified INT,
                    sha256, k INT);
"""

# `states` judges each stored row: gone, changed in its file's columns, or kept. A part of a killed
# run may repeat rows that were committed since: of equal ones the committed row counts. `whole`
# parts stay as they are. `made` lists all other rows, with a part that has the vector of their
# content and copy, or NULL if it must be computed.
_JOIN = """
CREATE TABLE states AS
WITH judged AS (
  SELECT s.part AS part, s.uri AS uri, s.k AS k, p.committed AS committed,
    CASE
      WHEN w.uri IS NULL OR s.k NOT IN numbers THEN 'gone'
      WHEN p.stale OR s.root IS NOT w.root OR s.relative_path IS NOT w.relative_path
           OR s.label IS NOT w.label OR s.split IS NOT w.split OR s.bytes IS NOT w.bytes
           OR s.modified IS NOT w.modified THEN 'changed'
      ELSE 'kept'
    END AS state
  FROM stored s JOIN parts p ON p.id = s.part
  LEFT JOIN images w ON w.uri = s.uri AND w.sha256 = s.sha256),
ranked AS (
  SELECT *, row_number() OVER (PARTITION BY uri, k
    ORDER BY state = 'gone', committed DESC, part) AS rank
  FROM judged)
SELECT part, uri, k, CASE WHEN rank > 1 THEN 'gone' ELSE state END AS state FROM ranked;

CREATE TABLE whole AS
SELECT part AS id FROM states GROUP BY part HAVING min(state = 'kept');

CREATE UNIQUE INDEX known ON states(uri, k) WHERE state <> 'gone';
CREATE TABLE absent AS
SELECT w.rowid AS image, n.k AS k FROM images w CROSS JOIN numbers n
WHERE NOT EXISTS (SELECT 1 FROM states t WHERE t.state <> 'gone' AND t.uri = w.uri AND t.k = n.k);

CREATE INDEX contents ON stored(sha256, k, part);
CREATE TABLE made AS
SELECT (SELECT min(part) FROM stored s WHERE s.sha256 = w.sha256 AND s.k = a.k) AS part,
       a.image AS image, a.k AS k
FROM absent a JOIN images w ON w.rowid = a.image
UNION ALL
SELECT t.part, w.rowid, t.k FROM states t JOIN images w ON w.uri = t.uri
WHERE t.state <> 'gone' AND t.part NOT IN whole;
"""

_MADE = """
SELECT p.name, w.*, m.k FROM made m JOIN images w ON w.rowid = m.image
LEFT JOIN parts p ON p.id = m.part
"""


class CopyLedger:
    """Joins images and copies: call `add_images` and `add_part`, then `join` once, then read."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.executescript(_TABLES)

    def add_images(self, images: Iterable[tuple[Image, str]]) -> None:
        """Adds files and the sha256 of their contents; uris must be unique."""
        self._db.executemany(
            f"INSERT INTO images VALUES ({','.join('?' * 8)})",
            ((*image[:7], sha256) for image, sha256 in images),
        )

    def add_part(
        self, name: str, copies: Iterable[Copy], *, committed: bool, stale: bool = False
    ) -> None:
        """Adds the rows of one stored part; a stale part is written again."""
        cursor = self._db.execute(
            "INSERT INTO parts(name, committed, stale) VALUES (?, ?, ?)", (name, committed, stale)
        )
        self._db.executemany(
            f"INSERT INTO stored VALUES ({','.join('?' * 10)})",
            ((cursor.lastrowid, *copy.image[:7], copy.sha256, copy.k) for copy in copies),
        )

    def join(self, copies: int) -> None:
        """Compares the stored rows with the copies 1 to `copies` of every image."""
        self._db.executemany("INSERT INTO numbers VALUES (?)", ((k,) for k in range(1, copies + 1)))
        self._db.executescript(_JOIN)

    def images(self) -> int:
        """Returns the number of images."""
        return self._number("SELECT count(*) FROM images")

    def fresh(self) -> int:
        """Returns the number of rows whose vectors have to be computed."""
        return self._number("SELECT count(*) FROM made WHERE part IS NULL")

    def _number(self, query: str) -> int:
        return int(self._db.execute(query).fetchone()[0])

    def whole_parts(self) -> list[str]:
        """Returns the names of parts whose rows all stay unchanged."""
        query = "SELECT name FROM parts WHERE id IN whole ORDER BY id"
        return [name for (name,) in self._db.execute(query)]

    def derived(self, most: int) -> Iterator[tuple[str, list[Copy]]]:
        """Yields source parts with rows to make from their vectors, at most `most` at once."""
        query = f"{_MADE} WHERE m.part IS NOT NULL ORDER BY m.part, w.uri, m.k"
        cursor = self._db.execute(query)
        for part, rows in groupby(cursor, key=lambda row: row[0]):
            for unit in _cut((_copy(row) for row in rows), most):
                yield part, unit

    def computed(self, rows: int) -> Iterator[list[Copy]]:
        """Yields units of about `rows` rows to compute; one content is in one unit if it fits."""
        query = f"{_MADE} WHERE m.part IS NULL ORDER BY w.sha256, w.uri, m.k"
        contents = groupby(map(_copy, self._db.execute(query)), key=lambda copy: copy.sha256)
        blocks = (block for _, copies in contents for block in _cut(copies, 8 * rows))
        return packed(blocks, rows)

    def close(self) -> None:
        """Deletes the database."""
        self._db.close()


def _copy(row: tuple[Any, ...]) -> Copy:
    """Makes a copy from (part, the columns of `images`, k)."""
    return Copy(Image(*row[1:8]), *row[8:])


def _cut(copies: Iterable[Copy], most: int) -> Iterator[list[Copy]]:
    unit: list[Copy] = []
    for copy in copies:
        unit.append(copy)
        if len(unit) == most:
            yield unit
            unit = []
    if unit:
        yield unit
