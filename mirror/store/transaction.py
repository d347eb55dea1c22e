"""An open transaction of the store, and what must be brought up to date at its end."""

from __future__ import annotations

from pathlib import Path

from mirror.store import views
from mirror.store.database import Database
from mirror.store.records import ProjectKey


class Transaction:
    """Everything written in it is committed together, or nothing. Created by `Store.transaction`.

    Functions of `mirror.store` that write for a pass take a Transaction; those that only read take its `db`. `outdated`
    are the projects whose wide relation the next publish updates; with `views_outdated`, the views no longer show the
    right values of segments; `forgotten` are the failed attempts that were cleared, by `rid`.
    """

    def __init__(self, db: Database, folder: Path, tail_values: int) -> None:
        self.db = db
        self.folder = folder
        self.tail_values = tail_values
        self.outdated: set[ProjectKey] = set()
        self.views_outdated = False
        self.forgotten: dict[int, int] = {}

    def finish(self) -> None:
        """Update the views after all writes, right before the commit."""
        if self.views_outdated:
            views.recreate(self.db, self.folder)
