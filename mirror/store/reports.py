"""Reports and saved views of projects, which the server calls views."""

from __future__ import annotations

from collections.abc import Sequence

from mirror.store import listings, projects
from mirror.store.database import Database
from mirror.store.records import KnownView, ProjectKey, ViewRecord
from mirror.store.transaction import Transaction

LISTING = "views"

_HERE = "entity = ? AND project = ?"
_SHAPE = {
    **dict.fromkeys(("view_id", "view_type", "name", "title", "description", "author"), "VARCHAR"),
    **dict.fromkeys(("created_at", "updated_at"), "TIMESTAMP"),
    **dict.fromkeys(("spec", "url", "facts"), "VARCHAR"),
    **dict.fromkeys(("asked_at", "deleted_at"), "TIMESTAMP"),
}
_LISTED = listings.Listed("view_records", "view_id", _SHAPE)


def keep(tx: Transaction, project: ProjectKey, records: Sequence[ViewRecord]) -> None:
    """Insert these views, or replace what is stored of them."""
    if records:
        projects.add(tx, project)
        _LISTED.keep(tx, project, records)


mark_deleted = _LISTED.mark_deleted
forget = _LISTED.forget


def known(db: Database, project: ProjectKey) -> dict[str, KnownView]:
    """What is stored of each of the project's views, by id, without their specs."""
    rows = db.run(
        f"SELECT view_id, facts, asked_at, deleted_at IS NOT NULL FROM store.view_records WHERE {_HERE}",
        [project.entity, project.project],
    )
    return {view_id: KnownView(*row) for view_id, *row in rows}
