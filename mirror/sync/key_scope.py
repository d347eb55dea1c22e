"""Finds the runs whose mirrored history lacks keys that earlier globs left out."""

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
    """Return the runs with keys that the new globs select and the old ones did not.

    `globs` are the old ones, as JSON text, and the new ones. The server lists the keys that a run ever logged;
    `key_rows` returns how many values are mirrored of each key of some runs. Runs whose keys the server does not list
    are included. So are runs that are being pulled again: their staged history was pulled with the old globs.
    """
    served = [run for run in known.values() if not (run.deleted or run.local or run.ahead)]
    mirrored = {run.run_id for run in served if run.rows}
    again = {run.run_id for run in served if run.refresh}
    before, now = KeyGlobs(json.loads(globs[0])), KeyGlobs(globs[1])
    unlisted = set(mirrored)
    try:
        async with aclosing(remote.history_keys(server, project)) as pages:
            async for page in pages:
                listed = {run_id: keys for run_id, keys in page.items() if run_id in unlisted}
                unlisted -= listed.keys()
                rows = await key_rows(list(listed))
                again |= {
                    run_id
                    for run_id, keys in listed.items()
                    if plan.lacks_keys(keys, rows.get(run_id, {}), before, now)
                }
    except FeatureMissing:
        return sorted(again | mirrored)
    return sorted(again | unlisted)
