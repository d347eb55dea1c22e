"""What the resolvers of one request share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from mirror.serve.runs import Ask, Listings
from mirror.snapshot import facts
from mirror.snapshot.paths import Project
from mirror.snapshot.series import HistorySource, segmented

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

T = TypeVar("T")

LIVE_STATES = frozenset({"running", "pending", "preempting"})

RunPath = tuple[str, str, str]
"""Entity, project and run id."""


@dataclass
class Context:
    """One request: the snapshot that it reads, and what several requests share.

    `base_url` is the endpoint's own address, `server_url` that of the server. `alone` tells that the server cannot be
    reached, `scans` that whoever asks reads exported files of a history and pages of the rest. `sign` makes an address
    of a path that is good for a while without the key. `touched` tells when files of a run were last changed by way of
    this endpoint, and `look_again` has the list of a run's files pulled with the next pass.
    """

    connection: DuckDBPyConnection
    version: str
    listings: Listings
    ask: Ask
    entity: str | None
    username: str | None
    read_only: bool = False
    base_url: str = ""
    server_url: str = ""
    alone: bool = False
    scans: bool = False
    sign: Callable[[str], str] = str
    touched: Callable[[RunPath], datetime | None] = lambda _: None
    look_again: Callable[[RunPath], None] = lambda _: None

    def remembered(self, key: tuple[Any, ...], find: Callable[[], T]) -> T:
        """What an earlier request found in the same snapshot, or is found now."""
        return self.listings.facts.get(self.version, key, find)

    @property
    def source(self) -> HistorySource:
        """Where histories are read."""
        return HistorySource(self.connection, self.remembered(("segmented",), lambda: segmented(self.connection)))

    @property
    def server(self) -> tuple[facts.Facts, timedelta]:
        """What the server told of itself and of whoever holds the key, and how old that is."""
        return facts.server(self.connection, self.server_url)

    def projects(self, entity: str, name: str) -> list[facts.Facts]:
        """The mirrored project of this name; none where there is none."""
        return self.remembered(("project", entity, name), lambda: facts.projects(self.connection, entity, name))

    def default_entity(self) -> str | None:
        """The entity of the settings, else that of whoever holds the key, else that of the most mirrored projects."""
        told = (self.server[0].get("viewer") or {}).get("entity")
        if self.entity or told:
            return self.entity or told
        found = self.connection.execute(
            "SELECT entity FROM store.projects GROUP BY entity ORDER BY count(*) DESC, entity LIMIT 1"
        ).fetchall()
        return found[0][0] if found else None


def path_of(run: Any) -> RunPath:
    """Where a run is."""
    return (*run["project"]["key"], run["name"])


def project_of(run: Any) -> Project:
    """The address of a run's project."""
    key: Project = run["project"]["key"]
    return key
