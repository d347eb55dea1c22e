"""Mirrored projects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mirror.api.client import Client
from mirror.api.display import Shown
from mirror.api.fields import camel
from mirror.api.lists import WholeList
from mirror.api.official import call_server, official_method
from mirror.api.people import User
from mirror.api.runs import Runs
from mirror.api.sweeps import Sweeps

__all__ = ["Project", "Projects"]

_OF_PROJECT = ("createdAt", "isBenchmark")
"""Fields of a project that the official client also has by the server's names."""


_collections = official_method("collections")


@dataclass(frozen=True, repr=False)
class Project(Shown):
    """A mirrored project."""

    entity: str
    name: str
    _api: Client = field(compare=False)
    _page_of = "project"

    @property
    def path(self) -> list[str]:
        """Entity and project."""
        return [self.entity, self.name]

    @property
    def id(self) -> str:
        """The server's own id of the project. Raises CommError if neither the mirror nor the server has it."""
        project_id: str = self._fact("id")
        return project_id

    @property
    def created_at(self) -> str:
        """When it was created: ISO 8601, UTC. Raises CommError as `id`."""
        time: str = self._fact("createdAt")
        return time

    @property
    def is_benchmark(self) -> bool:
        """Whether it is a benchmark. Raises CommError as `id`."""
        return bool(self._fact("isBenchmark"))

    @property
    def owner(self) -> User:
        """The user who created it. Raises ValueError if the server names none, CommError as `id`."""
        record = self._fact("user")
        if not record:
            raise ValueError(f"No user found for project {self.name}")
        if not isinstance(record, Mapping):
            record = record._attrs  # noqa: SLF001
        return User(record, lambda: self._official.owner, whole=True)

    @property
    def url(self) -> str:
        """The project's page on the server."""
        return f"{self._api.session.page(self.entity, self.name)}/workspace"

    def artifacts_types(self, per_page: int = 50) -> Any:  # noqa: ARG002
        """Return the types of its artifacts, as `Api.artifact_types` does."""
        return self._api.artifact_types(f"{self.entity}/{self.name}")

    def collections(self, filters: Any = None, order: str | None = None, per_page: int = 50) -> Any:
        """Return the collections of its artifacts, the newest first.

        From the mirror if it holds their list; with filters, and in other orders than by name or time, from the server.
        """
        found = None if filters else self._api.mirrored_collections(f"{self.entity}/{self.name}", None, order)
        return _collections(self, filters, order, per_page) if found is None else found

    def runs(self, filters: dict[str, Any] | None = None, order: str = "-created_at") -> Runs:
        """Return its runs, as `Api.runs` does."""
        runs: Runs = self._api.runs("/".join(self.path), filters, order)
        return runs

    def sweeps(self, per_page: int = 50, filters: dict[str, Any] | None = None, order: str | None = None) -> Any:
        """Return its sweeps; with `filters`, the official client asks the server for them.

        `order` has no effect, as in the official client.
        """
        if filters:
            return call_server(lambda: self._official.sweeps(per_page, filters, order))
        return Sweeps(self._api, self.entity, self.name, per_page)

    @property
    def _official(self) -> Any:
        return call_server(lambda: self._api.session.official.project(self.name, self.entity))

    def _fact(self, name: str) -> Any:
        """Return a field by the server's name: from the mirror, else from the server."""
        facts = self._api.facts_of(self.entity, self.name)
        if name in facts:
            return facts[name]
        if name == "user":
            return call_server(lambda: self._official.owner)
        return call_server(lambda: getattr(self._official, name))

    def __getattr__(self, name: str) -> Any:
        if name == "entity_name":
            return self.entity
        if camel(name) in _OF_PROJECT:
            return self._fact(camel(name))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<Project {self.entity}/{self.name}>"


class Projects(WholeList[Project]):
    """Mirrored projects, sorted by name."""

    def __init__(self, entity: str | None, projects: list[Project]) -> None:
        self.entity = entity
        self._projects = projects

    def _all(self) -> list[Project]:
        return self._projects

    @property
    def length(self) -> int:
        """The number of projects."""
        return len(self)

    def __repr__(self) -> str:
        return f"<Projects {self.entity or 'of all entities'}: {', '.join(one.name for one in self)}>"
