"""Which content is stored, what names it, and what is still to be downloaded of the files of runs and artifacts.

Content is stored by digest, whatever names it. A name is a row of `store.content_names`: a kind, its owner and a name.
Content that nothing names any more is deleted after a grace period (`mirror.store.garbage`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from mirror.settings.values import ArtifactPattern
from mirror.store import aside, columns, files, meta, retries, rids
from mirror.store.blobs import Blobs
from mirror.store.damage import Damage
from mirror.store.database import Database, has
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction

FILE = "file"
"""The kind of a name that is a file of a run; its owner is the run's rid."""

TABLE = "table"
"""The kind of a name that is the digest of the file of a W&B Table, or `SOURCE`, and names its Parquet."""

ARTIFACT = "artifact"
"""The kind of a name that is a file of an artifact version; its owner is the version's aid."""

OF_PIECES = "(n.name GLOB '*.joined-table.json' OR n.name GLOB '*.partitioned-table.json')"
"""True if name `n` is the file of a W&B Table that consists of others (`mirror.store.table_pieces`)."""

SOURCE = "(n.kind || '/' || n.owner || '/' || n.name)"
"""What names the Parquet of such a table, the file `n`: equal files in two artifacts name different tables."""

_OWNED = (
    f"((kind = '{FILE}' AND owner IN (SELECT rid FROM store.run_records)) "
    f"OR (kind = '{ARTIFACT}' AND owner IN (SELECT aid FROM store.artifact_records)))"
)
"""True for a name whose run or artifact is still mirrored."""

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


class Selection(Struct, frozen=True):
    """The files whose content is wanted: of each run those that match a glob, the smallest first, up to some bytes.

    Of artifacts, all files of the versions that match a pattern. `most_of_run` and `budget`, the bytes of all content
    in the mirror, are 0 for no limit.
    """

    globs: tuple[str, ...] = ()
    most_of_run: int = 0
    budget: int = 0
    artifacts: tuple[ArtifactPattern, ...] = ()

    def __bool__(self) -> bool:
        """Return True if the content of anything is wanted."""
        return bool(self.globs or self.artifacts)

    @property
    def condition(self) -> tuple[str, list[Any]]:
        """The names of files `f` as an SQL condition, with its parameters."""
        if "*" in self.globs or "**" in self.globs:
            return "true", []
        return f"({' OR '.join(['f.name GLOB ?'] * len(self.globs)) or 'false'})", list(self.globs)


class Wanted(Struct, frozen=True):
    """A file whose content is to be downloaded, of a run or of an artifact version.

    `owner` is the rid or the aid, `holder` the server's id of the run or artifact, and `shown` what people call it in
    its project. `size` is -1 if it is not known. `stored` is the digest of equal content, if there is some.
    """

    owner: int
    project: ProjectKey
    holder: str
    name: str
    size: int
    md5: str | None
    updated_at: datetime | None
    attempts: int = 0
    stored: str | None = None
    kind: str = FILE
    shown: str = ""

    @property
    def path(self) -> str:
        """The file as people write it."""
        return f"{self.project}/{self.shown or self.holder}: {self.name}"


class Failure(Struct, frozen=True):
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
        WHERE r.deleted_at IS NULL AND r.storage_id <> '' AND {condition} AND {CURRENT} IS NOT TRUE
        AND {retries.due("n.next_try_at")} ORDER BY r.rid
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
        WHERE r.deleted_at IS NULL AND r.storage_id <> '' AND {CURRENT} IS NOT TRUE
        AND {retries.due("n.next_try_at")}
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


def retry_due(db: Database, now: datetime) -> bool:
    """Return True if a failed download is to be tried again now."""
    failed = f"next_try_at IS NOT NULL AND {retries.due('next_try_at')}"
    return bool(db.value(f"SELECT count(*) FROM store.content_names WHERE {failed}", [now]))


def lists(db: Database) -> tuple[Any, ...]:
    """What changes when a list of files, a manifest or a list of artifacts was pulled.

    Not the newest time: after the clock was set back, that of a new list is an older one.
    """
    of_artifacts = "SELECT sum(epoch_us(seen_at)), count(entries_of) FROM store.artifact_records"
    return db.value("SELECT sum(epoch_us(listed_at)) FROM store.run_extras"), *db.run(of_artifacts)[0]


def save(tx: Transaction, blobs: Blobs, held: Sequence[tuple[Wanted, str]], failed: Sequence[Failure]) -> None:
    """Record that these files have content, with its digest, and why others have none.

    What the server said of a file last replaces its entry in the list. Content that is not on the disk any more is not
    recorded, so that it is downloaded again.
    """
    db = tx.db
    present = [(file, digest) for file, digest in held if blobs.has(digest, file.size)]
    now = datetime.now(UTC).replace(tzinfo=None)
    rows = [
        (file.kind, file.owner, file.name, digest, file.size, file.md5, file.updated_at, 0, None, None)
        for file, digest in present
    ]
    contents = {digest: (digest, file.size, file.md5, now) for file, digest in present}
    with db.table("named", columns.table(_NAME, rows)), db.table("found", columns.table(_CONTENT, contents.values())):
        db.run(
            "DELETE FROM store.content_names AS n USING named AS m "
            "WHERE n.kind = m.kind AND n.owner = m.owner AND n.name = m.name"
        )
        # Runs may have been removed from the mirror meanwhile.
        db.run(f"INSERT INTO store.content_names BY NAME SELECT * FROM named WHERE {_OWNED}")
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
            f"WHERE m.kind = '{FILE}' AND f.rid = m.owner AND f.name = m.name "
            "AND (f.size <> m.size OR f.md5 IS DISTINCT FROM m.md5 OR f.updated_at IS DISTINCT FROM m.updated_at)"
        )
        db.run(
            "UPDATE store.artifact_entries AS f SET size = m.size FROM named AS m "
            f"WHERE m.kind = '{ARTIFACT}' AND f.aid = m.owner AND f.path = m.name AND f.size IS NULL"
        )
    _save_failures(db, failed)


def _save_failures(db: Database, failed: Sequence[Failure]) -> None:
    """Record failures; content that is held of an earlier version of a file stays named."""
    rows = [
        (one.file.kind, one.file.owner, one.file.name, *[None] * 4, one.file.attempts + 1, one.next_try_at, one.error)
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
            f"AND {_OWNED}"
        )


def retry_now(tx: Transaction) -> None:
    """Have every failed download, also of manifests, tried again now."""
    for table in ("content_names", "artifact_records"):
        tx.db.run(f"UPDATE store.{table} SET next_try_at = NULL WHERE next_try_at IS NOT NULL")


def drop(tx: Transaction, digests: Iterable[str]) -> None:
    """Forget content that is missing or damaged on the disk, so that it is downloaded again."""
    wanted = [list(digests)]
    for table in ("content_names", "contents"):
        tx.db.run(f"DELETE FROM store.{table} WHERE digest IN (SELECT unnest(?::VARCHAR[]))", wanted)


def forget(tx: Transaction, numbers: Iterable[int], kind: str = FILE) -> None:
    """Let go of the content of these runs' files, or of what else has this kind."""
    owned: list[Any] = [kind, list(numbers)]
    here = "n.kind = ? AND n.owner IN (SELECT unnest(?::BIGINT[]))"
    # Numbers of artifacts may be used again, so what they name goes at once.
    sources = tx.db.run(f"SELECT {SOURCE} FROM store.content_names AS n WHERE {here} AND {OF_PIECES}", owned)
    if sources:
        named = [[source for (source,) in sources]]
        tx.db.run(
            f"DELETE FROM store.content_names WHERE kind = '{TABLE}' AND name IN (SELECT unnest(?::VARCHAR[]))", named
        )
        tx.db.run("DELETE FROM store.converted_tables WHERE source IN (SELECT unnest(?::VARCHAR[]))", named)
    tx.db.run(f"DELETE FROM store.content_names AS n WHERE {here}", owned)


def note_outcome(tx: Transaction, outcome: dict[str, Any]) -> None:
    """Record the outcome of the last round of downloads, for `mirror status`."""
    meta.put(tx.db, "contents", json.dumps(outcome))


def named(run: Callable[[str], list[Any]]) -> dict[str, int]:
    """The bytes of each content that something names, by digest, read with `run`, which runs one statement.

    Empty for a file that an older version published.
    """
    if not has(run, "contents"):
        return {}
    return dict(run(f"SELECT digest, size FROM store.contents WHERE digest IN ({NAMED}) ORDER BY digest"))


def damage(db: Database, blobs: Blobs, project: ProjectKey, *, deep: bool) -> dict[str, Damage]:
    """The contents of a project's files that are missing or have another size, by digest; with `deep`, other bytes.

    A content that several files have is named with the first of them.
    """
    sizes = named(db.run)
    rows = _named_by(db, project) if sizes else []
    broken: dict[str, Damage] = {}
    for digest, first, count in rows:
        path, size = blobs.path(digest), sizes.get(digest, -1)
        problem = files.problem(path, size, digest if deep else None)
        if problem:
            more = f" and {count - 1:,} more files" if count > 1 else ""
            expected = f"the {size:,} bytes of {project}/{first}{more}"
            broken[digest] = Damage(None, "file", problem, expected, f"{path} is lost or damaged")
    return broken


def _named_by(db: Database, project: ProjectKey) -> list[tuple[str, str, int]]:
    """Each content that files of a project name: its digest, the first of these files, and their number."""
    of_artifacts = f"""
        UNION ALL
        SELECT n.digest, a.collection || ':v' || a.version_number || ': ' || n.name,
               CASE WHEN {OF_PIECES} THEN {SOURCE} END
        FROM store.content_names AS n JOIN store.artifact_records AS a ON a.aid = n.owner
        WHERE n.kind = '{ARTIFACT}' AND a.entity = $entity AND a.project = $project
    """
    # The published file of an older version has no artifacts.
    there = has(db.run, "artifact_records")
    return db.run(
        f"""
        WITH named AS (
            SELECT n.digest, r.run_id || ': ' || n.name AS file, CASE WHEN {OF_PIECES} THEN {SOURCE} END AS source
            FROM store.content_names AS n JOIN store.run_records AS r ON r.rid = n.owner
            WHERE n.kind = '{FILE}' AND r.entity = $entity AND r.project = $project
            {of_artifacts if there else ""}
        )
        SELECT digest, min(file), count(*) FROM (
            SELECT digest, file FROM named UNION ALL
            SELECT p.digest, named.file || ' as Parquet' FROM named
            JOIN store.content_names AS p ON p.kind = '{TABLE}' AND p.name = named.digest
            UNION ALL
            SELECT p.digest, named.file || ' as Parquet' FROM named
            JOIN store.content_names AS p ON p.kind = '{TABLE}' AND p.name = named.source
        ) WHERE digest IS NOT NULL GROUP BY ALL ORDER BY 2
        """,
        {"entity": project.entity, "project": project.project},
    )


def mend(tx: Transaction, blobs: Blobs, project: ProjectKey) -> list[str]:
    """Forget damaged content of a project, so that it is downloaded again. Returns one line per content.

    The damaged files are moved to the folder `aside`, since the server may have them no more.
    """
    broken = damage(tx.db, blobs, project, deep=True)
    paths = [blobs.path(digest) for digest in broken]
    for path in paths:
        files.check_damaged(path)
    if there := [path for path in paths if path.exists()]:
        aside.put(blobs.folder.parent, there)
    if broken:
        drop(tx, broken)
    return [f"forgot {one.expected}, of which there was {one.found}" for one in broken.values()]


def listed(db: Database) -> list[tuple[str, int]]:
    """The digest and the bytes of all content, by digest."""
    return db.run("SELECT digest, size FROM store.contents ORDER BY digest")
