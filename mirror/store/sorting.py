"""The order of `store.leaves`: sorted by key, a filter reads the rows of its key and skips the others.

Runs that are written are appended, so rows come out of order; once these are many the table is written anew. Over
100,000 runs of 80 leaves a filter takes 4 to 17 ms sorted and 36 to 160 ms unsorted, and sorting takes 4 s.
"""

from __future__ import annotations

from mirror.store.database import Database

UNSORTED_SHARE = 0.1
"""The table is sorted when more of its rows than this came since it was sorted last."""

FEWEST = 500_000
"""So few unsorted rows cost a filter some milliseconds, and are left alone."""

_SORTED_ROWS = "sorted_leaves"


def is_due(db: Database) -> bool:
    """Whether enough rows are out of order for sorting to pay. Takes a millisecond."""
    # A new row has a row number behind all others, and numbers stay as they are until the table is written anew.
    unsorted = int(db.value("SELECT count(*) FROM store.leaves WHERE rowid >= ?", [_sorted_rows(db)]))
    return unsorted >= FEWEST and unsorted > UNSORTED_SHARE * db.value("SELECT count(*) FROM store.leaves")


def sort(db: Database) -> None:
    """Write `store.leaves` anew, by document, key and run."""
    with db.transaction():
        # The places of the keys sort in half the time of the keys themselves.
        db.run(
            """
            CREATE TABLE store.leaves_in_order AS
            SELECT l.* FROM store.leaves AS l JOIN (
                SELECT doc, key, CAST(row_number() OVER (ORDER BY doc, key) AS INTEGER) AS place
                FROM (SELECT DISTINCT doc, key FROM store.leaves)
            ) AS k ON k.doc = l.doc AND k.key = l.key
            ORDER BY k.place, l.rid
            """
        )
        db.run("DROP TABLE store.leaves")
        db.run("ALTER TABLE store.leaves_in_order RENAME TO leaves")
        note_sorted(db, int(db.value("SELECT count(*) FROM store.leaves")))


def note_sorted(db: Database, rows: int, schema: str = "store") -> None:
    """Remember, in the tables of a schema, that the first so many rows are in order."""
    db.run(f"DELETE FROM {schema}.meta WHERE key = ?", [_SORTED_ROWS])
    db.run(f"INSERT INTO {schema}.meta VALUES (?, ?)", [_SORTED_ROWS, str(rows)])


def sorted_left(db: Database) -> int:
    """How many of the rows that were in order are still there; their number once the table is copied."""
    return int(db.value("SELECT count(*) FROM store.leaves WHERE rowid < ?", [_sorted_rows(db)]))


def _sorted_rows(db: Database) -> int:
    found = db.run("SELECT value FROM store.meta WHERE key = ?", [_SORTED_ROWS])
    return int(found[0][0]) if found else 0
