"""Artifacts in a pass: finds the collections that changed and lists their versions, then pulls manifests.

One request shows the newest collections with their newest version, and counts all. It finds new collections, and new
or deleted versions of those in the page; new versions of older ones are found by the runs that logged or used them.
Everything else, such as a changed description of an old version, is found by the complete listing at
`reconcile_interval`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from collections.abc import Collection as AnyCollection
from contextlib import aclosing
from datetime import datetime

from msgspec import Struct, field
from msgspec.structs import replace

from mirror.errors import AuthError, CommError
from mirror.remote import artifacts as remote
from mirror.remote.artifacts import Page, Versions
from mirror.remote.errors import Unanswered, Unreachable
from mirror.store import artifacts as stored
from mirror.store.artifact_records import Collection
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction
from mirror.sync import manifests, plan
from mirror.sync.context import Context, PassResult, utc_now
from mirror.sync.flaws import is_of_data

AT_ONCE = 10
"""Collections whose versions are listed together."""

COMMIT_COLLECTIONS = 1_000
"""Collections that are committed together: a commit takes as long for one as for many."""

Cursors = Sequence[tuple[Collection, str | None]]


async def pull(
    context: Context, project: ProjectKey, *, among: AnyCollection[str] | None, began: datetime, result: PassResult
) -> None:
    """Bring the artifacts of the project up to date; with `among`, only those that these runs used or logged.

    `began` is when the pass began to pull what runs used and logged. A failure is recorded for `mirror status` and
    does not end the pass. Raises Unreachable or AuthError when the server returns nothing more.
    """
    if not context.scope.artifacts:
        return
    job = _Job(context, project)
    error: str | None = None
    try:
        await job.run(whole=among is None, began=began)
    except (Unreachable, AuthError):
        raise
    except Exception as failure:
        if not isinstance(failure, CommError) and not is_of_data(failure):
            raise
        error = f"artifacts could not be listed: {failure}"
    error = error or job.problem
    if error != await context.writer.read(lambda db: stored.failed(db, project)):
        await context.writer.write(lambda tx: stored.set_error(tx, project, error))
    if error is not None:
        result.failed_artifacts[str(project)] = error
    result.failed_artifacts |= await manifests.pull(context, project)


class _Relisted(Struct):
    """The complete versions of a collection that were mirrored before, and those that a new list contained."""

    before: set[int]
    seen: set[int] = field(default_factory=set)

    def complete(self, collection: Collection, page: Versions) -> bool:
        """Return True if only new versions are to be expected, and the page has the last of them."""
        self.seen |= {version.number for version in page.versions if version.state == "COMMITTED"}
        return len(self.before) < collection.committed == len(self.before | self.seen)


class _Job:
    def __init__(self, context: Context, project: ProjectKey) -> None:
        self.context = context
        self.project = project
        self.problem: str | None = None
        self.started = utc_now()
        self.unread: list[str] = []

    async def run(self, *, whole: bool, began: datetime) -> None:
        """List what is new; everything if that is due or if the counts do not explain what is new.

        A pass over some runs looks at the collections that they lack, and at the newest ones if it does not know those.
        """
        project = self.project
        changed = await self._changed() if whole else []
        if changed is None:
            await self._list_everything()
            return
        names = await self.context.writer.read(
            lambda db: {
                *stored.lacking(db, project, began),
                *(stored.unfinished(db, project, utc_now()) if whole else ()),
            }
        )
        known = {collection.collection_id: collection for collection in changed}
        if names:
            found, listing = await self.context.writer.read(
                lambda db: (stored.collections(db, project, names), stored.listing(db, project))
            )
            if not whole and len(found) < len(names) and listing.listed_at is not None:
                await self.run(whole=True, began=began)
                return
            known = {collection.collection_id: collection for collection in found} | known
        await self._relist(list(known.values()))

    async def _changed(self) -> list[Collection] | None:
        """Return the collections that changed, by the newest ones; None if all are to be listed."""
        listing = await self.context.writer.read(lambda db: stored.listing(db, self.project))
        interval = self.context.scope.reconcile_interval
        if listing.listed_at is None or plan.has_passed(listing.listed_at, interval, utc_now()):
            return None
        changed: list[Collection] = []
        expected = listing.collections + listing.unexplained
        after: str | None = None
        while True:
            page = await remote.collections(
                self.context.server, self.project, after, first=remote.PROBE_COLLECTIONS, versions=0
            )
            ids = [listed.collection.collection_id for listed in page.collections]
            marks = await self.context.writer.read(lambda db, ids=ids: stored.marks(db, self.project, ids))  # type: ignore[misc]
            changed += [
                one.collection
                for one in page.collections
                if marks.get(one.collection.collection_id) != one.collection.mark
            ]
            new = sum(collection_id not in marks for collection_id in ids)
            expected += new
            if page.total is None:
                after = page.after if new else page.next_type
                if after is None:
                    return changed
                continue
            if page.total == expected:
                return changed
            if page.after is None or page.total < expected:
                return None
            after = page.after

    async def _list_everything(self) -> None:
        """List all collections and versions; those that are mirrored and not listed are marked as deleted."""
        started = self.started = utc_now()
        count, total = 0, None
        collected: list[tuple[Collection, Versions]] = []
        async with aclosing(self._pages()) as pages:
            async for page in pages:
                total, count = page.total, count + len(page.collections)
                collected += [(one.collection, one.page) for one in page.collections]
                if len(collected) >= COMMIT_COLLECTIONS or page.after is None:
                    await self._put(collected)
                    await self._list_rest([(one, first.after) for one, first in collected if first.after])
                    collected = []

        def write(tx: Transaction) -> None:
            stored.mark_missing(tx, self.project, started, unread=self.unread)
            stored.set_listing(tx, self.project, listed_at=started, unexplained=0 if total is None else total - count)

        await self.context.writer.write(write)

    async def _pages(self) -> AsyncGenerator[Page]:
        """Yield all collections, in smaller pages if the server does not answer for large ones."""
        size, after = remote.PAGE_COLLECTIONS, None
        while True:
            with self.context.server.together() as effort:
                while True:
                    try:
                        page = await remote.collections(
                            self.context.server,
                            self.project,
                            after,
                            first=size,
                            versions=remote.PAGE_COLLECTION_VERSIONS,
                        )
                        break
                    except Unanswered:
                        if size == 1 or effort.over:
                            raise
                        size = max(1, size // 4)
            yield page
            if (after := page.after) is None:
                return

    async def _list_rest(self, cursors: Cursors) -> None:
        """List the versions after these cursors."""
        for first in range(0, len(cursors), AT_ONCE):
            following: Cursors = cursors[first : first + AT_ONCE]
            while following:
                found = await self._versions(following)
                await self._put(found)
                following = [(one, page.after) for one, page in found if page.after is not None]

    async def _relist(self, wanted: Sequence[Collection]) -> None:
        """List the versions of these collections again: only the new ones, if nothing else can have changed."""
        for first in range(0, len(wanted), AT_ONCE):
            some = wanted[first : first + AT_ONCE]
            self.started = utc_now()
            states = await self.context.writer.read(
                lambda db, some=some: {  # type: ignore[misc]
                    one.collection_id: _Relisted(stored.numbers(db, self.project, one.collection_id)) for one in some
                }
            )
            cursors: Cursors = [(one, None) for one in some]
            while cursors:
                found = await self._versions(cursors)
                whole = [one.collection_id for one, page in found if page.after is None]
                found = [
                    (one, replace(page, after=None) if states[one.collection_id].complete(one, page) else page)
                    for one, page in found
                ]
                await self._put(found, whole)
                cursors = [(one, page.after) for one, page in found if page.after is not None]

    async def _put(self, found: Sequence[tuple[Collection, Versions]], whole: list[str] | None = None) -> None:
        """Store these versions as listed when this list was `started`; others of `whole` collections are deleted."""
        # Until its last page is here, a collection counts as changed.
        listed = [(one if page.after is None else replace(one, mark=""), page.versions) for one, page in found]
        started = self.started

        def write(tx: Transaction) -> None:
            stored.put(tx, self.project, listed, started)
            if whole is not None:
                stored.mark_missing(tx, self.project, started, whole)

        await self.context.writer.write(write)

    async def _versions(self, cursors: Cursors) -> list[tuple[Collection, Versions]]:
        """Return a page of each; one that the server cannot answer for does not keep the others away."""
        try:
            with self.context.server.together():
                pages = await remote.versions(self.context.server, self.project, cursors)
        except (Unreachable, AuthError):
            raise
        except CommError as error:
            if len(cursors) > 1:
                return [page for cursor in cursors for page in await self._versions([cursor])]
            self.unread.append(cursors[0][0].collection_id)
            self.problem = f"the versions of {cursors[0][0].name} could not be listed: {error}"
            return []
        return [(one, page) for (one, _), page in zip(cursors, pages, strict=True) if page is not None]
