"""Mirrored projects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from mirror.api.display import display, frame
from mirror.api.official import call_server, official_method
from mirror.api.people import User, camel
from mirror.api.sweeps import Sweeps

if TYPE_CHECKING:
    from mirror.api.api import Api
    from mirror.api.runs import Runs

_OF_PROJECT = ("createdAt", "isBenchmark")
"""Fields of a project that the official client also has by the server's names."""


@dataclass(frozen=True, repr=False)
class Project:
    """A mirrored project."""

    entity: str
    name: str
    _api: Api = field(compare=False)

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

    artifacts_types = official_method("artifacts_types")
    collections = official_method("collections")

    def runs(self, filters: dict[str, Any] | None = None, order: str = "-created_at") -> Runs:
        """Return its runs, as `Api.runs` does."""
        return self._api.runs("/".join(self.path), filters, order)

    def sweeps(self, per_page: int = 50, filters: dict[str, Any] | None = None, order: str | None = None) -> Any:
        """Return its sweeps from the server; with `filters`, the official client asks for them.

        If the server cannot be reached, those of mirrored runs. `order` has no effect, as in the official client.
        """
        if filters:
            return call_server(lambda: self._official.sweeps(per_page, filters, order))
        return Sweeps(self._api, self.entity, self.name, per_page)

    def to_html(self, height: int = 420, hidden: bool = False) -> str:
        """Return an HTML frame that shows the project's page."""
        return frame(self.url, height, hidden="project" if hidden else None)

    def display(self, height: int = 420, hidden: bool = False) -> bool:
        """Show the project's page in a notebook; return False outside of one."""
        return display(self.to_html(height, hidden))

    def _repr_html_(self) -> str:
        return self.to_html()

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


class Projects(Sequence[Project]):
    """Mirrored projects, sorted by name."""

    def __init__(self, entity: str | None, projects: list[Project]) -> None:
        self.entity = entity
        self._projects = projects

    @overload
    def __getitem__(self, index: int) -> Project: ...
    @overload
    def __getitem__(self, index: slice) -> list[Project]: ...
    def __getitem__(self, index: int | slice) -> Project | list[Project]:
        return self._projects[index]

    def __len__(self) -> int:
        return len(self._projects)

    @property
    def length(self) -> int:
        """The number of projects."""
        return len(self._projects)

    @property
    def more(self) -> bool:
        """Always False: all pages are loaded at once."""
        return False

    def __iter__(self) -> Iterator[Project]:
        return iter(self._projects)

    def __repr__(self) -> str:
        return f"<Projects {self.entity or 'of all entities'}: {', '.join(one.name for one in self)}>"
