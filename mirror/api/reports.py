"""Mirrored reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mirror.addresses import report_page
from mirror.api.client import Client
from mirror.api.display import Shown
from mirror.api.fields import camel
from mirror.api.lists import WholeList
from mirror.api.runs import Runs
from mirror.filters.run_sets import to_filter, to_order
from mirror.wandb_json import UNREADABLE, loads

__all__ = ["Report", "Reports"]


@dataclass(frozen=True, eq=False)
class Report(Shown):
    """A report as it was mirrored, with the interface of the official client's `BetaReport`."""

    entity: str
    project: str
    _attrs: dict[str, Any] = field(repr=False)
    _api: Client = field(repr=False, compare=False)
    _page_of = "report"

    @property
    def id(self) -> str:
        """The server's id of it, which ends the address of its page."""
        return str(self._attrs["id"])

    @property
    def name(self) -> str | None:
        """The server's own short name of it."""
        return self._attrs.get("name")

    @property
    def display_name(self) -> str | None:
        """Its title."""
        return self._attrs.get("displayName")

    @property
    def description(self) -> str | None:
        """Its description."""
        return self._attrs.get("description")

    @property
    def user(self) -> Mapping[str, Any] | None:
        """Who created it: `username`, `photoUrl`, `email`."""
        return self._attrs.get("user")

    @property
    def created_at(self) -> str | None:
        """When it was created: ISO 8601, UTC."""
        return self._attrs.get("createdAt")

    @property
    def updated_at(self) -> str | None:
        """When it was last changed: ISO 8601, UTC."""
        return self._attrs.get("updatedAt")

    @property
    def spec(self) -> dict[str, Any]:
        """Its content: blocks of text, run sets and panels; {} if that cannot be read."""
        try:
            spec = loads(self._attrs.get("spec") or "{}")
        except UNREADABLE:
            return {}
        return spec if isinstance(spec, dict) else {}

    @property
    def sections(self) -> Any:
        """The panel sections of an old report. Raises KeyError for a report of blocks, as the official client does."""
        return self.spec["panelGroups"]

    def runs(self, section: Mapping[str, Any], per_page: int = 50, only_selected: bool = True) -> Runs:
        """Return the runs of the open run set of a section, in its order. Raises FilterError for an unknown operator.

        `only_selected` leaves out those that are not shown in its panels.
        """
        run_set = section["runSets"][section.get("openRunSet") or 0]
        parts = [to_filter(run_set.get("filters"), datetime.now(UTC).replace(tzinfo=None))]
        tree = (run_set.get("selections") or {}).get("tree")
        if only_selected and tree:
            shown = (run_set.get("selections") or {}).get("root") in (0, None)
            parts.append({"name": {"$in" if shown else "$nin": [name for name in tree if isinstance(name, str)]}})
        filters = {"$and": [part for part in parts if part]} if any(parts) else {}
        order = to_order(run_set.get("sort")) or "-created_at"
        runs: Runs = self._api.runs(f"{self.entity}/{self.project}", filters, order, per_page)
        return runs

    @property
    def url(self) -> str | None:
        """The address of its page on the server."""
        if not self.display_name:
            return None
        return report_page(self._api.session.app_url, self.entity, self.project, self.id, self.display_name)

    def to_html(self, height: int = 1024, hidden: bool = False) -> str:
        """Return an HTML frame that shows the page; with `hidden`, behind a button that reveals it."""
        return super().to_html(height, hidden)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and camel(name) in self._attrs:
            return self._attrs[camel(name)]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


class Reports(WholeList[Report]):
    """The mirrored reports of a project, newest first."""

    def __init__(self, entity: str, project: str, reports: list[Report]) -> None:
        self.entity = entity
        self.project = project
        self._reports = reports

    def _all(self) -> list[Report]:
        return self._reports

    @property
    def length(self) -> int:
        """The number of reports."""
        return len(self)

    def __repr__(self) -> str:
        return f"<Reports {self.entity}/{self.project}>"
