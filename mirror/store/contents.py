"""Which content is stored, what names it, and what is still to be downloaded of the files of runs.

Content is stored by digest, whatever names it. A name is a row of `store.content_names`: a kind, its owner and a name.
Content that nothing names any more is deleted after a grace period (`mirror.store.garbage`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mirror.store import columns, files, rids
from mirror.store.blobs import Blobs
from mirror.store.damage import Damage
from mirror.store.database import Database
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction

FILE = "file"
"""The kind of a name that is a file of a run; its owner is the run's rid."""

CURRENT = (
    "(n.digest IS NOT NULL AND n.size = f.size AND n.md5 IS NOT DISTINCT FROM f.md5 "
    "AND (f.md5 IS NOT NULL OR n.updated_at IS NOT DISTINCT FROM f.updated_at))"
)
"""True if the content that name `n` holds is what the list has for file `f`."""

NAMED = "SELECT digest FROM store.content_names WHERE digest IS NOT NULL"
"""The content that something names."""

_NAME = {
    "kind": "VARCHAR",
    "owner": "BIGINT",
    **dict.fromkeys(("name", "digest"), "VARCHAR"),
    "size": "BIGINT",
    "md5": "VARCHAR",
    "updated_at": "TIMESTAMP",
    "attempts": "BIGINT",
    "next_try_at": "TIMESTAMP",
    "error": "VARCHAR",
}
_CONTENT = {"digest": "VARCHAR", "size": "BIGINT", "md5": "VARCHAR", "stored_at": "TIMESTAMP"}


@dataclass(frozen=True)
class Selection:
    """The files whose content is wanted: of each run those that match a glob, the smallest first, up to some bytes.

    `most_of_run` and `budget`, the bytes of all content in the mirror, are 0 for no limit.
    """

    globs: tuple[str, ...] = ()
    most_of_run: int = 0
    budget: int = 0

    @property
    def condition(self) -> tuple[str, list[Any]]:
        """The names of files `f` as an SQL condition, with its parameters."""
        if "*" in self.globs or "**" in self.globs:
            return "true", []
        return f"({' OR '.join(['f.name GLOB ?'] * len(self.globs)) or 'false'})", list(self.globs)


@dataclass(frozen=True)
class Wanted:
    """A file of a run whose content is to be downloaded. `stored` is the digest of equal content, if there is some."""

    rid: int
    project: ProjectKey
    run_id: str
    name: str
    size: int
    md5: str | None
    updated_at: datetime | None
    attempts: int = 0
    stored: str | None = None

    @property
    def path(self) -> str:
        """The file as people write it."""
        return f"{self.project}/{self.run_id}: {self.name}"


@dataclass(frozen=True)
class Failure:
    """Why the content of a file is not here, and when it is tried again."""

    file: Wanted
    error: str
    next_try_at: datetime


def wanting(
    db: Database, selection: Selection, now: datetime, projects: Collection[ProjectKey] | None = None
) -> list[int]:
    """The rids of the runs with files that are to be downloaded now, in the order in which they were mirrored."""
    condition, params = selection.condition
    rows = db.run(
        f"""
        SELECT DISTINCT r.rid, r.entity, r.project
        FROM store.run_files AS f JOIN store.run_records AS r ON r.rid = f.rid
        LEFT JOIN store.content_names AS n ON n.kind = '{FILE}' AND n.owner = f.rid AND n.name = f.name
        WHERE r.deleted_at IS NULL AND {condition} AND {CURRENT} IS NOT TRUE
        AND (n.next_try_at IS NULL OR n.next_try_at <= ?) ORDER BY r.rid
        """,
        [*params, now],
    )
    return [rid for rid, *project in rows if projects is None or ProjectKey(*project) in projects]


def wanted(
    db: Database, selection: Selection, now: datetime, numbers: Sequence[int]
) -> tuple[list[Wanted], tuple[int, int]]:
    """The files of these runs that are to be downloaded now, and the number and bytes of those beyond `most_of_run`."""
    condition, params = selection.condition
    among, more = rids.among(numbers)
    rows = db.run(
        f"""
        SELECT f.rid, r.entity, r.project, r.run_id, f.name, f.size, f.md5, f.updated_at, coalesce(n.attempts, 0),
               (SELECT min(c.digest) FROM store.contents AS c WHERE c.md5 = f.md5 AND c.size = f.size), f.total
        FROM (
            SELECT f.*, sum(f.size) OVER (PARTITION BY f.rid ORDER BY f.size, f.name) AS total
            FROM store.run_files AS f WHERE {among} AND {condition}
        ) AS f
        JOIN store.run_records AS r ON r.rid = f.rid
        LEFT JOIN store.content_names AS n ON n.kind = '{FILE}' AND n.owner = f.rid AND n.name = f.name
        WHERE r.deleted_at IS NULL AND {CURRENT} IS NOT TRUE AND (n.next_try_at IS NULL OR n.next_try_at <= ?)
        ORDER BY f.rid, f.size, f.name
        """,
        [*more, *params, now],
    )
    found = []
    beyond = beyond_bytes = 0
    for rid, entity, project, run_id, *of_file, total in rows:
        if selection.most_of_run and total > selection.most_of_run:
            beyond, beyond_bytes = beyond + 1, beyond_bytes + of_file[1]
        else:
            found.append(Wanted(rid, ProjectKey(entity, project), run_id, *of_file))
    return found, (beyond, beyond_bytes)


def stored_bytes(db: Database) -> int:
    """The bytes of all content."""
    return int(db.value("SELECT coalesce(sum(size), 0)::BIGINT FROM store.contents"))


def count_held(db: Database) -> int:
    """How many names have content."""
    return int(db.value("SELECT count(digest) FROM store.content_names"))


def next_try(db: Database) -> datetime | None:
    """When the next failed download is due; None if nothing failed."""
    found: datetime | None = db.value("SELECT min(next_try_at) FROM store.content_names")
    return found


def newest_list(db: Database) -> datetime | None:
    """When a list of files was last pulled."""
    found: datetime | None = db.value("SELECT max(listed_at) FROM store.run_extras")
    return found


def save(tx: Transaction, blobs: Blobs, held: Sequence[tuple[Wanted, str]], failed: Sequence[Failure]) -> None:
    """Record that these files have content, with its digest, and why others have none.

    What the server said of a file last replaces its entry in the list. Content that is not on the disk any more is not
    recorded, so that it is downloaded again.
    """
    db = tx.db
    present = [(file, digest) for file, digest in held if blobs.has(digest, file.size)]
    now = datetime.now(UTC).replace(tzinfo=None)
    rows = [
        (FILE, file.rid, file.name, digest, file.size, file.md5, file.updated_at, 0, None, None)
        for file, digest in present
    ]
    contents = {digest: (digest, file.size, file.md5, now) for file, digest in present}
    with db.table("named", columns.table(_NAME, rows)), db.table("found", columns.table(_CONTENT, contents.values())):
        db.run(
            "DELETE FROM store.content_names AS n USING named AS m "
            "WHERE n.kind = m.kind AND n.owner = m.owner AND n.name = m.name"
        )
        # Runs may have been removed from the mirror meanwhile.
        db.run(
            "INSERT INTO store.content_names BY NAME SELECT * FROM named "
            "WHERE owner IN (SELECT rid FROM store.run_records)"
        )
        db.run(
            "INSERT INTO store.contents BY NAME SELECT * FROM found "
            "WHERE digest NOT IN (SELECT digest FROM store.contents)"
        )
        db.run(
            "UPDATE store.contents SET unnamed_at = NULL "
            "WHERE unnamed_at IS NOT NULL AND digest IN (SELECT digest FROM found)"
        )
        db.run(
            "UPDATE store.run_files AS f SET size = m.size, md5 = m.md5, updated_at = m.updated_at FROM named AS m "
            "WHERE f.rid = m.owner AND f.name = m.name AND (f.size <> m.size OR f.md5 IS DISTINCT FROM m.md5 "
            "OR f.updated_at IS DISTINCT FROM m.updated_at)"
        )
    _save_failures(db, failed)


def _save_failures(db: Database, failed: Sequence[Failure]) -> None:
    """Record failures; content that is held of an earlier version of a file stays named."""
    rows = [
        (FILE, one.file.rid, one.file.name, None, None, None, None, one.file.attempts + 1, one.next_try_at, one.error)
        for one in failed
    ]
    if not rows:
        return
    with db.table("failures", columns.table(_NAME, rows)):
        db.run(
            "UPDATE store.content_names AS n SET attempts = m.attempts, next_try_at = m.next_try_at, error = m.error "
            "FROM failures AS m WHERE n.kind = m.kind AND n.owner = m.owner AND n.name = m.name"
        )
        db.run(
            "INSERT INTO store.content_names BY NAME SELECT * FROM failures AS m WHERE NOT EXISTS ("
            "SELECT 1 FROM store.content_names AS n WHERE n.kind = m.kind AND n.owner = m.owner AND n.name = m.name) "
            "AND owner IN (SELECT rid FROM store.run_records)"
        )


def retry_now(tx: Transaction) -> None:
    """Have every failed download tried again now."""
    tx.db.run("UPDATE store.content_names SET next_try_at = NULL WHERE next_try_at IS NOT NULL")


def drop(tx: Transaction, digests: Iterable[str]) -> None:
    """Forget content that is missing or damaged on the disk, so that it is downloaded again."""
    wanted = [list(digests)]
    for table in ("content_names", "contents"):
        tx.db.run(f"DELETE FROM store.{table} WHERE digest IN (SELECT unnest(?::VARCHAR[]))", wanted)


def forget(tx: Transaction, numbers: Iterable[int]) -> None:
    """Let go of the content of these runs' files."""
    tx.db.run(
        f"DELETE FROM store.content_names WHERE kind = '{FILE}' AND owner IN (SELECT unnest(?::BIGINT[]))",
        [list(numbers)],
    )


def note_outcome(tx: Transaction, outcome: dict[str, Any]) -> None:
    """Record the outcome of the last round of downloads, for `mirror status`."""
    tx.db.run("DELETE FROM store.meta WHERE key = 'contents'")
    tx.db.run("INSERT INTO store.meta VALUES ('contents', ?)", [json.dumps(outcome)])


def named(run: Callable[[str], list[Any]]) -> dict[str, int]:
    """The bytes of each content that something names, by digest, read with `run`, which runs one statement.

    Empty for a file that an older version published.
    """
    there = run(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() AND schema_name = 'store' "
        "AND table_name = 'contents'"
    )
    sql = f"SELECT digest, size FROM store.contents WHERE digest IN ({NAMED}) ORDER BY digest"
    return dict(run(sql)) if there else {}


def damage(db: Database, blobs: Blobs, project: ProjectKey, *, deep: bool) -> dict[str, Damage]:
    """The contents of a project's files that are missing or have another size, by digest; with `deep`, other bytes.

    A content that several files have is named with the first of them.
    """
    sizes = named(db.run)
    rows = db.run(
        f"""
        SELECT n.digest, min(r.run_id || ': ' || n.name), count(*)
        FROM store.content_names AS n JOIN store.run_records AS r ON r.rid = n.owner
        WHERE n.kind = '{FILE}' AND n.digest IS NOT NULL AND r.entity = ? AND r.project = ? GROUP BY ALL ORDER BY 2
        """
        if sizes
        else "SELECT NULL, NULL, NULL WHERE ? = ? AND false",
        [project.entity, project.project],
    )
    broken: dict[str, Damage] = {}
    for digest, first, count in rows:
        path, size = blobs.path(digest), sizes.get(digest, -1)
        problem = files.problem(path, size, digest if deep else None)
        if problem:
            more = f" and {count - 1:,} more files" if count > 1 else ""
            expected = f"the {size:,} bytes of {project}/{first}{more}"
            broken[digest] = Damage(None, "file", problem, expected, f"{path} is lost or damaged")
    return broken


def mend(tx: Transaction, blobs: Blobs, project: ProjectKey) -> list[str]:
    """Forget damaged content of a project, so that it is downloaded again. Returns one line per content."""
    broken = damage(tx.db, blobs, project, deep=True)
    for digest in broken:
        blobs.remove(digest)
    if broken:
        drop(tx, broken)
    return [f"forgot {one.expected}, of which there was {one.found}" for one in broken.values()]


def listed(db: Database) -> list[tuple[str, int]]:
    """The digest and the bytes of all content, by digest."""
    return db.run("SELECT digest, size FROM store.contents ORDER BY digest")
