"""Notes which wide relations are out of date, in the commit that makes them so.

A process that is killed before it publishes leaves these notes. Without them, each start would have to compare every
relation with its project's runs: 20 ms of CPU for each project.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from mirror.store import projects
from mirror.store.database import Database
from mirror.store.records import ProjectKey
from mirror.version import VERSION

_MARK = "wide is outdated: "
"""Prefix, before a project's address, of a key in `store.meta`."""

_MADE = "wide relations were made by"
"""Key in `store.meta`: what the relations depend on beside the runs."""


def note(db: Database, outdated: Collection[ProjectKey]) -> None:
    """Note that the relations of these projects are out of date."""
    if outdated:
        _forget(db, outdated)
        db.run(
            "INSERT INTO store.meta SELECT unnest(?::VARCHAR[]), ''", [[f"{_MARK}{project}" for project in outdated]]
        )


def done(db: Database, refreshed: Collection[ProjectKey], left: Collection[ProjectKey]) -> None:
    """Note that all relations are up to date, but those that are `left`; `refreshed` were out of date."""
    _forget(db, refreshed)
    note(db, left)
    if not _is_made_by(db, maker := _maker(db)):
        db.run("DELETE FROM store.meta WHERE key = ?", [_MADE])
        db.run("INSERT INTO store.meta VALUES (?, ?)", [_MADE, maker])


def outdated(db: Database) -> set[ProjectKey]:
    """The projects whose relation is out of date or missing; all of them if another version made the relations."""
    known = projects.everything(db)
    if not _is_made_by(db, _maker(db)):
        return set(known)
    marks = db.run("SELECT key FROM store.meta WHERE starts_with(key, ?)", [_MARK])
    missing = db.run(
        "SELECT entity, project FROM store.project_records WHERE 'store.wide_' || number NOT IN "
        "(SELECT key FROM store.meta)"
    )
    marked = {ProjectKey(*key.removeprefix(_MARK).split("/", 1)) for (key,) in marks}
    return (marked | {ProjectKey(*row) for row in missing}) & set(known)


def _forget(db: Database, marked: Collection[ProjectKey]) -> None:
    keys = [f"{_MARK}{project}" for project in marked]
    db.run("DELETE FROM store.meta WHERE key IN (SELECT unnest(?::VARCHAR[]))", [keys])


def _maker(db: Database) -> str:
    """What decides how relations look: this program, and the columns of `runs`, which each of them has."""
    text = f"{VERSION} {db.run('DESCRIBE main.runs')}"
    return hashlib.sha256(text.encode()).hexdigest()


def _is_made_by(db: Database, maker: str) -> bool:
    return bool(db.run("SELECT value FROM store.meta WHERE key = ?", [_MADE]) == [(maker,)])
