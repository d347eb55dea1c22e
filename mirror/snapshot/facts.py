"""What the server told of projects, of runs and of itself, as the mirror keeps it; see `mirror.store.facts`.

A field that is not in what is given here was not told, and is asked of the server. Files that an older program
published hold none of this.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from mirror.snapshot.paths import Project
from mirror.snapshot.run_query import among

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Facts = dict[str, Any]

NO_PROJECT = 0
"""The number of a project that no server has: of one whose runs were all read from local files."""


def projects(connection: DuckDBPyConnection, entity: str, name: str | None = None) -> list[Facts]:
    """The mirrored projects of an entity, or just the one named, as they were registered."""
    here = "WHERE entity = ? AND (? IS NULL OR project = ?) ORDER BY number"
    asked = [entity, name, name]
    columns = (
        "entity, project, number, covered_to IS NULL AND last_success_at IS NULL, "
        "reconciled_at IS NOT NULL OR last_success_at IS NOT NULL"
    )
    rows = _rows(connection, f"SELECT {columns}, facts, history FROM store.projects {here}", asked)
    if rows is None:
        rows = connection.execute(f"SELECT {columns}, NULL, NULL FROM store.projects {here}", asked).fetchall()
    found = []
    for owner, project, number, never_synced, listed, text, globs in rows:
        key = Project(owner, project)
        local = never_synced and not text and not _on_server(connection, key)
        told = orjson.loads(text) if text else _local(connection, key) if local else {}
        beside = {"key": key, "registered": number, "listed": listed or local, "globs": globs}
        found.append({**told, **beside})
    return found


def _on_server(connection: DuckDBPyConnection, project: Project) -> bool:
    """Whether any mirrored run of the project came from the server."""
    asked = "SELECT 1 FROM store.runs WHERE entity = ? AND project = ? AND storage_id <> '' LIMIT 1"
    return bool(connection.execute(asked, list(project)).fetchall())


def _local(connection: DuckDBPyConnection, project: Project) -> Facts:
    """A project that no pass found on the server: what there is to say of it the mirror knows."""
    created = connection.execute(
        "SELECT min(created_at), max(heartbeat_at), count(*) FROM store.runs WHERE entity = ? AND project = ?",
        list(project),
    ).fetchall()
    began, active, runs = created[0]
    return {
        "id": own_id("Project", "v1", project.project, project.entity),
        "internalId": own_id("ProjectInternalId", str(NO_PROJECT)),
        "createdAt": instant(began),
        "updatedAt": instant(active),
        "lastActive": instant(active),
        "totalRuns": runs,
        **dict.fromkeys(("description", "access", "user")),
        **dict.fromkeys(("isBenchmark", "readOnly"), False),
        "entity": {"id": own_id("Entity", project.entity), "name": project.entity},
    }


def in_order(found: Sequence[Facts], order: str | None) -> list[Facts] | None:
    """Projects by `createdAt`, `lastActive` or `name`, `-` before it for the last first; those of one time by number.

    None for any other order, and where it does not follow from what is known.
    """
    text = order or "-createdAt"
    column = _ORDERS.get(text.lstrip("+-"))
    named = [{**facts, "name": facts["key"].project} for facts in found]
    if column is None or not all(column in facts and "internalId" in facts for facts in named):
        return None
    numbered = sorted(named, key=lambda facts: internal_number(facts) or 0)
    return sorted(numbered, key=lambda facts: facts[column] or "", reverse=text.startswith("-"))


_ORDERS = {
    **dict.fromkeys(("createdAt", "created_at"), "createdAt"),
    **dict.fromkeys(("lastActive", "last_active"), "lastActive"),
    "name": "name",
}


def internal_number(project: Mapping[str, Any]) -> int | None:
    """The number of a project, as `internalId` holds it; None where that is of another form."""
    text = str(project.get("internalId") or "")
    try:
        decoded = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        decoded = ""
    number = decoded.rpartition(":")[2] or text
    return int(number) if number.isdecimal() else None


def server(connection: DuckDBPyConnection, base_url: str) -> tuple[Facts, timedelta]:
    """What the server told of itself and of whoever holds the key, and how old that is; empty where it did not."""
    asked = "SELECT facts, told_at FROM store.server_facts WHERE base_url = ?"
    rows = _rows(connection, asked, [base_url.rstrip("/")])
    if not rows:
        return {}, timedelta.max
    return orjson.loads(rows[0][0]), datetime.now(UTC).replace(tzinfo=None) - rows[0][1]


def of_runs(connection: DuckDBPyConnection, rids: Sequence[int]) -> dict[int, Facts]:
    """What was told of these runs, by their number, and of some others, too."""
    here, params = among(rids)
    rows = _rows(connection, f"SELECT rid, facts FROM store.run_facts WHERE {here}", params)
    return {rid: orjson.loads(text) for rid, text in rows or ()}


Heavy = tuple[str | None, str | None]
"""JSON texts: the latest system metrics, which may be `null`, and what was told of the keys; None: not told."""


def heavy(connection: DuckDBPyConnection, rids: Sequence[int]) -> dict[int, Heavy]:
    """What was told of these runs that may be long, by their number."""
    here, params = among(rids)
    rows = _rows(connection, f"SELECT rid, system_metrics, keys FROM store.run_facts WHERE {here}", params)
    return {rid: (metrics, keys) for rid, metrics, keys in rows or ()}


def exported_to(connection: DuckDBPyConnection, rid: int) -> int | None:
    """Up to which step the server has exported the history of a run; None where it has not, as far as is known."""
    rows = _rows(connection, "SELECT exported_to FROM store.run_exports WHERE rid = ?", [rid])
    return rows[0][0] if rows else None


def without_history(connection: DuckDBPyConnection, project: Project, live: Sequence[str]) -> list[int]:
    """The runs of which the server had told of more history rows than are mirrored, but for those in a live state."""
    found = connection.execute(
        "SELECT r.rid FROM store.runs AS r JOIN store.run_history AS h ON h.rid = r.rid "
        "WHERE r.entity = ? AND r.project = ? AND r.deleted_at IS NULL AND r.storage_id <> '' "
        "AND coalesce(h.rows, 0) < r.server_rows "
        "AND (coalesce(h.rows, 0) = 0 OR r.state NOT IN (SELECT unnest(?::VARCHAR[])))",
        [*project, list(live)],
    ).fetchall()
    return [rid for (rid,) in found]


def without_facts(connection: DuckDBPyConnection, project: Project) -> list[int]:
    """The runs of the server of which an older program has kept nothing of what is told here."""
    here = "r.entity = ? AND r.project = ? AND r.deleted_at IS NULL AND r.storage_id <> ''"
    asked = f"SELECT r.rid FROM store.runs AS r WHERE {here}"
    told = " AND NOT EXISTS (SELECT 1 FROM store.run_facts AS f WHERE f.rid = r.rid)"
    rows = _rows(connection, asked + told, project)
    return [rid for (rid,) in (connection.execute(asked, list(project)).fetchall() if rows is None else rows)]


def unread(connection: DuckDBPyConnection, project: Project) -> dict[int, str]:
    """The runs of which the server sent something that could not be read: the columns, comma-joined."""
    asked = (
        "SELECT rid, unread FROM store.runs "
        "WHERE entity = ? AND project = ? AND deleted_at IS NULL AND unread IS NOT NULL"
    )
    return dict(_rows(connection, asked, project) or ())


def events_held(connection: DuckDBPyConnection, rid: int, live: Sequence[str] | None = None) -> bool:
    """Whether the mirror holds the system metrics of a run, of which there may be none.

    Of a run in one of the `live` states those that there were when they were taken, of any other all; without `live`
    the former will do for all runs.
    """
    there = connection.execute(
        "SELECT server_events, storage_id, state FROM store.runs WHERE rid = ?", [rid]
    ).fetchall()
    taken = connection.execute("SELECT events FROM store.run_extras WHERE rid = ?", [rid]).fetchall()
    if not there:
        return False
    counted, storage_id, state = there[0]
    # A run that the server does not know was read from its file, which holds all there are.
    if counted == 0 or not storage_id:
        return True
    held = taken[0][0] if taken else None
    return held is not None and (counted in (None, held) or live is None or state in live)


def own_id(*parts: str) -> str:
    """An id for what the server does not know: a run that was read from a local file, and its project."""
    return base64.b64encode(":".join(parts).encode()).decode()


def instant(value: datetime | None) -> str | None:
    """A time as the server writes it."""
    return None if value is None else f"{value.isoformat()}Z"


def _rows(connection: DuckDBPyConnection, sql: str, params: Iterable[Any]) -> list[Any] | None:
    """The rows; None where the published file is of an older program."""
    import duckdb

    try:
        return connection.execute(sql, list(params)).fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        return None
