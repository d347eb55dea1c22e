"""What a snapshot knows about the history keys of runs without reading values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from mirror.snapshot.run_query import among

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


class Extent(NamedTuple):
    """A run's highest mirrored step (-1 without history), its number of values, and a key that every row has.

    The methods estimate, as if the values were evenly spread over the steps.
    """

    last_step: int
    values: int
    dense: str | None

    def values_between(self, low: int, high: int) -> int:
        """About how many values there are from step `low` to `high`, exclusive."""
        return self.values * (high - low) // (self.last_step + 1) if self.last_step >= 0 else 0

    def steps_holding(self, values: int) -> int:
        """About how many steps have this many values; at least one."""
        return max(1, (self.last_step + 1) * values // max(self.values, 1))


class Key(NamedTuple):
    """A history key of a run: its number of rows, its last step, and its last number."""

    key: str
    rows: int
    last_step: int
    last: float | None


def names(connection: DuckDBPyConnection, rid: int) -> list[str]:
    """The keys of a run, by name."""
    rows = connection.execute("SELECT key FROM store.run_keys WHERE rid = ? ORDER BY key", [rid]).fetchall()
    return [key for (key,) in rows]


def names_of(connection: DuckDBPyConnection, rids: Sequence[int]) -> dict[int, list[str]]:
    """The keys of each of these runs, by name; a run without history has none."""
    found: dict[int, list[str]] = {rid: [] for rid in rids}
    here = "rid IN (SELECT unnest(?::BIGINT[]))"
    sql = f"SELECT rid, list(key ORDER BY key) FROM store.run_keys WHERE {here} GROUP BY rid"
    found.update(connection.execute(sql, [list(rids)]).fetchall())
    return found


def counts(connection: DuckDBPyConnection, rid: int) -> dict[str, int]:
    """How many rows each key of a run has, by name."""
    found = connection.execute("SELECT key, rows FROM store.run_keys WHERE rid = ? ORDER BY key", [rid]).fetchall()
    return dict(found)


def of_run(connection: DuckDBPyConnection, rid: int) -> list[Key]:
    """The keys of a run, by name."""
    rows = connection.execute(
        "SELECT key, rows, last_step, last FROM store.run_keys WHERE rid = ? ORDER BY key", [rid]
    ).fetchall()
    return [Key(*row) for row in rows]


def last_numbers(connection: DuckDBPyConnection, rids: Sequence[int]) -> list[tuple[int, str, int, float | None]]:
    """The keys of these runs, by rid and name: rid, key, rows, last number."""
    here, params = among(rids, exactly=True)
    keys = f"SELECT rid, key, rows, last FROM store.run_keys WHERE {here} ORDER BY rid, key"
    return connection.execute(keys, params).fetchall()


class Sizes(NamedTuple):
    """Of some keys of a run: the number of values, the rows that there are at least, and the number of keys."""

    values: int
    rows: int
    keys: int


def sizes(connection: DuckDBPyConnection, rids: Sequence[int], keys: Sequence[str]) -> dict[int, Sizes]:
    """How much these runs logged under these keys, or under all if none is given, by rid."""
    here, params = among(rids)
    named = " AND key IN (SELECT unnest(?::VARCHAR[]))" if keys else ""
    sql = f"SELECT rid, sum(rows)::BIGINT, max(rows), count(*) FROM store.run_keys WHERE {here}{named} GROUP BY rid"
    rows = connection.execute(sql, [*params, *([list(keys)] if keys else [])]).fetchall()
    return dict.fromkeys(rids, Sizes(0, 0, 0)) | {rid: Sizes(*size) for rid, *size in rows}


def first_step(connection: DuckDBPyConnection, rid: int) -> int | None:
    """The first step at which a run logged anything; None for a run without history."""
    found = connection.execute("SELECT min(first_step) FROM store.run_keys WHERE rid = ?", [rid]).fetchall()
    first: int | None = found[0][0]
    return first


def numeric(connection: DuckDBPyConnection, rid: int, keys: Sequence[str]) -> list[str]:
    """The keys, of these, for which the run logged a finite number, in the given order."""
    sql = "SELECT key FROM store.run_keys WHERE rid = ? AND min IS NOT NULL AND key IN (SELECT unnest(?::VARCHAR[]))"
    logged = {key for (key,) in connection.execute(sql, [rid, list(keys)]).fetchall()}
    return [key for key in keys if key in logged]


def extents(connection: DuckDBPyConnection, rids: Sequence[int]) -> dict[int, Extent]:
    """How much history each of these runs has."""
    rows = connection.execute(
        "SELECT h.rid, coalesce(any_value(h.last_step), -1), coalesce(sum(k.rows), 0)::BIGINT, "
        "min(k.key) FILTER (k.rows = h.rows) "
        "FROM store.run_history AS h LEFT JOIN store.run_keys AS k ON k.rid = h.rid "
        "WHERE h.rid IN (SELECT unnest(?::BIGINT[])) GROUP BY h.rid",
        [list(rids)],
    ).fetchall()
    return dict.fromkeys(rids, Extent(-1, 0, None)) | {rid: Extent(*extent) for rid, *extent in rows}
