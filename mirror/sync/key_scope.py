"""What other key globs left out of the mirrored history."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing

from mirror.remote import runs as remote
from mirror.remote.client import FeatureMissing, Server
from mirror.remote.json_history import KeyGlobs
from mirror.store.records import KnownRun, ProjectKey
from mirror.sync import plan

KeyRows = Callable[[Sequence[str]], Awaitable[Mapping[str, Mapping[str, int]]]]


async def lacking(
    server: Server,
    project: ProjectKey,
    known: Mapping[str, KnownRun],
    globs: tuple[str, Sequence[str]],
    key_rows: KeyRows,
) -> list[str]:
    """The runs of which globs want keys that former ones did not take; `globs` are the former, as JSON text, and these.

    The server tells which keys a run ever logged, and `key_rows` how many values are mirrored of each key of some runs.
    A run of which the server does not tell is among them. So are those that are pulled afresh just now: what is
    gathered of them was taken with the former globs.
    """
    served = [run for run in known.values() if not (run.deleted or run.local or run.ahead)]
    mirrored = {run.run_id for run in served if run.rows}
    again = {run.run_id for run in served if run.refresh}
    before, now = KeyGlobs(json.loads(globs[0])), KeyGlobs(globs[1])
    unlisted = set(mirrored)
    try:
        async with aclosing(remote.history_keys(server, project)) as pages:
            async for page in pages:
                told = {run_id: keys for run_id, keys in page.items() if run_id in unlisted}
                unlisted -= told.keys()
                rows = await key_rows(list(told))
                again |= {
                    run_id for run_id, keys in told.items() if plan.lacks_keys(keys, rows.get(run_id, {}), before, now)
                }
    except FeatureMissing:
        return sorted(again | mirrored)
    return sorted(again | unlisted)
