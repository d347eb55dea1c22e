"""`mirror query --compare`: the runs that a filter finds only on the server or only in the mirror."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mirror.cli import ending
from mirror.cli.messages import ExitCode, leave, say, warn
from mirror.cli.output import Output, write_result
from mirror.filters.moments import now_utc, resolved
from mirror.filters.parse import read_json
from mirror.snapshot.connection import connected
from mirror.snapshot.paths import find_projects, projects
from mirror.snapshot.result import Rows
from mirror.snapshot.run_query import RunQuery
from mirror.store.records import ProjectKey
from mirror.sync.session import connect
from mirror.verify.filters import Comparison, compare

if TYPE_CHECKING:
    from mirror.cli.filters import Filter
    from mirror.cli.invocation import Invocation


def print_comparison(given: Invocation, filter_: Filter, patterns: Sequence[str], output: Output) -> None:
    """Print the runs that only one side finds; if there are any, the exit code is 1."""
    settings = given.settings()
    with connected(given.home) as connection:
        chosen = find_projects(connection, patterns, given.entity) if patterns else projects(connection)
        # Finds errors in the filter before the server is asked.
        query = RunQuery.build(connection, filter_, projects=[str(key) for key in chosen])
        for warning in query.warnings():
            warn(warning)
        conditions = resolved(read_json(filter_) if isinstance(filter_, str) else filter_ or {}, now_utc())

        async def ask() -> Comparison:
            async with connect(settings, given.environ) as server:
                keys = [ProjectKey(*key) for key in chosen]
                return await compare(connection, server, keys, conditions, settings.sync.filters)

        found = ending.run(ask())
    rows = [(f"{one.project}/{one.run_id}", one.found_by, one.why) for one in found.differences]
    if not rows:
        say(f"the server and the mirror find the same runs: {found.agreed:,}")
        return
    write_result(Rows(["run", "found_by", "why"], rows), output)
    say(f"found by both: {found.agreed:,}; by only one: {len(rows):,}")
    leave(ExitCode.FAILED)
