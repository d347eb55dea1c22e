"""Passes over many projects at once, with one server connection and one writer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from mirror.sync.context import Context, PassResult
from mirror.sync.project import sync_project
from mirror.sync.targets import Target

PROJECTS_AT_ONCE = 4


async def sync(
    context: Context, targets: Sequence[Target], *, afresh: bool = False, since: datetime | None = None
) -> list[PassResult]:
    """Run one pass over each target, several at a time; commits are published before this returns.

    With `afresh` everything is pulled again, while readers still see the old values. With `since`, runs that neither
    started nor logged since then are left for a later pass.
    """
    slots = asyncio.Semaphore(PROJECTS_AT_ONCE)

    async def one(target: Target) -> PassResult:
        async with slots:
            return await sync_project(context, target.project, run_ids=target.run_ids, afresh=afresh, since=since)

    context.progress.projects_expected(len(targets))
    results = await asyncio.gather(*(one(target) for target in targets))
    await context.writer.maintain()
    await context.writer.publish()
    return list(results)
