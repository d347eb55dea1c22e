"""The files beside the files of local runs: their lists, and their content, which no server is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from mirror.store import console, contents, retries
from mirror.store.blobs import Blobs
from mirror.store.database import Database
from mirror.store.records import ProjectKey, RunFile
from mirror.store.transaction import Transaction


class Unlisted(Struct, frozen=True):
    """A local run whose list of files is older than what was read of it; `paths` are its `.wandb` files, by start."""

    rid: int
    project: ProjectKey
    run_id: str
    paths: Sequence[str]


class Held(Struct, frozen=True):
    """A file of a run in the store. `digest` is None if its content is not stored."""

    size: int
    md5: str | None
    updated_at: datetime | None
    digest: str | None


def unlisted(db: Database) -> list[Unlisted]:
    """The runs that are only local and were read since their files were listed, or whose files never were."""
    rows = db.run(
        "SELECT r.rid, r.entity, r.project, r.run_id, f.paths FROM store.local_states AS l "
        "JOIN store.run_records AS r ON r.rid = l.rid "
        "JOIN (SELECT entity, project, run_id, max(read_at) AS read_at, list(path ORDER BY started_at, path) AS paths "
        "FROM store.local_files WHERE note IS NULL GROUP BY ALL) AS f "
        "ON f.entity = r.entity AND f.project = r.project AND f.run_id = r.run_id "
        "LEFT JOIN store.run_extras AS x ON x.rid = r.rid "
        f"WHERE r.storage_id = '' AND {retries.outdated('x.listed_at', 'f.read_at', '$now')} ORDER BY r.rid",
        {"now": datetime.now(UTC).replace(tzinfo=None)},
    )
    return [Unlisted(rid, ProjectKey(entity, project), run_id, paths) for rid, entity, project, run_id, paths in rows]


def held(db: Database, rid: int) -> dict[str, Held]:
    """The listed files of a run by name."""
    rows = db.run(
        f"SELECT f.name, f.size, f.md5, f.updated_at, CASE WHEN {contents.CURRENT} THEN n.digest END "
        "FROM store.run_files AS f LEFT JOIN store.content_names AS n "
        f"ON n.kind = '{contents.FILE}' AND n.owner = f.rid AND n.name = f.name WHERE f.rid = ?",
        [rid],
    )
    return {name: Held(*row) for name, *row in rows}


def put(
    tx: Transaction, blobs: Blobs, run: Unlisted, files: Sequence[tuple[RunFile, str | None]], listed_at: datetime
) -> None:
    """Replace a run's list of files, each with the digest of its content if that is stored.

    Does nothing if the run was removed, or pulled from the server, meanwhile.
    """
    db = tx.db
    if not db.value("SELECT count(*) FROM store.run_records WHERE rid = ? AND storage_id = ''", [run.rid]):
        return
    console.put_file_lists(tx, run.project, {run.run_id: [file for file, _ in files]})
    contents.save(
        tx,
        blobs,
        [
            (contents.Wanted(run.rid, run.project, run.run_id, file.name, file.size, file.md5, file.updated_at), digest)
            for file, digest in files
            if digest is not None
        ],
        [],
    )
    db.run(
        f"DELETE FROM store.content_names AS n WHERE n.kind = '{contents.FILE}' AND n.owner = ? "
        "AND NOT EXISTS (SELECT 1 FROM store.run_files AS f WHERE f.rid = n.owner AND f.name = n.name)",
        [run.rid],
    )
    db.run(
        "INSERT INTO store.run_extras (rid) SELECT ? WHERE ? NOT IN (SELECT rid FROM store.run_extras)", [run.rid] * 2
    )
    db.run("UPDATE store.run_extras SET listed_at = ? WHERE rid = ?", [listed_at, run.rid])
