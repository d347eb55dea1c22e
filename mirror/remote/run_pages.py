"""Pages of a list of runs, read from both of its ends at the same time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from mirror.errors import AuthError, CommError
from mirror.remote import queries
from mirror.remote.about import About
from mirror.remote.client import NotFound, Server
from mirror.remote.errors import NoProject, SlowAnswer, Unanswered, Unreachable
from mirror.remote.page_size import PageSize
from mirror.remote.run_records import REFUSED, moment
from mirror.store.records import ProjectKey

GIVE_UP_AFTER = 4
"""After this many runs in a row without a record, the server, not the runs, is at fault."""

OVERLAP = 10
"""A last page requests this many runs more than are missing: the ends have met once both have read the same run."""


class Nodes(Struct, frozen=True):
    """The nodes of a page, and the number of runs in the scope; `asked_at` is the server's time at the request."""

    nodes: list[dict[str, Any]]
    total: int
    asked_at: datetime | None


class _End(Struct, eq=False):
    """How far the list was read in one order. `after` is the cursor of the next page, `ended` if there is none.

    `asked` is True once a page was requested. `first` and `last` are when the first and the last run that it read were
    created. `in_order` is False if the server does not return runs in the requested order.
    """

    order: str
    asked: bool = False
    after: str | None = None
    ended: bool = False
    first: datetime | None = None
    last: datetime | None = None
    in_order: bool = True
    refused: list[Unanswered] = field(default_factory=list)
    """Errors of runs in a row that were requested one by one and got no answer."""

    def read(self, nodes: Sequence[Mapping[str, Any]], after: str | None) -> None:
        """Record a page, and the cursor of the next one."""
        self.after, self.ended = after, after is None
        for node in nodes:
            created = moment(node.get("createdAt"))
            if created is None or (self.last is not None and self._is_before(created, self.last)):
                self.in_order = False
                return
            self.first, self.last = self.first or created, created

    def _is_before(self, one: datetime, other: datetime) -> bool:
        return one > other if self.order.startswith("-") else one < other


class RunPages:
    """The runs of a project that match `filters`, with these fields of each; `total` counts those of the `scope`.

    Where many are missing after the first page, the list is read from its oldest and from its newest run on, since the
    time of a request is mostly waiting. All runs are read once the older end has passed a run that the newer end has
    read: then whatever was created earlier was listed by the one, and all else by the other, however the server orders
    runs that were created at the same time. A list in another order, one of which a run is deleted meanwhile, and
    one with fewer runs than the server counts are read from the older end on to the other.
    """

    def __init__(
        self,
        server: Server,
        project: ProjectKey,
        fields: str,
        *,
        scope: Mapping[str, Any],
        filters: Mapping[str, Any],
        size: PageSize,
        about: About | None = None,
    ) -> None:
        self._server = server
        self._project = project
        self._fields = fields
        self._scope = scope
        self._filters = filters
        self._size = size
        self._about = about
        self._older, self._newer = _End("+created_at"), _End("-created_at")
        # Without the times of creation nothing shows where the ends meet.
        self._from_both = "createdAt" in fields.split()
        self._names: set[Any] = set()
        self._total = 0
        self._deleted = False
        self._overlap = OVERLAP
        self._coming: dict[asyncio.Task[tuple[Nodes, str | None]], tuple[_End, int]] = {}

    async def read(self) -> AsyncGenerator[Nodes]:
        """Yield pages as they arrive; the next ones are requested while one is processed."""
        self._request(self._older, self._size.runs)
        try:
            while self._coming:
                arrived, _ = await asyncio.wait(self._coming, return_when=asyncio.FIRST_COMPLETED)
                in_turn = sorted(arrived, key=lambda task: self._coming[task][0] is self._newer)
                pages = [page for task in in_turn if (page := self._take(task)) is not None]
                if not self._is_whole():
                    self._request_more()
                for page in pages:
                    yield page
                if self._is_whole():
                    return
        finally:
            for task in self._coming:
                task.cancel()
            await asyncio.gather(*self._coming, return_exceptions=True)

    def _take(self, task: asyncio.Task[tuple[Nodes, str | None]]) -> Nodes | None:
        """Return what arrived, without runs that another page had. None if the newer end failed, which ends it."""
        end, _ = self._coming.pop(task)
        try:
            page, after = task.result()
        except CommError:
            if end is self._older:
                raise
            self._from_both = False
            return None
        end.read(page.nodes, after)
        self._deleted |= page.total < self._total
        self._total = page.total
        new = [node for node in page.nodes if node.get("name") not in self._names] if self._newer.asked else page.nodes
        self._names.update(node.get("name") for node in page.nodes)
        return Nodes(new if end is self._older else new[::-1], page.total, page.asked_at)

    def _is_whole(self) -> bool:
        """Return True if every run was read."""
        if self._older.ended:
            return True
        # When one of the newest runs is deleted, those behind it move up, and the newer end skips one of them.
        counted = self._filters != self._scope or len(self._names) >= self._total
        return self._have_met() and counted and not self._deleted

    def _have_met(self) -> bool:
        older, newer = self._older, self._newer
        if not (older.last and newer.first and newer.last and older.in_order and newer.in_order):
            return False
        return newer.last < older.last <= newer.first

    def _request_more(self) -> None:
        """Request the next page of each end that has none under way, unless those under way may be all."""
        under_way = {end for end, _ in self._coming.values()}
        for end in (self._older, self._newer):
            left = self._total - len(self._names) - sum(runs for _, runs in self._coming.values())
            if end in under_way or end.ended or (end is self._newer and not self._needs_newer(left)):
                continue
            runs = self._size.runs
            if self._newer.asked:
                if left <= 0 and self._coming:
                    continue
                runs = min(runs, max(left, 0) + self._overlap)
                # Where this shows no meeting, many runs were created at the same time.
                self._overlap *= 10 if left <= 0 else 1
            self._request(end, runs)

    def _needs_newer(self, left: int) -> bool:
        """Return True if the newer end is to be read as well: if the list has more than the next page of the other."""
        useful = self._older.in_order and self._newer.in_order and not self._deleted
        return self._from_both and useful and left > 0 and not self._have_met()

    def _request(self, end: _End, runs: int) -> None:
        end.asked = True
        self._coming[asyncio.create_task(self._ask(end, runs))] = end, runs

    async def _ask(self, end: _End, runs: int) -> tuple[Nodes, str | None]:
        """Return the next page of an end, of at most so many runs, and the cursor of the one after it."""
        with self._server.together() as effort:
            while True:
                runs = min(runs, self._size.runs)
                received, started = effort.received, time.monotonic()
                data = await self._answer(end, runs)
                if data is None:
                    continue
                answer = data.get("project")
                if answer is None:
                    raise NoProject(str(self._project), self._server.base_url)
                connection = answer["runs"]
                nodes = [edge["node"] for edge in connection["edges"]]
                self._size.learn(len(nodes), effort.received - received)
                info = connection["pageInfo"]
                more = info["hasNextPage"] and nodes and info["endCursor"] != end.after
                page = Nodes(nodes, int(answer["runCount"]), self._server.clock.at(started))
                return page, info["endCursor"] if more else None

    async def _answer(self, end: _End, runs: int) -> dict[str, Any] | None:
        """Send one request. None if it is to be sent again, with fewer runs or without facts about the project."""
        server, about = self._server, self._about
        variables = {
            "entity": self._project.entity,
            "project": self._project.project,
            "scope": json.dumps(self._scope),
            "filters": json.dumps(self._filters),
            "order": end.order,
            "first": runs,
            "after": end.after,
        }
        at_start = end is self._older and end.after is None
        about_fields = about.asked(server) if about and at_start else None
        try:
            document = queries.runs(self._fields, *(about_fields or ()))
            data = await server.graphql("MirrorRuns", document, variables, divisible=runs > 1)
        except Unanswered as error:
            # One end is enough to find out which runs cannot be answered.
            self._from_both = False
            if end is self._newer:
                raise
            if about is not None and about_fields is not None:
                about.failed(server)
            # On a slow server each page size costs a whole timeout.
            if self._size.shrink(runs, 32 if isinstance(error, SlowAnswer) else 4):
                return None
            end.refused.append(error)
            if self._fields == queries.HEAD_FIELDS or len(end.refused) >= GIVE_UP_AFTER:
                raise
            data = await server.graphql("MirrorRuns", queries.runs(f"id {queries.HEAD_FIELDS}"), variables)
            for edge in (data.get("project") or {"runs": {"edges": ()}})["runs"]["edges"]:
                edge["node"][REFUSED] = error
            about_fields = None
        except CommError as error:
            if about is None or isinstance(error, Unreachable | AuthError | NotFound):
                raise
            if about_fields is None:
                about.not_to_blame()
                raise
            if not about.refused(server, error):
                raise
            return None
        else:
            end.refused.clear()
        if about is not None and at_start:
            about.answered(server, data, asked=about_fields is not None)
        return data
