"""What the mirror holds of a run and nobody edits: which run it is, its times, and where it ran."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mirror.api.client import Client
from mirror.api.official import call_server
from mirror.api.people import User
from mirror.snapshot.runs import RunPage
from mirror.snapshot.snapshot import Address

if TYPE_CHECKING:
    from mirror.snapshot.run_query import Named


class RunFacts:
    """A run of one snapshot."""

    def __init__(self, api: Client, page: RunPage, row: Named) -> None:
        """Use `Api.run` or `Api.runs` to get one."""
        # A list has thousands of these, so what they share is stored once, in their page.
        self._api = api
        self._page = page
        self._row = row

    @property
    def id(self) -> str:
        """The run id: eight characters, or as set by the script."""
        return self._row[1]

    @property
    def entity(self) -> str:
        """The user or team that owns the project."""
        return self._page.key.entity

    @property
    def project(self) -> str:
        """The name of the project."""
        return self._page.key.project

    @property
    def path(self) -> list[str]:
        """Entity, project and run id, ready for an address."""
        return [quote(part, safe="") for part in (self.entity, self.project, self.id)]

    @property
    def url(self) -> str | None:
        """The run's page on the server; None for a run that is not on a server yet."""
        return self._text("url")

    @property
    def storage_id(self) -> str:
        """The server's own id of the run, which writes refer to."""
        return str(self._fact("storage_id"))

    @property
    def state(self) -> str:
        """One of running, finished, crashed, failed, killed, pending, preempting, preempted."""
        return str(self._fact("state"))

    @property
    def commit(self) -> str | None:
        """The git commit."""
        return self._text("git_commit")

    @property
    def host(self) -> str | None:
        """The machine it ran on."""
        return self._text("host")

    @property
    def user(self) -> User:
        """The user who started it. Raises AttributeError if the server did not report one."""
        username = self._text("username")
        if username is None:
            raise AttributeError(f"the server did not report who started {self._address}")
        reported = {name: value for name, value in (self._fact("reported").get("user") or {}).items() if name == "name"}
        return User({**reported, "username": username}, lambda: self._official.user)

    @property
    def username(self) -> str:
        """The entity, as in the official client; `user.username` is the user who started the run."""
        return self.entity

    @property
    def sweep_name(self) -> str | None:
        """The id of its sweep."""
        return self._text("sweep")

    @property
    def sweep(self) -> Any:
        """Its `Sweep`; None for a run without one."""
        name = self.sweep_name
        return self._api.sweep_of(self.entity, self.project, name) if name else None

    @property
    def created_at(self) -> str | None:
        """When it started: ISO 8601, UTC."""
        return _time(self._fact("created_at"))

    @property
    def heartbeat_at(self) -> str | None:
        """The last heartbeat of its process: ISO 8601, UTC."""
        return _time(self._fact("heartbeat_at"))

    @property
    def updated_at(self) -> str | None:
        """When it was last logged to or edited: ISO 8601, UTC."""
        return _time(self._fact("updated_at"))

    @property
    def deleted(self) -> bool:
        """Whether it was deleted on the server; the mirror keeps such runs."""
        return self._fact("deleted_at") is not None

    @property
    def lastHistoryStep(self) -> int:  # noqa: N802
        """The highest mirrored step; -1 without history."""
        return self._page.reader.extent(self._row[0]).last_step

    @property
    def _server_rows(self) -> int:
        rows: int = self._fact("server_rows")
        return rows

    @property
    def _user_record(self) -> dict[str, Any] | None:
        return {"name": self.user.name, "username": self.user.username} if self._fact("username") else None

    @property
    def _address(self) -> Address:
        return Address(self._row[0], *self._page.key, self._row[1])

    @property
    def _official(self) -> Any:
        return call_server(lambda: self._api.session.official.run("/".join(self.path)))

    def _fact(self, column: str) -> Any:
        return self._page.fact(self._row[0], column)

    def _text(self, column: str) -> str | None:
        value: str | None = self._fact(column)
        return value


def _time(value: datetime | None) -> str | None:
    """Format a time as the server does."""
    return None if value is None else f"{value.isoformat()}Z"
