"""The names and faults of the wide relations, which have one column for each config and summary key of a project."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_RELATIONS = """
    SELECT p.entity || '/' || p.project, m.value FROM store.project_records AS p
    JOIN store.meta AS m ON m.key = 'name of store.wide_' || p.number
"""
_RENAMED = """
    SELECT c.doc || '.' || c.key, c.name FROM store.wide_columns AS c
    JOIN store.meta AS m ON m.key = 'name of store.wide_' || c.project_number
    WHERE c.doc || '.' || c.key <> c.name AND list_contains(?::VARCHAR[], c.doc || '.' || c.key)
    AND list_contains(?::VARCHAR[], m.value)
"""
_FAULTS = """
select p.entity || '/' || p.project as project, m.value as fault
from store.meta m join store.project_records p on m.key = 'wide_fault_' || p.number
order by 1
"""


class Fault(NamedTuple):
    """A project whose wide relation is incomplete, and why, as a sentence."""

    project: str
    fault: str


def relations(connection: DuckDBPyConnection) -> dict[str, str]:
    """The name of each project's wide relation, by "entity/project"."""
    return dict(connection.execute(_RELATIONS).fetchall())


def renamed_columns(
    connection: DuckDBPyConnection, names: Collection[str], of: Collection[str]
) -> list[tuple[str, str]]:
    """Of the keys `names`, such as `config.lr`, those whose column in the relations `of` has another name; and it."""
    return connection.execute(_RENAMED, [list(names), list(of)]).fetchall()


def faults(connection: DuckDBPyConnection) -> list[Fault]:
    """The projects whose wide relation is incomplete, by name."""
    return [Fault(*row) for row in connection.execute(_FAULTS).fetchall()]
