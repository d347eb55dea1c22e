"""Notes which wide relations are out of date, in the commit that makes them so.

A process that is killed before it publishes leaves these notes. Without them, each start would have to compare every
relation with its project's runs: 20 ms of CPU for each project.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from mirror.store import meta, projects, views
from mirror.store.database import Database
from mirror.store.records import ProjectKey
from mirror.version import VERSION

_MARK = "wide is outdated: "
"""Prefix, before a project's address, of a key in `store.meta`."""

_MADE = "wide relations were made by"
"""Key in `store.meta`: what the relations depend on beside the runs."""


def note(db: Database, outdated: Collection[ProjectKey]) -> None:
    """Note that the relations of these projects are out of date."""
    for project in outdated:
        meta.put(db, f"{_MARK}{project}", "")


def done(db: Database, refreshed: Collection[ProjectKey], left: Collection[ProjectKey]) -> None:
    """Note that all relations are up to date, but those that are `left`; `refreshed` were out of date."""
    meta.forget(db, [f"{_MARK}{project}" for project in refreshed])
    note(db, left)
    meta.put(db, _MADE, _maker(db))


def outdated(db: Database) -> set[ProjectKey]:
    """The projects whose relation is out of date or missing; all of them if another version made the relations."""
    known = projects.numbers(db)
    if meta.get(db, _MADE) != _maker(db):
        return set(known)
    return {
        project
        for project, number in known.items()
        if meta.get(db, f"store.wide_{number}") is None or meta.get(db, f"{_MARK}{project}") is not None
    }


def _maker(db: Database) -> str:
    """What decides how relations look: this program, and the columns of `runs`, which each of them has."""
    return hashlib.sha256(f"{VERSION} {views.run_columns(db)}".encode()).hexdigest()
