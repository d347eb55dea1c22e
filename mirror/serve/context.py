"""The state that the resolvers of one request share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from mirror.serve.runs import Ask, Listings
from mirror.snapshot import facts, projects
from mirror.snapshot.paths import Project
from mirror.snapshot.segments import segmented
from mirror.snapshot.series import HistorySource

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

T = TypeVar("T")

RunPath = tuple[str, str, str]
"""Entity, project and run id."""

SECONDS = 60.0
"""How long an answer from the mirror may take."""


class Context(Struct):
    """One request: the snapshot that it reads, and what several requests share.

    `base_url` is the endpoint's own address, `server_url` the server's. `without_server` means that the server cannot
    be asked, `scans` that the client reads exported files of a history and pages of the rest. `sign` returns an address
    for a path that works for a while without the key. `touched` returns when files of a run, or artifacts, were last
    changed through this endpoint, and `refresh_files` has the next pass pull the list of a run's files. `unpulled`
    returns whether edits of this run, project or entity are not pulled yet; `waited` means that they were waited for.
    `of_token` means that the caller has a token of the mirror.
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
    without_server: bool = False
    scans: bool = False
    sign: Callable[[str], str] = str
    touched: Callable[[tuple[str, ...]], datetime | None] = lambda _: None
    refresh_files: Callable[[RunPath], None] = lambda _: None
    unpulled: Callable[[Sequence[str]], bool] = lambda _: False
    waited: bool = False
    of_token: bool = False

    def remembered(self, key: tuple[Any, ...], find: Callable[[], T]) -> T:
        """Return the result of `find`, reused while the snapshot is the same."""
        return self.listings.facts.get(self.version, key, find)

    @property
    def source(self) -> HistorySource:
        """The source of histories."""
        return HistorySource(self.connection, self.remembered(("segmented",), lambda: segmented(self.connection)))

    @property
    def server(self) -> tuple[facts.Facts, timedelta]:
        """What the server returned about itself and the owner of the key, and how old that is."""
        return facts.server(self.connection, self.server_url)

    def projects(self, entity: str, name: str) -> list[facts.Facts]:
        """Return the mirrored project of this name; an empty list if there is none."""
        return self.remembered(("project", entity, name), lambda: facts.projects(self.connection, entity, name))

    def default_entity(self) -> str | None:
        """Return the entity of the settings, else the key owner's, else the one with the most mirrored projects."""
        of_viewer = (self.server[0].get("viewer") or {}).get("entity")
        if self.entity or of_viewer:
            return self.entity or of_viewer
        return projects.main_entity(self.connection)


def path_of(run: Any) -> RunPath:
    """Return the path of a run."""
    return (*run["project"]["key"], run["name"])


def project_of(run: Any) -> Project:
    """Return the entity and project of a run."""
    key: Project = run["project"]["key"]
    return key
