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
    columns = "entity, project, number, covered_to IS NULL AND last_success_at IS NULL"
    rows = _rows(connection, f"SELECT {columns}, facts FROM store.projects {here}", asked)
    if rows is None:
        rows = connection.execute(f"SELECT {columns}, NULL FROM store.projects {here}", asked).fetchall()
    found = []
    for owner, project, number, never_synced, text in rows:
        key = Project(owner, project)
        told = orjson.loads(text) if text else _local(connection, key) if never_synced else {}
        found.append({**told, "key": key, "registered": number})
    return found


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
    if column is None or not all(column in facts and "internalId" in facts for facts in found):
        return None
    numbered = sorted(found, key=lambda facts: internal_number(facts) or 0)
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


def events_held(connection: DuckDBPyConnection, rid: int) -> bool:
    """Whether the mirror holds the system metrics of a run, of which there may be none."""
    there = connection.execute("SELECT server_events, storage_id FROM store.runs WHERE rid = ?", [rid]).fetchall()
    taken = connection.execute("SELECT events FROM store.run_extras WHERE rid = ?", [rid]).fetchall()
    # A run that the server does not know was read from its file, which holds all there are.
    return bool(there and (there[0][0] == 0 or not there[0][1])) or bool(taken and taken[0][0] is not None)


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
