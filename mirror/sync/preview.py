"""Previews a pass: what it would fetch, from the heads of the runs and the published file. Nothing is written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from mirror.errors import MirrorError
from mirror.remote.client import NotFound, Server
from mirror.remote.errors import NoProject
from mirror.remote.page_size import MOST_RUNS, PageSize
from mirror.remote.run_records import RunHead
from mirror.settings.home import Home
from mirror.store import completeness, projects
from mirror.store import reader as store
from mirror.store.contents import Selection
from mirror.store.reader import Mirrored, Sizes
from mirror.store.records import KnownRun, ProjectKey
from mirror.sync import heads as listing
from mirror.sync import key_scope, plan, request_windows
from mirror.sync.context import Scope, utc_now
from mirror.sync.targets import Target

RECORD_BYTES = 1500.0
"""Size in JSON of a run's record without config and summary."""

DOCUMENT_BYTES = 3000.0
"""Size of a run's config and summary where nothing is mirrored to measure it by."""

VALUE_BYTES = 22.0
"""Size in JSON of a logged value with its key."""


class Preview(Struct, frozen=True):
    """What a pass over one project would pull. `bytes` (before compression) and `requests` are estimates.

    They cover records, history and metadata files, not system metrics, console and lists of files. `files` and
    `file_bytes` are the contents to download of files that are listed already.
    """

    project: ProjectKey
    new_runs: int = 0
    changed_runs: int = 0
    deleted_runs: int = 0
    history_rows: int = 0
    bytes: int = 0
    requests: int = 0
    files: int = 0
    file_bytes: int = 0
    error: str | None = None
    exit_code: int = 0


async def preview(
    server: Server,
    scope: Scope,
    home: Home,
    target: Target,
    since: datetime | None = None,
    selection: Selection | None = None,
) -> Preview:
    """Send the requests of a pass, except those for records and history; `selection` is the content that is wanted.

    A failure of the project is returned in the preview's `error`, never raised.
    """
    requests = server.count_requests()
    try:
        look = _Look(server, scope, home, target, *_published(home, target.project))
        heads = await look.heads(since)
        again = await look.lacking_keys()
    except MirrorError as error:
        if isinstance(error, NoProject) and home.published.exists():
            with store.opened(home) as reader:
                error = error.among(map(str, projects.everything(reader)))
        return Preview(target.project, error=str(error), exit_code=error.exit_code)
    estimate = _estimate(look, heads, again, requests.total())
    if selection and home.published.exists():
        with store.opened(home) as reader:
            files, size = completeness.missing(reader, selection, utc_now(), target.project)
        return replace(estimate, files=files, file_bytes=size)
    return estimate


def _published(home: Home, project: ProjectKey) -> tuple[Mirrored, Sizes]:
    """Return what is published of the project; empty if nothing was published yet."""
    if not home.published.exists():
        return Mirrored(), Sizes()
    with store.opened(home) as reader:
        return store.mirrored(reader, project) or Mirrored(), store.sizes(reader, project)


class _Look:
    """A read-only look at one project."""

    def __init__(
        self, server: Server, scope: Scope, home: Home, target: Target, mirrored: Mirrored, sizes: Sizes
    ) -> None:
        self.server = server
        self.scope = scope
        self.home = home
        self.project = target.project
        self.run_ids = target.run_ids
        self.mirrored = mirrored
        self.sizes = sizes
        self.known: Mapping[str, KnownRun] = mirrored.known
        self.gone: list[str] = []
        self.partly = bool(target.run_ids)

    async def heads(self, since: datetime | None) -> list[RunHead]:
        """Return the runs whose records would be pulled. Also finds deleted runs, if a pass would."""
        filters, cursor = dict(self.scope.filters), self.mirrored.cursor
        if self.run_ids:
            names: dict[str, Any] = {"name": {"$in": list(self.run_ids)}}
            found = (await listing.heads(self.server, self.project, scope={}, filters=names)).runs
            missing = set(self.run_ids) - {head.run_id for head in found}
            if unknown := sorted(missing - self.known.keys()):
                raise NotFound(f"no run {', '.join(unknown)} in {self.project} on {self.server.base_url}")
            self.gone = [run_id for run_id in sorted(missing) if not self.known[run_id].deleted]
            return found
        if since is not None and plan.leaves_out(cursor, since):
            self.partly = True
            recent = plan.recent_filter(since, filters)
            found = (await listing.heads(self.server, self.project, scope=filters, filters=recent)).runs
            return self._new(found)
        listed = await listing.changed(self.server, self.project, cursor, self.known, filters)
        found = listed.runs
        decision = plan.decide(self.known, found, server_now=listed.asked_at, now=utc_now())
        if plan.lists_all(
            cursor,
            filters=self.scope.filters_text,
            interval=self.scope.reconcile_interval,
            on_server=sum(not run.deleted and not run.local for run in self.known.values()) + decision.added,
            total=listed.total,
            now=utc_now(),
        ):
            if cursor.covered_to is not None:
                found = (await listing.heads(self.server, self.project, scope=filters, filters=filters)).runs
            await self._find_gone(found)
        return self._new(found) + await self._unlisted(decision.pull, found)

    def _new(self, found: Iterable[RunHead]) -> list[RunHead]:
        return [head for head in found if plan.is_new(head, self.known.get(head.run_id))]

    async def _unlisted(self, pull: Sequence[str], found: Iterable[RunHead]) -> list[RunHead]:
        """Return the heads of runs that a pass would pull although the server did not list them as changed."""
        here = {head.run_id: head for head in found}
        new = {head.run_id for head in self._new(here.values())}
        again = [run_id for run_id in pull if run_id in self.known and run_id not in new]
        if missing := [run_id for run_id in again if run_id not in here]:
            names = {"name": {"$in": missing}}
            listed = await listing.heads(self.server, self.project, scope=self.scope.filters, filters=names)
            here |= {head.run_id: head for head in listed.runs}
        return [here[run_id] for run_id in again if run_id in here]

    def is_added(self, head: RunHead) -> bool:
        """Return True if the mirror does not have the run now."""
        known = self.known.get(head.run_id)
        return known is None or known.deleted

    async def _find_gone(self, found: Iterable[RunHead]) -> None:
        ids = {head.run_id for head in found}
        suspects = plan.gone(self.known, ids)
        present = await listing.present(self.server, self.project, suspects, self.scope.filters)
        self.gone = [run_id for run_id in suspects if run_id not in present]

    async def lacking_keys(self) -> set[str]:
        """Return the runs whose history would be pulled again because the key globs changed."""
        former = self.mirrored.cursor.history
        if former is None or not self.scope.history or not plan.widened(former, self.scope.history):
            return set()

        async def key_rows(names: Any) -> dict[str, dict[str, int]]:
            with store.opened(self.home) as reader:
                return store.key_rows(reader, self.project, names)

        changed = (former, self.scope.history)
        return set(await key_scope.lacking(self.server, self.project, self.known, changed, key_rows))


def _estimate(look: _Look, heads: list[RunHead], again: set[str], listing_requests: int) -> Preview:
    mirrored = look.mirrored
    rows = _rows(look, heads, again) if look.scope.history else {}
    lines = sum(rows.values())
    sizes = look.sizes
    line_bytes = 400.0 if sizes.row_values is None else sizes.row_values * VALUE_BYTES
    documents = DOCUMENT_BYTES if sizes.document_bytes is None else sizes.document_bytes
    record = RECORD_BYTES + documents
    requests = listing_requests + _pages(len(heads), record)
    if not look.partly and mirrored.cursor.covered_to is None and not look.known:
        # The first pass pulls records directly, without a listing before.
        requests = max(_pages(len(heads), record), 1)
    requests += max(
        math.ceil(lines * line_bytes / request_windows.REQUEST_BYTES),
        math.ceil(len(rows) / request_windows.REQUEST_RUNS),
    )
    new = sum(look.is_added(head) for head in heads)
    if look.scope.metadata:
        requests += new + math.ceil(new / request_windows.REQUEST_RUNS)
    return Preview(
        look.project,
        new_runs=new,
        changed_runs=len(heads) - new,
        deleted_runs=len(look.gone),
        history_rows=lines,
        bytes=round(len(heads) * record + lines * line_bytes),
        requests=requests,
    )


def _rows(look: _Look, heads: list[RunHead], again: set[str]) -> dict[str, int]:
    """Return how many history lines of each run would be requested."""
    rows: dict[str, int] = {}
    now = utc_now()
    server_rows = {head.run_id: head.server_rows for head in heads}
    for run in look.known.values():
        selected = run.run_id in server_rows or not look.partly
        need = plan.need(run, now)
        if not selected or run.deleted or run.local or run.ahead or run.run_id in look.gone:
            continue
        count = server_rows.pop(run.run_id, run.server_rows)
        if run.refresh or run.run_id in again or count < run.rows or (need is not None and need.whole):
            rows[run.run_id] = count
        else:
            rows[run.run_id] = count - run.rows
    return {run_id: count for run_id, count in {**rows, **server_rows}.items() if count > 0}


def _pages(runs: int, record: float) -> int:
    """Return the number of pages for `runs` records of `record` bytes each, while the page size grows."""
    size, pages = PageSize(), 0
    while runs > 0:
        count = min(runs, size.runs, MOST_RUNS)
        runs -= count
        pages += 1
        size.learn(count, int(count * record))
    return pages
