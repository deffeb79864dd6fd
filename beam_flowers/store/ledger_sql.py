"""Holds the SQL of the ledger: tables of listed files and of stored rows, and the rules to join."""

TABLES = """
CREATE TABLE listing(uri, root, relative_path, label, split, bytes INT, modified INT, etag,
                     stage, error_class, message, sha256);
CREATE TABLE roots(root PRIMARY KEY, complete INT, prefix);
CREATE TABLE parts(id INTEGER PRIMARY KEY, name, rejects INT, committed INT, place INT DEFAULT 0);
CREATE TABLE stored(part INT, uri, root, relative_path, label, split, bytes INT, modified INT,
                    etag, sha256, error_class, unread INT, outdated INT);
CREATE TABLE source(section INT, part, uri, sha256, bytes INT, modified INT, etag);
CREATE TABLE reasons(uri, stage, error_class, message, sha256);
CREATE TABLE absent(root PRIMARY KEY);
"""

# One row for each uri: the first one listed, but rows with a label come before rows without.
LISTED = """
CREATE TABLE listed AS
SELECT uri, root, relative_path, label, split, bytes, modified, etag,
       stage, error_class, message, sha256,
       min(rowid + (label IS NULL) * (1 << 50)) AS first
FROM listing GROUP BY uri;
CREATE UNIQUE INDEX listed_uri ON listed(uri);
"""

# The state of every stored row after the join, by the first rule that fits:
# - Not listed: gone if the listing covers it, else kept, since other runs may list other folders. A
#   folder that was listed completely covers every address below it, whatever the roots of the rows;
#   a manifest or an archive covers the rows found in it. Hidden files, and files behind links, are
#   below a folder and not listed, so that their rows stay. Rows left by a killed run stay for
#   listed files only, since the others may not be wanted any more.
# - Listed as a reject: kept if the row is the same reject, so that its part is not written again.
# - To be read again: stale. A missing ETag is unknown: with NULL, `<>` is not true. If rows are
#   made from another table's, the contents are known. So an edit is seen that left size and time
#   unchanged.
# - Another label, split or place: changed, which writes the row again with its vector. A stored
#   label stays if the file is listed without one under another root: naming one folder of a
#   labelled tree must not wipe its label.
# Of several rows of one file one counts: one that stays, then a committed one, then the first.
STATES = """
CREATE TABLE states AS
WITH judged AS (
  SELECT s.rowid AS row, s.part AS part, s.uri AS uri, p.committed AS committed,
    l.uri IS NOT NULL AS listed,
    CASE
      WHEN l.uri IS NULL THEN
        CASE WHEN :exact OR NOT p.committed
               OR s.root IN (SELECT root FROM roots WHERE complete AND prefix IS NULL)
               OR EXISTS (SELECT 1 FROM roots r WHERE r.complete
                          AND substr(s.uri, 1, length(r.prefix)) = r.prefix
                          AND NOT instr(substr(s.uri, length(r.prefix)), '/.')
                          AND NOT behind_link(s.uri, r.root))
             THEN 'gone' ELSE 'kept' END
      WHEN l.error_class IS NOT NULL THEN
        CASE WHEN s.error_class = l.error_class AND (l.sha256 IS NULL OR l.sha256 IS s.sha256)
             THEN 'kept' ELSE 'gone' END
      WHEN :verify OR s.bytes IS NOT l.bytes OR s.modified IS NOT l.modified OR s.etag <> l.etag
           OR (p.rejects AND :retry) OR (:reread AND (s.unread OR s.outdated))
           OR EXISTS (SELECT 1 FROM source o WHERE o.uri = s.uri AND o.sha256 IS NOT s.sha256)
           THEN 'stale'
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
SELECT row, part, uri, listed, state = 'kept' AND NOT listed AS stray,
  CASE WHEN rank > 1 THEN 'double' ELSE state END AS state FROM ranked;
CREATE INDEX states_part ON states(part);
CREATE TABLE known AS SELECT uri FROM states WHERE state IN ('kept', 'changed');
CREATE UNIQUE INDEX known_uri ON known(uri);
CREATE TABLE fresh AS
SELECT uri, root, relative_path, label, split, bytes, modified, etag FROM listed
WHERE error_class IS NULL AND uri NOT IN known;
CREATE INDEX fresh_bytes ON fresh(bytes);
"""

# Contents of listed files whose row stays. A file still to be read can only have the content of a
# row of the same size.
CONTENTS = """
CREATE TABLE contents AS
SELECT DISTINCT s.sha256 FROM states t JOIN stored s ON s.rowid = t.row
WHERE t.listed AND t.state IN ('kept', 'changed');
CREATE UNIQUE INDEX contents_sha256 ON contents(sha256);
"""
_IS_LISTED = "s.sha256 IN (SELECT sha256 FROM contents)"
_MAY_BE_LISTED = """s.sha256 IS NOT NULL AND (s.bytes IN (SELECT bytes FROM fresh)
OR EXISTS (SELECT 1 FROM fresh WHERE bytes IS NULL))"""

# Rows that stay although the run has not listed their files, and the roots of these rows.
_STRAY = "FROM states t JOIN stored s ON s.rowid = t.row WHERE t.state = 'kept' AND t.stray"
STRAY_ROOTS = f"""
SELECT s.root, coalesce(max({_IS_LISTED} OR {_MAY_BE_LISTED}), 0) {_STRAY} GROUP BY 1
"""

# Rows that a renamed root left: their root is gone, their contents are listed at other addresses.
GHOSTS = f"""
UPDATE states SET state = 'gone' WHERE row IN (
  SELECT t.row {_STRAY} AND s.root IN (SELECT root FROM absent) AND {_IS_LISTED}
  AND went_with(s.uri, s.root))
"""
_OF_ABSENT = f"{_STRAY} AND s.root IN (SELECT root FROM absent)"
UNDECIDED = f"SELECT count(*) {_OF_ABSENT} AND {_MAY_BE_LISTED}"
ABSENT = f"SELECT s.root, count(*) {_OF_ABSENT} GROUP BY 1 ORDER BY 1"

# Counts of `Going`: rows that leave and whose contents were not seen in another listed file; all
# rows that the listing covers; and rows among the first whose file may have moved.
GOING = f"""
WITH covered AS (
  SELECT s.*, t.state = 'gone' AND {_IS_LISTED} IS NOT TRUE AS going
  FROM states t JOIN stored s ON s.rowid = t.row JOIN parts p ON p.id = s.part
  WHERE p.committed AND NOT p.rejects AND (t.listed OR t.state = 'gone'))
SELECT coalesce(sum(going), 0), count(*),
  coalesce(sum(going AND {_MAY_BE_LISTED}), 0) FROM covered s
"""
# Rows of killed runs are left out: nothing that a reader sees is lost with them.
HOLD = """
UPDATE states SET state = 'kept'
WHERE state = 'gone' AND part IN (SELECT id FROM parts WHERE committed);
INSERT OR IGNORE INTO known SELECT uri FROM states WHERE state = 'kept';
"""

# Clears the stored rows for another join; the listing stays.
EMPTY = """
DROP TABLE listed; DROP TABLE states; DROP TABLE known; DROP TABLE fresh; DROP TABLE contents;
DROP TABLE IF EXISTS doubtful; DELETE FROM absent; DELETE FROM stored; DELETE FROM parts;
"""

# Sizes of files that may be copies of stored ones, or of more new ones than fit into one unit. Rows
# by outdated rules give no copies, as the new rules may judge the content otherwise.
DOUBT = """
CREATE TABLE doubtful AS
SELECT DISTINCT bytes FROM fresh WHERE bytes IN (
  SELECT s.bytes FROM stored s JOIN parts p ON p.id = s.part
  WHERE NOT p.rejects AND NOT s.outdated)
UNION SELECT bytes FROM fresh GROUP BY bytes HAVING count(*) > :unit_rows OR bytes IS NULL;
"""

# Multiplying by Knuth's 2**32 / phi scatters the sizes, so that no unit gets all large images.
# Files of one size stay together, as they may be copies of each other.
FRESH = """
SELECT uri, root, relative_path, label, split, bytes, modified, etag FROM fresh
WHERE bytes NOT IN (SELECT bytes FROM doubtful WHERE bytes IS NOT NULL) AND bytes IS NOT NULL
ORDER BY (bytes * 2654435761) & 4294967295, bytes, uri
"""
DOUBTFUL = """
SELECT uri, root, relative_path, label, split, bytes, modified, etag FROM fresh
WHERE bytes IS NULL OR bytes IN (SELECT bytes FROM doubtful) ORDER BY uri
"""
# The table's own parts come first, then the first by name, so that each run chooses the same.
SOURCES = """
SELECT s.sha256, min(p.place || '/' || p.name) FROM stored s JOIN parts p ON p.id = s.part
WHERE NOT p.rejects AND NOT s.outdated AND s.bytes IN (SELECT bytes FROM doubtful)
GROUP BY s.sha256 ORDER BY s.sha256
"""
# In the order of the part, as `derive` keeps the order of what it is given.
REMAINING = """
SELECT t.uri, CASE t.state WHEN 'changed' THEN l.root ELSE s.root END,
  CASE t.state WHEN 'changed' THEN l.relative_path ELSE s.relative_path END,
  CASE t.state WHEN 'changed' THEN l.label ELSE s.label END,
  CASE t.state WHEN 'changed' THEN l.split ELSE s.split END, s.bytes, s.modified,
  s.etag, s.sha256
FROM states t JOIN stored s ON s.rowid = t.row LEFT JOIN listed l ON l.uri = t.uri
WHERE t.part = :part AND t.state IN ('kept', 'changed') ORDER BY s.rowid
"""

# A damaged archive is listed as a reject under its own address.
GAP = """
SELECT uri, message FROM listing
WHERE error_class = 'UnreadableFolder' OR error_class IS NOT NULL AND uri = root
LIMIT 1
"""

# Rows to keep if their files cannot be read: the files are read again but look unchanged. Each row
# has the identity that it would stay with.
UNCHANGED = """
WITH found AS (
  SELECT s.*, p.name, :relabel AND (l.label IS NOT NULL OR l.root = s.root) AS anew,
    l.root AS new_root, l.relative_path AS new_path, l.label AS new_label, l.split AS new_split
  FROM states t JOIN stored s ON s.rowid = t.row JOIN parts p ON p.id = s.part
  JOIN listed l ON l.uri = s.uri
  WHERE t.state = 'stale' AND p.committed AND NOT s.unread
    AND s.bytes = l.bytes AND s.modified = l.modified AND (s.etag <> l.etag) IS NOT TRUE)
SELECT uri, iif(anew, new_root, root), iif(anew, new_path, relative_path),
  iif(anew, new_label, label), iif(anew, new_split, split), bytes, modified,
  etag, sha256, name
FROM found ORDER BY uri
"""

# Drops listed files that another table has unchanged, as their rows are read from that table.
LEAVE_OUT = """
CREATE INDEX held_uri ON held(uri);
DELETE FROM listing WHERE EXISTS (
  SELECT 1 FROM held h
  WHERE h.uri = listing.uri AND h.bytes IS listing.bytes AND h.modified IS listing.modified
    AND (h.etag <> listing.etag) IS NOT TRUE);
"""

# Drops sources whose files changed since their rows were written. If several tables have a file,
# the one that was added first stays.
CURRENT = """
CREATE INDEX listing_uri ON listing(uri);
DELETE FROM source WHERE NOT EXISTS (
  SELECT 1 FROM listing l
  WHERE l.uri = source.uri AND l.bytes IS source.bytes AND l.modified IS source.modified
    AND (l.etag <> source.etag) IS NOT TRUE);
DELETE FROM source WHERE rowid NOT IN (SELECT min(rowid) FROM source GROUP BY section, uri);
"""

# Rejects listed files that lack a row in a section of the other table, or whose rows are of several
# contents. The reason is the other table's own, if it has one.
REJECT = """
CREATE UNIQUE INDEX source_uri ON source(uri, section);
CREATE INDEX reasons_uri ON reasons(uri);
CREATE TABLE whole AS
SELECT uri FROM source GROUP BY uri HAVING count(*) = :sections AND min(sha256) = max(sha256);
CREATE UNIQUE INDEX whole_uri ON whole(uri);
UPDATE listing SET (stage, error_class, message, sha256) = (
  SELECT stage, error_class, message, sha256 FROM reasons r WHERE r.uri = listing.uri LIMIT 1)
WHERE error_class IS NULL AND uri NOT IN whole;
UPDATE listing SET stage = 'embed', error_class = 'NoVector', message =
  'the store has not the vectors of all of the backbones, of one content; embed it with each'
WHERE error_class IS NULL AND uri NOT IN whole AND uri IN (SELECT uri FROM source);
UPDATE listing SET stage = 'find', error_class = 'NotInStore', message =
  'the file came while the run was under way; run it again'
WHERE error_class IS NULL AND uri NOT IN whole;
"""
