"""What runs belong to: people, sweeps, projects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload
from urllib.parse import quote

if TYPE_CHECKING:
    from mirror.api.api import Api
    from mirror.api.run import Run
    from mirror.api.runs import Runs


@dataclass(frozen=True)
class User:
    """Who started a run, or whose key it is. `name` is the username where the server did not tell another one."""

    username: str
    entity: str | None = None
    email: str | None = None
    full_name: str | None = None

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

    def runs(self, filters: dict[str, Any] | None = None, order: str = "-created_at") -> Runs:
        """Its runs, as `Api.runs` gives them."""
        return self._api.runs("/".join(self.path), filters, order)

    def sweeps(self) -> list[Sweep]:
        """The sweeps that its mirrored runs belong to, by name."""
        names = {run.sweep_name for run in self.runs({"sweep": {"$ne": None}})}
        return [Sweep(self.entity, self.name, name, self._api) for name in sorted(filter(None, names))]


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

    def __iter__(self) -> Iterator[Project]:
        return iter(self._projects)

    def __repr__(self) -> str:
        return f"<Projects {self.entity or 'of all entities'}: {', '.join(one.name for one in self)}>"


@dataclass(frozen=True)
class Sweep:
    """A sweep as far as runs tell of it: the mirror holds its runs, not its search space."""

    entity: str
    project: str
    id: str
    _api: Api = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """The sweep's id, which is its name unless a person chose another one on the server."""
        return self.id

    @property
    def path(self) -> list[str]:
        """Entity, project and sweep id, ready for an address."""
        return [quote(part, safe="") for part in (self.entity, self.project, self.id)]

    @property
    def runs(self) -> Runs:
        """Its runs, oldest first."""
        return self._api.runs(f"{self.entity}/{self.project}", {"sweep": self.id}, "+created_at")

    def best_run(self, order: str) -> Run | None:
        """The first of its runs in an order such as "+summary_metrics.loss"; None for a sweep without runs."""
        runs = self._api.runs(f"{self.entity}/{self.project}", {"sweep": self.id}, order)
        return runs[0] if len(runs) else None
