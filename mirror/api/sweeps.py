"""Sweeps: their runs and settings are mirrored; the server is asked for a sweep that the mirror does not hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from mirror.api.client import Client
from mirror.api.display import Shown
from mirror.api.fields import camel
from mirror.api.lists import WholeList
from mirror.api.official import call_server, official_method
from mirror.api.run import Run
from mirror.api.runs import Runs
from mirror.errors import CommError, NotMirrored
from mirror.store.records import ProjectKey

__all__ = ["Sweep", "Sweeps"]

_SECTIONS = ("config", "summary_metrics", "tags")
_COLUMNS = ("createdAt", "updatedAt", "name", "sweep")


@dataclass(frozen=True)
class Sweep(Shown):
    """A sweep. What the mirror does not hold is asked of the server, once; that raises CommError."""

    entity: str
    project: str
    id: str
    _api: Client = field(repr=False, compare=False)
    _attrs: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _runs_order: str = field(default="+created_at", repr=False, compare=False)
    _page_of = "sweep"

    @property
    def name(self) -> str:
        """Its display name, else the name in its config, else its id."""
        name: str = self.load().get("displayName") or self.config.get("name") or self.id
        return name

    @property
    def path(self) -> list[str]:
        """Entity, project and sweep id, ready for an address."""
        return [quote(part, safe="") for part in (self.entity, self.project, self.id)]

    @property
    def runs(self) -> Runs:
        """Its runs, oldest first."""
        return self._in_order(self._runs_order)

    @property
    def username(self) -> str:
        """The entity, as in the official client."""
        return self.entity

    @property
    def config(self) -> dict[str, Any]:
        """Its configuration: method, metric, parameters."""
        import yaml

        config = yaml.safe_load(self.load().get("config") or "")
        return config if isinstance(config, dict) else {}

    @property
    def state(self) -> str:
        """Its state on the server, such as PENDING, RUNNING or FINISHED."""
        return str(self.load()["state"])

    @property
    def order(self) -> str | None:
        """The order of runs that puts the best one by the sweep's metric first; None for a sweep without a metric."""
        metric = self.config.get("metric")
        if not metric:
            return None
        return _order(("+" if metric.get("goal", "minimize") == "minimize" else "-") + metric["name"])

    @property
    def expected_run_count(self) -> int | None:
        """How many runs it will have in total; None if not known, as for a random search."""
        count: int | None = self.load().get("runCountExpected")
        return count

    agent = official_method("agent")
    agents = official_method("agents")
    enqueue_run = official_method("enqueue_run")

    def load(self, force: bool = False) -> dict[str, Any]:
        """Return its record, by the server's names, from the mirror or else from the server.

        Read once, or again with `force`, from the newest snapshot.
        """
        if force:
            self._api.newest()
        if force or not self._attrs:
            record = self._api.sweep_facts(self.entity, self.project, self.id)
            if record is None:
                from mirror.remote import sweeps

                key = ProjectKey(self.entity, self.project)
                record = self._api.session.ask(lambda server: sweeps.one(server, key, self.id))
            self._attrs.update(record)
        return self._attrs

    @property
    def url(self) -> str:
        """The sweep's page on the server."""
        return f"{self._api.session.page(self.entity, self.project)}/sweeps/{quote(self.id)}"

    def best_run(self, order: str | None = None) -> Run | None:
        """Return the first of its runs in an order such as "+summary_metrics.loss"; None for a sweep without runs.

        Without an order, the server is asked for the sweep's metric; if it has none, returns the newest run.
        """
        best_first = (_order(order) if order else self.order) or "-created_at"
        runs = self._in_order(best_first)
        return runs[0] if len(runs) else None

    def _in_order(self, order: str) -> Runs:
        runs: Runs = self._api.runs(f"{self.entity}/{self.project}", {"sweep": self.id}, order)
        return runs

    @classmethod
    def get(
        cls,
        api: Client,
        entity: str | None = None,
        project: str | None = None,
        sid: str | None = None,
        order: str | None = None,
        query: str | None = None,
        **kwargs: Any,
    ) -> Sweep | None:
        """Return the sweep, its runs in this order; None if it does not exist.

        With a custom GraphQL `query`, the official client sends it, with `kwargs` as further variables.
        """
        try:
            found: Sweep = api.sweep("/".join(filter(None, (entity, project, sid))))
        except NotMirrored:
            return None
        attrs: dict[str, Any] = {}
        if query is not None:
            target = (api.session.official, found.entity, found.project, found.id)
            attrs = call_server(lambda: found._official.get(*target, query=query, **kwargs)._attrs)  # noqa: SLF001
        return cls(found.entity, found.project, found.id, api, attrs, order or "+created_at")

    @property
    def _official(self) -> Any:
        return call_server(lambda: self._api.session.official.sweep("/".join(self.path)))

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            record = self.load()
            if (field_name := camel(name)) in record:
                return record[field_name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __repr__(self) -> str:
        try:
            state = self.state
        except CommError:
            state = "state not known"
        return f"<Sweep {'/'.join(self.path)} ({state})>"


class Sweeps(WholeList[Sweep]):
    """The mirrored sweeps of a project, oldest first; if they are not mirrored, those that the server lists.

    If the server cannot be reached either, those of mirrored runs, sorted by id.
    """

    def __init__(self, api: Client, entity: str, project: str, per_page: int) -> None:
        self.entity = entity
        self.project = project
        self._api = api
        self._per_page = per_page
        self._found: list[Sweep] | None = None

    def _all(self) -> list[Sweep]:
        if self._found is None:
            try:
                records = self._records()
            except CommError:
                runs = self._api.runs(f"{self.entity}/{self.project}", {"sweep": {"$ne": None}})
                names = sorted({name for run in runs if (name := run.sweep_name)})
                self._found = [Sweep(self.entity, self.project, name, self._api) for name in names]
            else:
                self._found = [Sweep(self.entity, self.project, one["name"], self._api, one) for one in records]
        return self._found

    def _records(self) -> list[dict[str, Any]]:
        mirrored = self._api.all_sweep_facts(self.entity, self.project)
        if mirrored is not None:
            return mirrored
        from mirror.remote import sweeps

        key = ProjectKey(self.entity, self.project)
        return self._api.session.ask(lambda server: sweeps.listed(server, key, self._per_page))

    @property
    def length(self) -> int:
        """The number of sweeps."""
        return len(self)

    def __repr__(self) -> str:
        return f"<Sweeps {self.entity}/{self.project}>"


def _order(key: str) -> str:
    """Return an order of a sweep's runs as the official client reads it: a bare key is a summary key, highest first."""
    direction, key = (key[0], key[1:]) if key[:1] in ("+", "-") else ("-", key)
    section = key.split(".")[0]
    plain = section in _SECTIONS if "." in key else key in _COLUMNS
    return direction + (key if plain else f"summary_metrics.{key}")
