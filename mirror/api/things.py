"""What runs belong to: people and projects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

from mirror.api.display import display, frame
from mirror.api.official import asked, asked_of_server, asks
from mirror.api.sweeps import Sweeps
from mirror.errors import CommError

if TYPE_CHECKING:
    from mirror.api.api import Api
    from mirror.api.runs import Runs


@dataclass(frozen=True)
class User:
    """Who started a run, or whose key it is. `name` is the username where the server did not tell another one."""

    username: str
    entity: str | None = None
    email: str | None = None
    full_name: str | None = None
    _api: Api | None = field(default=None, repr=False, compare=False)

    teams = asked("teams")
    api_keys = asked("api_keys")
    user_api = asked("user_api")
    generate_api_key = asks("generate_api_key")
    delete_api_key = asks("delete_api_key")

    @classmethod
    def create(cls, api: Api, email: str, admin: bool | None = False) -> Any:
        """A new user of the server, as the official client makes one. Raises CommError."""
        return api.create_user(email, admin)

    @property
    def _official(self) -> Any:
        api = self._api
        if api is None:
            raise CommError(f"the user {self.username} was not asked of a server", LookupError(self.username))
        found = asked_of_server(lambda: api.session.official.user(self.username))
        if found is None:
            raise CommError(f"the server has no user {self.username}", LookupError(self.username))
        return found

    @property
    def name(self) -> str:
        """The name that people see."""
        return self.full_name or self.username


@dataclass(frozen=True)
class Project:
    """A mirrored project."""

    entity: str
    name: str
    _api: Api = field(repr=False, compare=False)

    @property
    def path(self) -> list[str]:
        """Entity and project."""
        return [self.entity, self.name]

    id = asked("id")
    owner = asked("owner")

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
        return frame(self.url, height, hidden=hidden, what="project")

    def display(self, height: int = 420, hidden: bool = False) -> bool:
        """Show the project's page in a notebook; False where there is none."""
        return display(self.to_html(height, hidden))

    @property
    def _official(self) -> Any:
        return asked_of_server(lambda: self._api.session.official.project(self.name, self.entity))


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
