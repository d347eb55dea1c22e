"""Pulls the manifests of artifacts, which list their files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, field

from mirror.errors import AuthError, CommError, one_line
from mirror.remote import artifacts as remote
from mirror.remote import manifests
from mirror.remote.errors import AddressRefused, Unanswered, Unreachable
from mirror.store import artifacts as stored
from mirror.store import retries
from mirror.store.artifact_records import Pending
from mirror.store.records import ProjectKey
from mirror.store.transaction import Transaction
from mirror.sync.context import Context, utc_now

if TYPE_CHECKING:
    import pyarrow as pa

TOGETHER = 100
"""Manifests whose addresses are asked for together, and that are committed together."""

AT_ONCE = 16
"""Downloads at a time."""

FILES_AT_ONCE = 50_000
"""Manifests are pulled together up to this many files; this bounds the memory."""

LOST = "the server does not have it any more"


async def pull(context: Context, project: ProjectKey) -> dict[str, str]:
    """Pull the manifests that are missing. Returns what failed and will be retried, by the path of the artifact.

    Versions that are not complete on the server yet are recorded for `mirror status` only. Raises AuthError, and
    Unreachable when the server returns nothing more.
    """
    now = utc_now()
    unfinished, due = await context.writer.read(
        lambda db: (stored.not_committed(db, project, now), stored.without_files(db, project, now))
    )
    job = _Batch()
    job.failed = [(one, f"it is not complete on the server ({state})") for one, state in unfinished]
    await _save(context, job)
    failed: dict[str, str] = {}
    for batch in _batches(due):
        job = await _pulled(context, batch)
        await _save(context, job)
        failed |= {one.path: error for one, error in job.failed}
        if job.unanswered == len(batch) >= AT_ONCE:
            # The object store is failing, not the manifests; the others are as well left to the next pass.
            break
    return failed


class _Batch(Struct):
    entries: dict[int, pa.Table] = field(default_factory=dict)
    failed: list[tuple[Pending, str]] = field(default_factory=list)
    unanswered: int = 0


def _batches(due: Sequence[Pending]) -> Iterator[list[Pending]]:
    batch: list[Pending] = []
    files = 0
    for one in due:
        if batch and (len(batch) >= TOGETHER or files + one.file_count > FILES_AT_ONCE):
            yield batch
            batch, files = [], 0
        batch.append(one)
        files += one.file_count
    if batch:
        yield batch


async def _save(context: Context, job: _Batch) -> None:
    if not job.entries and not job.failed:
        return
    failures = [(one, one_line(error), retries.retry_at(one.attempts, utc_now())) for one, error in job.failed]

    def write(tx: Transaction) -> None:
        stored.put_entries(tx, job.entries)
        stored.put_failures(tx, failures)

    await context.writer.write(write)


async def _pulled(context: Context, batch: Sequence[Pending]) -> _Batch:
    job = _Batch()
    addresses = await _addresses(context, batch, job)

    slots = asyncio.Semaphore(AT_ONCE)

    async def one(pending: Pending) -> None:
        try:
            async with slots:
                job.entries[pending.aid] = await _entries(context, pending, addresses[pending.artifact_id])
        except AuthError:
            raise
        except CommError as error:
            job.unanswered += isinstance(error, Unreachable | Unanswered)
            job.failed.append((pending, f"its manifest could not be read: {error}"))

    await asyncio.gather(*(one(pending) for pending in batch if pending.artifact_id in addresses))
    return job


async def _addresses(context: Context, batch: Sequence[Pending], job: _Batch) -> dict[str, str | None]:
    """Return where the manifests are; one artifact that the server cannot answer for does not affect the others."""
    ids = list(dict.fromkeys(pending.artifact_id for pending in batch))
    try:
        with context.server.together():
            found = await remote.manifest_addresses(context.server, ids)
    except (Unreachable, AuthError):
        raise
    except CommError as error:
        if len(ids) > 1:
            several = [
                await _addresses(context, [pending for pending in batch if pending.artifact_id == one], job)
                for one in ids
            ]
            return {one: url for found in several for one, url in found.items()}
        job.failed += [(pending, f"its manifest could not be asked for: {error}") for pending in batch]
        return {}
    job.failed += [(pending, LOST) for pending in batch if pending.artifact_id not in found]
    return found


async def _entries(context: Context, pending: Pending, url: str | None) -> pa.Table:
    """Download and read a manifest. An address that is refused, as one that has expired, is asked for again once."""
    if not url:
        raise CommError("the server has none")
    try:
        content = await context.server.download(url, most_bytes=manifests.MOST_BYTES)
    except AddressRefused:
        again = (await remote.manifest_addresses(context.server, [pending.artifact_id])).get(pending.artifact_id)
        if not again:
            raise
        content = await context.server.download(again, most_bytes=manifests.MOST_BYTES)
    return await asyncio.to_thread(manifests.parse, content)
