"""Sweeps: their runs are mirrored, how they search is asked of the server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload
from urllib.parse import quote

from mirror.api.display import display, frame
from mirror.api.official import asked_of_server, asks
from mirror.api.people import camel
from mirror.errors import CommError, NotMirrored
from mirror.store.records import ProjectKey

if TYPE_CHECKING:
    from mirror.api.api import Api
    from mirror.api.run import Run
    from mirror.api.runs import Runs

_SECTIONS = ("config", "summary_metrics", "tags")
_COLUMNS = ("createdAt", "updatedAt", "name", "sweep")


@dataclass(frozen=True)
class Sweep:
    """A sweep. What the mirror does not hold of it is asked of the server once; that raises CommError."""

    entity: str
    project: str
    id: str
    _api: Api = field(repr=False, compare=False)
    _attrs: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _runs_order: str = field(default="+created_at", repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name that a person gave it, else the one in its config, else its id."""
        named: str = self.load().get("displayName") or self.config.get("name") or self.id
        return named

    @property
    def path(self) -> list[str]:
        """Entity, project and sweep id, ready for an address."""
        return [quote(part, safe="") for part in (self.entity, self.project, self.id)]

    @property
    def runs(self) -> Runs:
        """Its runs, oldest first."""
        return self._api.runs(f"{self.entity}/{self.project}", {"sweep": self.id}, self._runs_order)

    @property
    def username(self) -> str:
        """The entity, as in the official client."""
        return self.entity

    @property
    def config(self) -> dict[str, Any]:
        """What it was made with: method, metric, parameters."""
        import yaml

        told = yaml.safe_load(self.load().get("config") or "")
        return told if isinstance(told, dict) else {}

    @property
    def state(self) -> str:
        """Its state on the server, such as PENDING, RUNNING or FINISHED."""
        return str(self.load()["state"])

    @property
    def order(self) -> str | None:
        """The order of runs in which the best one by its own metric comes first; None for a sweep without one."""
        metric = self.config.get("metric")
        if not metric:
            return None
        return _order(("+" if metric.get("goal", "minimize") == "minimize" else "-") + metric["name"])

    @property
    def expected_run_count(self) -> int | None:
        """How many runs it takes in all; None where that is not known, as of a random search."""
        count: int | None = self.load().get("runCountExpected")
        return count

    agent = asks("agent")
    agents = asks("agents")
    enqueue_run = asks("enqueue_run")

    def load(self, force: bool = False) -> dict[str, Any]:
        """What the server tells of it, under the server's names; asked once, or again with `force`."""
        if force or not self._attrs:
            from mirror.remote import sweeps

            key = ProjectKey(self.entity, self.project)
            self._attrs.update(self._api.session.ask(lambda server: sweeps.one(server, key, self.id)))
        return self._attrs

    @property
    def url(self) -> str:
        """The sweep's page on the server."""
        return f"{self._api.session.page(self.entity, self.project)}/sweeps/{quote(self.id)}"

    def best_run(self, order: str | None = None) -> Run | None:
        """The first of its runs in an order such as "+summary_metrics.loss"; None for a sweep without runs.

        Without an order the server is asked for the sweep's own metric; a sweep that has none gives its newest run.
        """
        wanted = (_order(order) if order else self.order) or "-created_at"
        runs = self._api.runs(f"{self.entity}/{self.project}", {"sweep": self.id}, wanted)
        return runs[0] if len(runs) else None

    @classmethod
    def get(
        cls,
        api: Api,
        entity: str | None = None,
        project: str | None = None,
        sid: str | None = None,
        order: str | None = None,
        query: str | None = None,
        **kwargs: Any,
    ) -> Sweep | None:
        """The sweep, its runs in this order; None where there is none.

        A GraphQL `query` of the caller's own is sent by the official client, with `kwargs` as further variables.
        """
        try:
            found = api.sweep("/".join(filter(None, (entity, project, sid))))
        except NotMirrored:
            return None
        told: dict[str, Any] = {}
        if query is not None:
            whose = (api.session.official, found.entity, found.project, found.id)
            told = asked_of_server(lambda: found._official.get(*whose, query=query, **kwargs)._attrs)  # noqa: SLF001
        return cls(found.entity, found.project, found.id, api, told, order or "+created_at")

    def to_html(self, height: int = 420, hidden: bool = False) -> str:
        """A frame that shows the sweep's page."""
        return frame(self.url, height, hidden="sweep" if hidden else None)

    def display(self, height: int = 420, hidden: bool = False) -> bool:
        """Show the sweep's page in a notebook; False where there is none."""
        return display(self.to_html(height, hidden))

    def _repr_html_(self) -> str:
        return self.to_html()

    @property
    def _official(self) -> Any:
        return asked_of_server(lambda: self._api.session.official.sweep("/".join(self.path)))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            told = self.load()
            if (wanted := camel(name)) in told:
                return told[wanted]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __repr__(self) -> str:
        try:
            state = self.state
        except CommError:
            state = "state not known"
        return f"<Sweep {'/'.join(self.path)} ({state})>"


class Sweeps(Sequence[Sweep]):
    """The sweeps of a project, as the server lists them.

    While the server cannot be reached, those that mirrored runs belong to, by id.
    """

    def __init__(self, api: Api, entity: str, project: str, per_page: int) -> None:
        self.entity = entity
        self.project = project
        self._api = api
        self._per_page = per_page
        self._found: list[Sweep] | None = None

    def _sweeps(self) -> list[Sweep]:
        if self._found is None:
            from mirror.remote import sweeps

            key = ProjectKey(self.entity, self.project)
            try:
                told = self._api.session.ask(lambda server: sweeps.listed(server, key, self._per_page))
            except CommError:
                runs = self._api.runs(f"{self.entity}/{self.project}", {"sweep": {"$ne": None}})
                names = sorted({name for run in runs if (name := run.sweep_name)})
                self._found = [Sweep(self.entity, self.project, name, self._api) for name in names]
            else:
                self._found = [Sweep(self.entity, self.project, one["name"], self._api, one) for one in told]
        return self._found

    @overload
    def __getitem__(self, index: int) -> Sweep: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sweep]: ...
    def __getitem__(self, index: int | slice) -> Sweep | list[Sweep]:
        return self._sweeps()[index]

    def __len__(self) -> int:
        return len(self._sweeps())

    def __iter__(self) -> Iterator[Sweep]:
        return iter(self._sweeps())

    @property
    def length(self) -> int:
        """How many there are."""
        return len(self)

    @property
    def more(self) -> bool:
        """Always False: there is no further page to load."""
        return False

    def __repr__(self) -> str:
        return f"<Sweeps {self.entity}/{self.project}>"


def _order(key: str) -> str:
    """An order of runs as the official client takes it of a sweep: a bare key is one of the summary, highest first."""
    direction, key = (key[0], key[1:]) if key[:1] in ("+", "-") else ("-", key)
    section = key.split(".")[0]
    plain = section in _SECTIONS if "." in key else key in _COLUMNS
    return direction + (key if plain else f"summary_metrics.{key}")
