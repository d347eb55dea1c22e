"""Console lines and file lists of runs, and how much of these and of the system metrics is mirrored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from msgspec.structs import astuple

from mirror.store import columns, retries, rids
from mirror.store.database import Database
from mirror.store.records import ConsoleLine, ConsolePage, ProjectKey, RunExtras, RunFile
from mirror.store.transaction import Transaction

_SHAPE = {
    "rid": "BIGINT",
    "events": "BIGINT",
    "log_lines": "BIGINT",
    "log_cursor": "VARCHAR",
    "log_from": "BIGINT",
    "log_live": "BOOLEAN",
    "file": "VARCHAR",
    "attempts": "BIGINT",
    "next_try_at": "TIMESTAMP",
    "listed_at": "TIMESTAMP",
    "artifacts_at": "TIMESTAMP",
}
_FILE = {
    "rid": "BIGINT",
    **dict.fromkeys(("file_id", "name"), "VARCHAR"),
    "size": "BIGINT",
    "mimetype": "VARCHAR",
    "updated_at": "TIMESTAMP",
    "md5": "VARCHAR",
}
_LINE = {
    "rid": "BIGINT",
    "line": "BIGINT",
    "logged_at": "TIMESTAMP",
    **dict.fromkeys(("level", "text", "label"), "VARCHAR"),
}
_COVERED = {"rid": "BIGINT", "first": "BIGINT", "beyond": "BIGINT", "last": "BOOLEAN"}


def find(
    db: Database,
    project: ProjectKey,
    *,
    events: bool = False,
    console: bool = False,
    metadata_file: bool = False,
    file_list: bool = False,
    artifacts: bool = False,
) -> list[RunExtras]:
    """The runs that may lack some of the selected parts, in the order in which they were first mirrored.

    Leaves out deleted runs, and runs of which local files hold more than the server.
    """
    rows = db.run(
        f"""
        SELECT r.rid, r.run_id, r.state, r.server_events, r.server_log_lines, x.events, x.log_lines, x.log_cursor,
               coalesce(x.log_from, 0), coalesce(x.log_live, false), x.file, coalesce(x.attempts, 0), x.next_try_at,
               x.listed_at, x.artifacts_at
        FROM store.run_records AS r LEFT JOIN store.run_extras AS x ON x.rid = r.rid
        WHERE r.entity = $entity AND r.project = $project AND r.deleted_at IS NULL
        AND r.rid NOT IN (SELECT l.rid FROM store.local_states AS l) AND (
            ($events AND (r.server_events IS NULL OR r.server_events <> coalesce(x.events, 0)))
            OR ($console AND (
                r.server_log_lines IS NULL OR r.server_log_lines <> coalesce(x.log_lines, 0) OR x.log_live
            ))
            OR ($metadata_file AND coalesce(x.file, 'not yet') = 'not yet')
            OR ($file_list AND {retries.outdated("x.listed_at", "r.synced_at", "$now")})
            OR ($artifacts AND {retries.outdated("x.artifacts_at", "r.synced_at", "$now")})
        )
        ORDER BY r.rid
        """,
        {
            "entity": project.entity,
            "project": project.project,
            "events": events,
            "console": console,
            "metadata_file": metadata_file,
            "file_list": file_list,
            "artifacts": artifacts,
            "now": datetime.now(UTC).replace(tzinfo=None),
        },
    )
    return [RunExtras(*row) for row in rows]


def save(tx: Transaction, entries: Sequence[RunExtras]) -> None:
    """Replace what was recorded about these runs."""
    forget(tx, [entry.rid for entry in entries])
    rows = [[getattr(entry, name) for name in _SHAPE] for entry in entries]
    with tx.db.table("extras", columns.table(_SHAPE, rows)):
        tx.db.run("INSERT INTO store.run_extras BY NAME SELECT * FROM extras")


def forget(tx: Transaction, numbers: Iterable[int]) -> None:
    """Have everything pulled again; what is mirrored stays until it is replaced."""
    condition, params = rids.among(numbers)
    tx.db.run(f"DELETE FROM store.run_extras WHERE {condition}", params)


def forget_lists(tx: Transaction, project: ProjectKey, run_ids: Iterable[str]) -> None:
    """Have the lists of files of these runs pulled again; the mirrored ones stay until then."""
    condition, params = rids.among(rids.find(tx.db, project, run_ids).values())
    # A time long ago, not NULL: the mirrored lists can be shown until they are replaced.
    tx.db.run(
        "UPDATE store.run_extras SET listed_at = TIMESTAMP '1970-01-01', attempts = 0, next_try_at = NULL "
        f"WHERE listed_at IS NOT NULL AND {condition}",
        params,
    )


def put_console(tx: Transaction, project: ProjectKey, pages: Sequence[ConsolePage]) -> None:
    """Replace the lines that each page covers; a last page also replaces all lines after it."""
    numbers = rids.find(tx.db, project, [page.run_id for page in pages])
    present = [page for page in pages if page.run_id in numbers]
    covered = [
        (numbers[page.run_id], page.first, max((line[0] + 1 for line in page.lines), default=page.first), page.last)
        for page in present
    ]
    lines = [
        (numbers[page.run_id], *line, label)
        for page in present
        for line, label in zip(page.lines, page.labels or [None] * len(page.lines), strict=True)
    ]
    with tx.db.table("covered", columns.table(_COVERED, covered)), tx.db.table("lines", columns.table(_LINE, lines)):
        tx.db.run(
            "DELETE FROM store.console_lines AS c USING covered AS p "
            "WHERE c.rid = p.rid AND c.line >= p.first AND (p.last OR c.line < p.beyond)"
        )
        tx.db.run("INSERT INTO store.console_lines BY NAME SELECT * FROM lines")


def drop_lines(tx: Transaction, project: ProjectKey, run_ids: Iterable[str]) -> None:
    """Delete the console lines of these runs."""
    condition, params = rids.among(rids.find(tx.db, project, run_ids).values())
    tx.db.run(f"DELETE FROM store.console_lines WHERE {condition}", params)


def lines(db: Database, project: ProjectKey, wanted: Mapping[str, int]) -> dict[str, ConsoleLine]:
    """The console line with the given number of each run. Runs for which it is not mirrored are left out."""
    numbers = rids.find(db, project, wanted)
    names = {rid: run_id for run_id, rid in numbers.items()}
    pairs = [(rid, wanted[run_id]) for run_id, rid in numbers.items()]
    with db.table("wanted", columns.table({"rid": "BIGINT", "line": "BIGINT"}, pairs)):
        found = db.run(
            "SELECT rid, line, logged_at, level, text FROM store.console_lines JOIN wanted USING (rid, line)",
        )
    return {names[rid]: (line, logged_at, level, text) for rid, line, logged_at, level, text in found}


def put_file_lists(tx: Transaction, project: ProjectKey, files: Mapping[str, Sequence[RunFile]]) -> None:
    """Replace the mirrored lists of files of these runs."""
    numbers = rids.find(tx.db, project, files)
    condition, params = rids.among(numbers.values())
    rows = [(rid, *astuple(file)) for run_id, rid in numbers.items() for file in files[run_id]]
    tx.db.run(f"DELETE FROM store.run_files WHERE {condition}", params)
    with tx.db.table("listed", columns.table(_FILE, rows)):
        tx.db.run("INSERT INTO store.run_files BY NAME SELECT * FROM listed")
