"""Refuses names in users' SQL that DuckDB would take for another name, since it ignores case."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from mirror.errors import QueryError
from mirror.snapshot import logged_tables, wide
from mirror.store.names import folded, identifier

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def refuse(connection: DuckDBPyConnection, names: Collection[str]) -> None:
    """Raise QueryError if a quoted name is a project or a key whose relation or column has a different name.

    Of names that differ only in case, all but one get a number appended (docs/relations.md), and SQL with the original
    name would read the rows or values of the other one.
    """
    if not any("/" in name for name in names):
        return
    relations = wide.relations(connection)
    of_keys = logged_tables.relations(connection)
    for name in names:
        if relations.get(name, name) != name:
            raise _misread(name, relations[name], "the relation of this project")
        if of_keys.get(name, name) != name:
            raise _misread(name, of_keys[name], "the relation of the tables under this key")
    named = {folded(name) for name in names}
    used = [relation for relation in relations.values() if folded(relation) in named]
    for key, column in wide.renamed_columns(connection, names, used):
        raise _misread(key, column, "the column of this key")


def _misread(name: str, right: str, what: str) -> QueryError:
    return QueryError(
        f"{identifier(name)} would read a name spelled in another case, since SQL ignores case: "
        f"{what} is {identifier(right)}"
    )
