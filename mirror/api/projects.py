"""What runs belong to: projects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from mirror.api.display import display, frame
from mirror.api.official import asked_of_server, asks
from mirror.api.people import User, camel
from mirror.api.sweeps import Sweeps

if TYPE_CHECKING:
    from mirror.api.api import Api
    from mirror.api.runs import Runs

_OF_PROJECT = ("createdAt", "isBenchmark")
"""Fields of a project that the official client has under the server's names, too."""


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
        """The server's own id of the project. Raises CommError where the mirror does not hold it, nor the server."""
        found: str = self._fact("id")
        return found

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
        """Who created it. Raises ValueError where the server names nobody, CommError as `id`."""
        told = self._fact("user")
        if not told:
            raise ValueError(f"No user found for project {self.name}")
        if not isinstance(told, Mapping):
            told = told._attrs  # noqa: SLF001
        return User(told, lambda: self._official.owner, whole=True)

    @property
    def url(self) -> str:
        """The project's page on the server."""
        return f"{self._api.session.page(self.entity, self.name)}/workspace"

    artifacts_types = asks("artifacts_types")
    collections = asks("collections")

    def runs(self, filters: dict[str, Any] | None = None, order: str = "-created_at") -> Runs:
        """Its runs, as `Api.runs` gives them."""
        return self._api.runs("/".join(self.path), filters, order)

    def sweeps(self, per_page: int = 50, filters: dict[str, Any] | None = None, order: str | None = None) -> Any:
        """Its sweeps, asked of the server; with `filters` by the official client.

        While the server cannot be reached, those that mirrored runs belong to. `order` changes nothing, as there.
        """
        if filters:
            return asked_of_server(lambda: self._official.sweeps(per_page, filters, order))
        return Sweeps(self._api, self.entity, self.name, per_page)

    def to_html(self, height: int = 420, hidden: bool = False) -> str:
        """A frame that shows the project's page."""
        return frame(self.url, height, hidden="project" if hidden else None)

    def display(self, height: int = 420, hidden: bool = False) -> bool:
        """Show the project's page in a notebook; False where there is none."""
        return display(self.to_html(height, hidden))

    def _repr_html_(self) -> str:
        return self.to_html()

    @property
    def _official(self) -> Any:
        return asked_of_server(lambda: self._api.session.official.project(self.name, self.entity))

    def _fact(self, name: str) -> Any:
        """What the server told of the project, by the name of its API: from the mirror, else from the server."""
        told = self._api.facts_of(self.entity, self.name)
        if name in told:
            return told[name]
        if name == "user":
            return asked_of_server(lambda: self._official.owner)
        return asked_of_server(lambda: getattr(self._official, name))

    def __getattr__(self, name: str) -> Any:
        if name == "entity_name":
            return self.entity
        if camel(name) in _OF_PROJECT:
            return self._fact(camel(name))
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"<Project {self.entity}/{self.name}>"


class Projects(Sequence[Project]):
    """Mirrored projects, by name."""

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
        """How many there are."""
        return len(self._projects)

    @property
    def more(self) -> bool:
        """Always False: there is no further page to load."""
        return False

    def __iter__(self) -> Iterator[Project]:
        return iter(self._projects)

    def __repr__(self) -> str:
        return f"<Projects {self.entity or 'of all entities'}: {', '.join(one.name for one in self)}>"
