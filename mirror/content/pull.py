"""One round of downloads: everything that is wanted, listed and not here, with what failed before and is due again.

For each file, its address is asked for with others of its project; then its content is received into a part, checked,
moved to its place, and recorded. A process that is killed at any point leaves a part, which the next round continues,
or content that the store does not list, which a collection deletes.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

from msgspec.structs import replace

from mirror.content import tables
from mirror.content.outcome import Outcome, Progress, Silent
from mirror.content.part import checkable, opened
from mirror.errors import AuthError, CommError, MirrorError, one_line
from mirror.remote import artifacts as remote_artifacts
from mirror.remote.client import Server
from mirror.remote.contents import CONNECTIONS, Address, ContentClient, SetAside, addresses
from mirror.remote.errors import NotFound, Refused, Unanswered, Unreachable
from mirror.settings.settings import SyncSettings
from mirror.store import artifact_contents, contents, retries
from mirror.store import console as stored_console
from mirror.store.contents import ARTIFACT, FILE, Failure, Selection, Wanted
from mirror.store.database import disk_full
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction
from mirror.sync.context import utc_now
from mirror.sync.writer import Writer
from mirror.threads import in_thread

log = logging.getLogger("mirror.content")

RUNS_AT_ONCE = 100
"""Runs whose missing files are looked up together."""

FILES_AT_ONCE = 200
"""Files whose addresses are asked for together: addresses expire, so not too early."""

HOLDERS_OF_REQUEST = 25
"""Runs or artifacts whose files share a request."""

ENTRIES_AT_ONCE = 5_000
"""Missing files of an artifact that are looked up together."""

COMMIT_SECONDS = 2.0
COMMIT_FILES = 500
"""Finished files are recorded after this time, or when there are this many."""

FINISHED = 10_000
"""How many contents of this round are remembered, for equal ones that are looked up before they are recorded."""

_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}

UNANSWERED = 2 * CONNECTIONS
"""When this many downloads in a row get no answer, the server or its object store is failing, and the round ends."""


def selection_of(settings: SyncSettings) -> Selection:
    """Return what the config wants."""
    return Selection(settings.files.globs, settings.files_max, settings.files_budget, settings.artifacts.patterns)


async def pull(
    server: Server,
    writer: Writer,
    selection: Selection,
    *,
    projects: Collection[ProjectKey] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Download what is missing, of these projects or of all. A failure is recorded and in the outcome, never raised."""
    one = _Round(server, writer, selection, progress or Silent())
    if not selection:
        return one.outcome
    try:
        await one.run(projects)
        if selection.artifacts:
            await tables.name_artifacts(server, writer)
        one.outcome.tables = await tables.convert_pending(writer)
    except (MirrorError, OSError) as error:
        one.outcome.error = one_line(str(error))
    if projects is None:
        with suppress(MirrorError):
            # The same fault has ended the round.
            await writer.write(lambda tx: contents.note_outcome(tx, one.outcome.as_json()))
    return one.outcome


class _Ended(MirrorError):
    """Nothing more can be downloaded now."""


class _Round:
    def __init__(self, server: Server, writer: Writer, selection: Selection, progress: Progress) -> None:
        self.server = server
        self.writer = writer
        self.blobs = writer.blobs
        self.selection = selection
        self.outcome = Outcome()
        self.progress = progress
        self._queue: asyncio.Queue[tuple[Wanted, Address] | None] = asyncio.Queue(2 * CONNECTIONS)
        self._under_way: dict[tuple[str, int], list[Wanted]] = {}
        self._finished: dict[tuple[str, int], str] = {}
        self._held: list[tuple[Wanted, str]] = []
        self._failed: list[Failure] = []
        self._changed_lists: set[tuple[ProjectKey, str]] = set()
        self._saved_at = time.monotonic()
        self._saving = asyncio.Lock()
        self._bytes = 0
        self._unanswered = 0

    async def run(self, projects: Collection[ProjectKey] | None) -> None:
        now = utc_now()
        numbers, aids, self._bytes = await self.writer.read(
            lambda db: (
                contents.wanting(db, self.selection, now, projects) if self.selection.globs else [],
                artifact_contents.wanting(db, self.selection, now, projects),
                contents.stored_bytes(db),
            )
        )
        if not numbers and not aids:
            return
        ended: Exception | None = None
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS):
                    group.create_task(self._work())
                await self._feed_runs(numbers)
                await self._feed_artifacts(aids)
                for _ in range(CONNECTIONS):
                    await self._queue.put(None)
        except* (MirrorError, OSError) as several:
            # What is raised here would arrive in another group with Python 3.11.2.
            ended = several.exceptions[0]
        finally:
            await self._save()
        if ended is not None:
            raise ended

    async def _feed_runs(self, numbers: Sequence[int]) -> None:
        """Put the files of these runs into the queue, with their addresses."""
        now = utc_now()
        for first in range(0, len(numbers), RUNS_AT_ONCE):
            some = numbers[first : first + RUNS_AT_ONCE]
            files, (beyond, _) = await self.writer.read(
                lambda db, some=some: contents.wanted(db, self.selection, now, some)  # type: ignore[misc]
            )
            self.outcome.beyond_run += beyond
            await self._feed(files)

    async def _feed_artifacts(self, aids: Sequence[int]) -> None:
        """Put the files of these artifact versions into the queue, with their addresses; some of a large one at a time.

        Those of small ones are collected, so that they share requests.
        """
        now = utc_now()
        collected: list[Wanted] = []
        for aid in aids:
            after: str | None = None
            while True:
                files = await self.writer.read(
                    lambda db, aid=aid, after=after: artifact_contents.wanted(db, aid, now, after, ENTRIES_AT_ONCE)  # type: ignore[misc]
                )
                collected += files
                if len(collected) >= FILES_AT_ONCE:
                    await self._feed(collected)
                    collected = []
                if len(files) < ENTRIES_AT_ONCE:
                    break
                after = files[-1].name
        await self._feed(collected)

    async def _feed(self, files: Sequence[Wanted]) -> None:
        for project, count in Counter(file.project for file in files).items():
            self.progress.files_expected(project, count)
        missing = [file for file in files if not self._is_here(file)]
        await self._save_if_due()
        for batch in _batches(missing):
            await self._feed_batch(batch)

    def _is_here(self, file: Wanted) -> bool:
        """Return True if equal content is stored already, under another name."""
        digest = file.stored or self._finished.get((file.md5 or "", file.size))
        if digest is None or checkable(file.md5) is None or not self.blobs.has(digest, file.size):
            return False
        self._note_held(file, digest)
        return True

    async def _feed_batch(self, batch: Sequence[Wanted]) -> None:
        try:
            found = await self._addresses(batch)
        except (Unreachable, AuthError):
            raise
        except CommError as error:
            # One run that the server cannot answer for must not keep the files of others away.
            owners = dict.fromkeys(file.owner for file in batch)
            for owner in owners if len(owners) > 1 else ():
                await self._feed_batch([file for file in batch if file.owner == owner])
            for file in batch if len(owners) == 1 else ():
                self._note_failure(file, f"its address could not be asked for: {error}")
            return
        for file in batch:
            address = found.get((file.holder, file.name))
            if address is None:
                if file.kind == FILE:
                    self._changed_lists.add((file.project, file.holder))
                self._note_failure(file, "the server does not have it any more")
                continue
            now = _as_it_is_now(file, address)
            if self.selection.budget and self._bytes + now.size > self.selection.budget:
                self.outcome.beyond_budget += 1
                self.progress.files_done(file.project, 1)
            elif not self._is_here(now) and not self._joins(now):
                self._bytes += now.size
                await self._queue.put((now, address))
        await self._save_if_due()

    def _joins(self, file: Wanted) -> bool:
        """Return True if equal content is being downloaded, which this file then has, too."""
        if checkable(file.md5) is None:
            return False
        assert file.md5 is not None
        same = self._under_way.setdefault((file.md5, file.size), [])
        same.append(file)
        return len(same) > 1

    async def _addresses(self, batch: Sequence[Wanted]) -> dict[tuple[str, str], Address]:
        names: dict[str, list[str]] = {}
        for file in batch:
            names.setdefault(file.holder, []).append(file.name)
        if batch[0].kind == ARTIFACT:
            return await remote_artifacts.addresses(self.server, names)
        return await addresses(self.server, batch[0].project, names)

    async def _work(self) -> None:
        client = ContentClient(self.server)
        while (item := await self._queue.get()) is not None:
            await self._download(client, *item)
            await self._save_if_due()

    async def _download(self, client: ContentClient, file: Wanted, address: Address) -> None:
        """Download one file; a failure that concerns only this file is recorded."""
        key = (file.md5 or "", file.size)
        try:
            done, digest = await self._fetch(client, file, address)
        except (CommError, OSError) as error:
            self._bytes -= file.size
            same = self._under_way.pop(key, [file])
            if isinstance(error, AuthError):
                raise
            if isinstance(error, OSError):
                if disk_full(error):
                    raise _Ended(f"no space left on the disk of {self.blobs.folder}; free some") from error
                if error.errno in _FORBIDDEN:
                    raise _Ended(f"{self.blobs.folder} cannot be written: {error.strerror}") from error
            for one in same:
                text = str(error) if isinstance(error, CommError) else f"not written: {error}"
                self._note_failure(one, text, after=error.after if isinstance(error, SetAside) else None)
            self._unanswered = self._unanswered + 1 if isinstance(error, Unreachable | Unanswered) else 0
            if self._unanswered >= UNANSWERED:
                raise _Ended(f"{self._unanswered} downloads in a row failed: {error}") from error
            return
        same = self._under_way.pop(key, [file])
        self._unanswered = 0
        self.outcome.downloaded_bytes += done.size
        self._note_held(done, digest)
        # If the file changed meanwhile, the others are not what it is now; the next round pulls them.
        if (done.md5 or "", done.size) == key:
            self._remember(key, digest)
            for one in same[1:]:
                self._note_held(one, digest)

    def _remember(self, key: tuple[str, int], digest: str) -> None:
        """Remember a content that is stored, until it is found in the store."""
        if len(self._finished) >= FINISHED:
            self._finished.clear()
        if key[0]:
            self._finished[key] = digest

    async def _fetch(self, client: ContentClient, file: Wanted, address: Address) -> tuple[Wanted, str]:
        """Put the content into its place; return what it is the content of, and its digest.

        Once, an address that is refused, or a content that differs from what the server lists, is asked for again: the
        address may have expired, the file may have changed.
        """
        for last in (False, True):
            part_path, resumable = self.blobs.part(_part_name(file)), checkable(file.md5) is not None
            async with opened(part_path, file.size, resumable=resumable) as part:
                try:
                    if not part.size or part.size < part.expected:
                        await client.fetch(address.url, part)
                    fault = part.fault(file.md5)
                except NotFound:
                    raise
                except CommError as error:
                    # Refused by the object store, or more bytes than listed.
                    if last or isinstance(error, Unreachable | Unanswered):
                        raise
                    fault = str(error)
                    if not isinstance(error, Refused):
                        await in_thread(part.restart)
                except OSError as error:
                    if disk_full(error):
                        # What is needed is space, and a part is no use without it.
                        part.path.unlink(missing_ok=True)
                    raise
                else:
                    if fault is None:
                        await asyncio.to_thread(self.blobs.place, part.path, part.digest, part.size)
                        return file, part.digest
                    part.path.unlink(missing_ok=True)
                    if last:
                        raise CommError(f"the downloaded content {fault}; it may have changed meanwhile")
            found = (await self._addresses([file])).get((file.holder, file.name))
            if found is None:
                raise NotFound("the server does not have it any more")
            address = found
            file = _as_it_is_now(file, found)
        raise AssertionError("unreachable")

    def _note_held(self, file: Wanted, digest: str) -> None:
        self.outcome.stored += 1
        self._held.append((file, digest))
        self.progress.files_done(file.project, 1)

    def _note_failure(self, file: Wanted, error: str, after: float | None = None) -> None:
        reason = one_line(error)
        self.outcome.failed[file.path] = reason
        self.progress.files_done(file.project, 1)
        self._failed.append(Failure(file, reason, retries.retry_at(file.attempts, utc_now(), after)))

    async def _save_if_due(self) -> None:
        due = len(self._held) + len(self._failed) >= COMMIT_FILES
        if due or time.monotonic() - self._saved_at > COMMIT_SECONDS:
            await self._save()

    async def _save(self) -> None:
        """Record the files that are done."""
        async with self._saving:
            held, self._held = self._held, []
            failed, self._failed = self._failed, []
            lists, self._changed_lists = self._changed_lists, set()
            self._saved_at = time.monotonic()
            if not held and not failed:
                return

            def write(tx: Transaction) -> None:
                contents.save(tx, self.blobs, held, failed)
                for project, run_id in sorted(lists, key=str):
                    stored_console.forget_lists(tx, project, [run_id])

            # A round that is cancelled must not lose what it has downloaded.
            await asyncio.shield(self.writer.write(write))


def _as_it_is_now(file: Wanted, address: Address) -> Wanted:
    """Return the file with what the server says of it now: it may have changed since the list of its run was pulled.

    The files of an artifact do not change: their size and digest are those of the manifest, if it has them.
    """
    if file.kind == ARTIFACT:
        return file if file.size >= 0 else replace(file, size=address.size)
    return replace(file, size=address.size, md5=address.md5, updated_at=address.updated_at)


def _part_name(file: Wanted) -> str:
    """A name for the part that only the same content of the same file gets."""
    text = "\0".join((str(file.project), file.holder, file.name, file.md5 or "", str(file.size)))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _batches(files: Sequence[Wanted]) -> Iterator[list[Wanted]]:
    """Yield files of one project and of few runs or artifacts, whose addresses are asked for together."""
    batch: list[Wanted] = []
    for file in files:
        owners = {one.owner for one in batch}
        full = len(batch) >= FILES_AT_ONCE or (file.owner not in owners and len(owners) >= HOLDERS_OF_REQUEST)
        if batch and (full or batch[0].project != file.project):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch
