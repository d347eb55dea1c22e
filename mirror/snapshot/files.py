"""The list of a run's files, as far as it is mirrored. Their content is the server's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True)
class Asked:
    """Which files are wanted: these names, or else those that fit a pattern of SQL's LIKE, or else all."""

    names: Sequence[str] = ()
    pattern: str | None = None

    @property
    def condition(self) -> tuple[str, list[Any]]:
        """The same as SQL."""
        if self.names:
            return "name IN (SELECT unnest(?::VARCHAR[]))", [list(self.names)]
        if not self.pattern:
            return "true", []
        # One that takes no character as it is stands for itself.
        alone = (len(self.pattern) - len(self.pattern.rstrip("\\"))) % 2
        return "name LIKE ? ESCAPE '\\'", [self.pattern + "\\" * alone]


def count(connection: DuckDBPyConnection, rid: int) -> int | None:
    """How many files a run has; None where its list was never taken."""
    listed_at, number = listed(connection, rid)
    return None if listed_at is None else number


def listed(connection: DuckDBPyConnection, rid: int) -> tuple[datetime | None, int]:
    """When the list of a run's files was taken last, and how many it holds; None for never."""
    import duckdb

    try:
        found = connection.execute(
            "SELECT x.listed_at, (SELECT count(*) FROM store.run_files WHERE rid = x.rid) "
            "FROM store.run_extras AS x WHERE x.rid = ?",
            [rid],
        ).fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        # The file was published before there were lists.
        return None, 0
    return (found[0][0], int(found[0][1])) if found else (None, 0)


def missing(connection: DuckDBPyConnection, rid: int, names: Sequence[str]) -> bool:
    """Whether any of these names is not in the list."""
    wanted = set(names)
    found = connection.execute(
        "SELECT count(DISTINCT name) FROM store.run_files WHERE rid = ? AND name IN (SELECT unnest(?::VARCHAR[]))",
        [rid, list(wanted)],
    ).fetchall()
    return int(found[0][0]) < len(wanted)


def page(
    connection: DuckDBPyConnection, rid: int, asked: Asked, first: int, start: int = 0
) -> tuple[list[dict[str, Any]], bool]:
    """At most `first` files of a run by name, from the place `start` on, as W&B tells them; whether there are more.

    Without addresses: those that the server gives are signed for a while only.
    """
    condition, params = asked.condition
    found = connection.execute(
        "SELECT file_id, name, size, mimetype, updated_at, md5 FROM store.run_files "
        f"WHERE rid = ? AND {condition} ORDER BY name LIMIT ? OFFSET ?",
        [rid, *params, first + 1, start],
    ).fetchall()
    return [_node(*row) for row in found[:first]], len(found) > first


def _node(
    file_id: str, name: str, size: int, mimetype: str | None, updated: datetime | None, md5: str | None
) -> dict[str, Any]:
    return {
        "id": file_id,
        "name": name,
        "sizeBytes": size,
        "mimetype": mimetype,
        "updatedAt": None if updated is None else f"{updated.isoformat()}Z",
        "md5": md5,
    }
