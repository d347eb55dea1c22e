"""Which keys tell runs apart: the config and summary values that are worth a column in a table of these runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

LOOKED_AT = 200
"""How many of the runs decide whether runs differ in a key."""

MOST_EACH = 4
"""Keys of config, and of summary."""

_LONGEST = 24
"""Values longer than this, on average, do not fit a column."""

Address = tuple[str, str, str]


def keys(connection: DuckDBPyConnection, runs: Sequence[Address], most: int = MOST_EACH) -> list[str]:
    """The keys in which these runs differ, as `config.lr` and `summary.acc`; those that most runs have come first.

    At most `most` of config and of summary, and only keys whose values are single and short. W&B's own keys, which
    begin with `_`, are left out, and so are keys with a comma, which a list of columns cannot name.
    """
    if len(runs) < 2:
        return []
    entities, projects, ids = zip(*runs, strict=True)
    found: list[str] = []
    for doc in ("config", "summary"):
        rows = connection.execute(
            f"""WITH picked AS (
                SELECT unnest(?::VARCHAR[]) AS entity, unnest(?::VARCHAR[]) AS project, unnest(?::VARCHAR[]) AS run_id
            )
            SELECT v.key FROM {doc}_values AS v JOIN picked USING (entity, project, run_id)
            WHERE NOT starts_with(v.key, '_') AND NOT contains(v.key, ',')
            GROUP BY v.key
            HAVING count(DISTINCT v.value) > 1 AND bool_and(v.kind IN ('number', 'string', 'bool', 'null'))
                AND avg(length(v.value)) <= ?
            ORDER BY count(*) DESC, length(v.key), v.key LIMIT ?""",
            [list(entities), list(projects), list(ids), _LONGEST, most],
        ).fetchall()
        found += [f"{doc}.{key}" for (key,) in rows]
    return found
