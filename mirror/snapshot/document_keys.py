"""The keys of configs and summaries over the runs of a project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def most_common(connection: DuckDBPyConnection, project: Project, most: int) -> list[tuple[str, str, int]]:
    """The keys that most runs of a project have: `config` or `summary`, key, number of runs; at most `most` of them."""
    return connection.execute(
        "SELECT k.doc, k.key, k.runs FROM store.leaf_keys AS k "
        "JOIN store.project_records AS p ON p.number = k.project_number "
        "WHERE p.entity = ? AND p.project = ? AND k.runs > 0 ORDER BY k.runs DESC, k.key LIMIT ?",
        [*project, most],
    ).fetchall()


def varied(connection: DuckDBPyConnection, project: Project, newest: int) -> set[tuple[str, str]]:
    """The keys in which the `newest` latest runs of a project differ: `config` or `summary`, key."""
    rows = connection.execute(
        "SELECT l.doc, l.key FROM store.leaves AS l WHERE l.element IS NULL AND l.rid IN ("
        " SELECT rid FROM store.run_records WHERE entity = ? AND project = ? AND deleted_at IS NULL"
        " ORDER BY created_at DESC LIMIT ?) GROUP BY ALL HAVING count(DISTINCT l.text) > 1",
        [*project, newest],
    ).fetchall()
    return set(rows)


def of_runs(connection: DuckDBPyConnection, rids: Sequence[int]) -> list[tuple[str, str]]:
    """Every key that any of these runs has a value at: `config` or `summary`, key; those most runs have come first.

    Of an object that is not empty only its own keys are listed.
    """
    return connection.execute(
        "SELECT doc, key FROM store.leaves"
        " WHERE element IS NULL AND text IS NOT NULL AND rid IN (SELECT unnest(?::BIGINT[]))"
        " GROUP BY ALL ORDER BY doc, count(*) DESC, key",
        [list(rids)],
    ).fetchall()


def located(document: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    """The path in a document of a key with dots, each of which may be part of a name; None if it is not there."""
    if key in document:
        return (key,)
    for place, letter in enumerate(key):
        below = document.get(key[:place]) if letter == "." else None
        if isinstance(below, dict) and "_type" not in below and (found := located(below, key[place + 1 :])):
            return (key[:place], *found)
    return None
