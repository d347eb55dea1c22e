"""Reads what the server returned about projects, runs and itself; `mirror.store.facts` stores it.

A field that is missing from these facts was not returned by the server at the last pass, so callers ask the server
for it. Files published by older versions contain no facts.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from mirror.protocol import LIVE_STATES
from mirror.snapshot.paths import Project
from mirror.snapshot.run_query import among

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

Facts = dict[str, Any]

NO_PROJECT = 0
"""The project number of a project that is on no server, because all of its runs were read from local files."""


def projects(connection: DuckDBPyConnection, entity: str, name: str | None = None) -> list[Facts]:
    """The mirrored projects of an entity, or only the one named, in the order in which they were registered."""
    here = "WHERE entity = ? AND (? IS NULL OR project = ?) ORDER BY number"
    asked = [entity, name, name]
    columns = (
        "entity, project, number, covered_to IS NULL AND last_success_at IS NULL, "
        "reconciled_at IS NOT NULL OR last_success_at IS NOT NULL"
    )
    rows = _rows(connection, f"SELECT {columns}, facts, history FROM store.project_records {here}", asked)
    if rows is None:
        rows = connection.execute(f"SELECT {columns}, NULL, NULL FROM store.project_records {here}", asked).fetchall()
    result = []
    for owner, project, number, never_synced, listed, text, globs in rows:
        key = Project(owner, project)
        local = never_synced and not text and not _on_server(connection, key)
        facts = orjson.loads(text) if text else _local(connection, key) if local else {}
        ours = {"key": key, "registered": number, "listed": listed or local, "globs": globs}
        result.append({**facts, **ours})
    return result


def _on_server(connection: DuckDBPyConnection, project: Project) -> bool:
    """Return True if any mirrored run of the project came from the server."""
    asked = "SELECT 1 FROM store.run_records WHERE entity = ? AND project = ? AND storage_id <> '' LIMIT 1"
    return bool(connection.execute(asked, list(project)).fetchall())


def _local(connection: DuckDBPyConnection, project: Project) -> Facts:
    """The facts of a project that no pass found on the server, derived from its mirrored runs."""
    rows = connection.execute(
        "SELECT min(created_at), max(heartbeat_at), count(*) FROM store.run_records WHERE entity = ? AND project = ?",
        list(project),
    ).fetchall()
    created, active, runs = rows[0]
    return {
        "id": own_id("Project", "v1", project.project, project.entity),
        "internalId": own_id("ProjectInternalId", str(NO_PROJECT)),
        "createdAt": instant(created),
        "updatedAt": instant(active),
        "lastActive": instant(active),
        "totalRuns": runs,
        **dict.fromkeys(("description", "access", "user")),
        **dict.fromkeys(("isBenchmark", "readOnly"), False),
        "entity": {"id": own_id("Entity", project.entity), "name": project.entity},
    }


def in_order(found: Sequence[Facts], order: str | None) -> list[Facts] | None:
    """Sort projects by `createdAt`, `lastActive` or `name`, descending with `-` in front; ties by project number.

    Returns None for any other order, and if a project lacks the field or its number.
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
    """The project number in `internalId`; None if that has another format."""
    text = str(project.get("internalId") or "")
    try:
        decoded = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        decoded = ""
    number = decoded.rpartition(":")[2] or text
    return int(number) if number.isdecimal() else None


def server(connection: DuckDBPyConnection, base_url: str) -> tuple[Facts, timedelta]:
    """What the server returned about itself and the API key's user, and how old that is; empty if it never did."""
    asked = "SELECT facts, told_at FROM store.server_facts WHERE base_url = ?"
    rows = _rows(connection, asked, [base_url.rstrip("/")])
    if not rows:
        return {}, timedelta.max
    return orjson.loads(rows[0][0]), datetime.now(UTC).replace(tzinfo=None) - rows[0][1]


def latest_server(connection: DuckDBPyConnection) -> str | None:
    """The address of the server that was asked about itself last; None if none was."""
    rows = _rows(connection, "SELECT base_url FROM store.server_facts ORDER BY told_at DESC LIMIT 1", ())
    return rows[0][0] if rows else None


def of_runs(connection: DuckDBPyConnection, rids: Sequence[int]) -> dict[int, Facts]:
    """What the server returned about these runs, by rid. The result may contain other runs, too."""
    here, params = among(rids)
    rows = _rows(connection, f"SELECT rid, facts FROM store.run_facts WHERE {here}", params)
    return {rid: orjson.loads(text) for rid, text in rows or ()}


Heavy = tuple[str | None, str | None]
"""JSON texts: the latest system metrics, which may be `null`, and the facts about the keys. None: not returned."""


def heavy(connection: DuckDBPyConnection, rids: Sequence[int]) -> dict[int, Heavy]:
    """The facts of these runs that may be long, by rid."""
    here, params = among(rids)
    rows = _rows(connection, f"SELECT rid, system_metrics, keys FROM store.run_facts WHERE {here}", params)
    return {rid: (metrics, keys) for rid, metrics, keys in rows or ()}


def exported_to(connection: DuckDBPyConnection, rid: int) -> int | None:
    """The step up to which the server has exported a run's history; None if no export is known."""
    rows = _rows(connection, "SELECT exported_to FROM store.run_exports WHERE rid = ?", [rid])
    return rows[0][0] if rows else None


def without_history(connection: DuckDBPyConnection, project: Project) -> list[int]:
    """The runs that had more history rows on the server than are mirrored.

    Live runs count only if none of their rows is mirrored.
    """
    rows = connection.execute(
        "SELECT r.rid FROM store.run_records AS r JOIN store.run_history AS h ON h.rid = r.rid "
        "WHERE r.entity = ? AND r.project = ? AND r.deleted_at IS NULL AND r.storage_id <> '' "
        "AND coalesce(h.rows, 0) < r.server_rows "
        "AND (coalesce(h.rows, 0) = 0 OR r.state NOT IN (SELECT unnest(?::VARCHAR[])))",
        [*project, sorted(LIVE_STATES)],
    ).fetchall()
    return [rid for (rid,) in rows]


def without_facts(connection: DuckDBPyConnection, project: Project) -> list[int]:
    """The server's runs that have no facts, because an older version mirrored them."""
    here = "r.entity = ? AND r.project = ? AND r.deleted_at IS NULL AND r.storage_id <> ''"
    asked = f"SELECT r.rid FROM store.run_records AS r WHERE {here}"
    no_facts = " AND NOT EXISTS (SELECT 1 FROM store.run_facts AS f WHERE f.rid = r.rid)"
    rows = _rows(connection, asked + no_facts, project)
    return [rid for (rid,) in (connection.execute(asked, list(project)).fetchall() if rows is None else rows)]


def unread(connection: DuckDBPyConnection, project: Project) -> dict[int, str]:
    """The runs with fields that could not be parsed: rid to the names of the columns, joined by commas."""
    asked = (
        "SELECT rid, unread FROM store.run_records "
        "WHERE entity = ? AND project = ? AND deleted_at IS NULL AND unread IS NOT NULL"
    )
    return dict(_rows(connection, asked, project) or ())


def events_held(connection: DuckDBPyConnection, rid: int, *, complete: bool = False) -> bool:
    """Return True if the system metrics of a run, which may be none, were pulled.

    With `complete`, all of them must be mirrored unless the run is live.
    """
    run = connection.execute(
        "SELECT server_events, storage_id, state FROM store.run_records WHERE rid = ?", [rid]
    ).fetchall()
    extras = connection.execute("SELECT events FROM store.run_extras WHERE rid = ?", [rid]).fetchall()
    if not run:
        return False
    on_server, storage_id, state = run[0]
    # A run that is not on the server was read from its local file, which contains all of them.
    if on_server == 0 or not storage_id:
        return True
    mirrored = extras[0][0] if extras else None
    return mirrored is not None and (on_server in (None, mirrored) or not complete or state in LIVE_STATES)


def own_id(*parts: str) -> str:
    """An id for what is not on the server: a run that was read from a local file, and its project."""
    return base64.b64encode(":".join(parts).encode()).decode()


def instant(value: datetime | None) -> str | None:
    """A time in the server's format."""
    return None if value is None else f"{value.isoformat()}Z"


def _rows(connection: DuckDBPyConnection, sql: str, params: Iterable[Any]) -> list[Any] | None:
    """The rows of a query; None if the published file is from an older version and lacks the table or column."""
    import duckdb

    try:
        return connection.execute(sql, list(params)).fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        return None
