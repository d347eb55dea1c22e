"""The reports of projects: listed, and found by the parts of an address."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from mirror.errors import QueryError
from mirror.snapshot.paths import Project, nearest_of, scope
from mirror.wandb_json import loads

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_LISTED = "SELECT 1 FROM store.listings WHERE entity = ? AND project = ? AND kind = 'views' AND listed_at IS NOT NULL"
_COLUMNS = (
    "entity, project, report_id, name, coalesce(title, name, report_id) AS title, description, author, "
    "created_at, updated_at, url"
)


class Report(Struct, frozen=True):
    """A report without its spec."""

    entity: str
    project: str
    report_id: str
    name: str | None
    title: str
    description: str | None
    author: str | None
    created_at: datetime | None
    updated_at: datetime | None
    url: str | None
    deleted: bool = False

    @property
    def key(self) -> Project:
        """Its project."""
        return Project(self.entity, self.project)


def listed(connection: DuckDBPyConnection, projects: Sequence[Project]) -> list[Report]:
    """The reports of these projects, or of all if none is named, that exist on the server; the newest first."""
    condition, params = scope(projects, "t")
    rows = _rows(
        connection,
        f"SELECT {_COLUMNS} FROM main.reports AS t WHERE {condition} AND deleted_at IS NULL "
        "ORDER BY entity, project, updated_at DESC, report_id",
        params,
    )
    return [Report(*row) for row in rows]


def are_listed(connection: DuckDBPyConnection, project: Project) -> bool:
    """Return True if the reports of the project are mirrored."""
    return bool(_rows(connection, _LISTED, project))


def views(connection: DuckDBPyConnection, project: Project, kind: str) -> list[dict[str, Any]]:
    """The views of a project of a type of the server, with their specs, by its field names; the newest first."""
    rows = _rows(
        connection,
        "SELECT facts, spec FROM store.view_records WHERE entity = ? AND project = ? AND view_type = ? "
        "AND deleted_at IS NULL ORDER BY updated_at DESC, view_id",
        [*project, kind],
    )
    return [{**loads(facts), "spec": spec} for facts, spec in rows]


def spec(connection: DuckDBPyConnection, report: Report) -> str | None:
    """The JSON text of a report's content; None if the server returned none."""
    rows = _rows(
        connection,
        "SELECT spec FROM main.reports WHERE entity = ? AND project = ? AND report_id = ?",
        [report.entity, report.project, report.report_id],
    )
    return rows[0][0] if rows else None


def find(connection: DuckDBPyConnection, text: str) -> Report:
    """The report with this id, name, title or page address; deleted ones, too. Raises QueryError.

    Before the id may stand the project: "entity/project/ID", "entity/project/reports/TITLE--ID".
    """
    rows = _rows(
        connection, f"SELECT {_COLUMNS}, deleted_at IS NOT NULL FROM main.reports ORDER BY updated_at DESC", ()
    )
    found = [Report(*row) for row in rows]
    # A title may look like an address, or end with a question mark.
    titled = [report for report in found if text in (report.title, report.name)]
    if len(titled) == 1:
        return titled[0]
    path = urlsplit(text).path if "://" in text else text.partition("?")[0]
    parts = [unquote(part) for part in path.strip("/ ").split("/")]
    if len(parts) >= 4 and parts[-2] == "reports":
        del parts[-2]
    wanted = parts[-1]
    view_id = wanted.rpartition("--")[2].rstrip("=")
    if len(parts) >= 3:
        found = [report for report in found if [report.entity, report.project] == parts[-3:-1]]
    by_id = [report for report in found if report.report_id.rstrip("=") == view_id]
    matching = by_id or [report for report in found if wanted in (report.name, report.title)]
    if len(matching) > 1:
        raise QueryError(f"{len(matching)} reports are called {wanted!r}: name one by its id, as `mirror report` lists")
    if not matching:
        raise QueryError(_missing(text, wanted, found))
    return matching[0]


def _missing(text: str, wanted: str, known: Sequence[Report]) -> str:
    if not known:
        return (
            f"no report {text} is mirrored; with reports = true under [sync] in the config, `mirror sync` mirrors them"
        )
    hint = nearest_of(wanted, [name for report in known for name in (report.title, report.report_id)])
    return f"no report {text} is mirrored; {hint}"


def _rows(connection: DuckDBPyConnection, sql: str, params: Sequence[Any]) -> list[Any]:
    """The rows of a query; none if the published file is from a version that knew no reports."""
    import duckdb

    try:
        return connection.execute(sql, list(params)).fetchall()
    except duckdb.CatalogException:
        return []
