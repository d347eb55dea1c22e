"""Puts the Parquet of plain tables together to that of a joined or partitioned W&B Table."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from mirror.content.table_json import BadTable
from mirror.content.table_parquet import Converted, column_name
from mirror.content.table_pieces import Join, Leaf, Node, Parts
from mirror.errors import one_line
from mirror.store.database import disk_full
from mirror.store.names import identifier, literal, pattern, unique_names
from mirror.store.table_types import common, stored

if TYPE_CHECKING:
    import duckdb

MOST_ROWS = 100_000_000
"""A join by keys that repeat in both tables may have as many rows as the product of both."""

MEMORY = "512MB"

Paths = Callable[[str], Path]
"""Returns the path of the Parquet with a digest."""


class _Relation(Struct, frozen=True):
    """A query for rows, with the columns as they were logged, and their names and types in it."""

    columns: tuple[str, ...]
    names: tuple[str, ...]
    types: tuple[str, ...]
    sql: str


def leaves(node: Node) -> list[Leaf]:
    """The plain tables that a table consists of."""
    match node:
        case Leaf():
            return [node]
        case Parts():
            return [leaf for part in node.parts for leaf in leaves(part)]
    return leaves(node.first) + leaves(node.second)


@contextmanager
def opened() -> Iterator[duckdb.DuckDBPyConnection]:
    """Return a database in memory for `compose`: to open it takes as long as a small table."""
    import duckdb

    with tempfile.TemporaryDirectory() as folder:
        config: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": MEMORY,
            "temp_directory": folder,
        }
        with duckdb.connect(":memory:", config=config) as connection:
            yield connection


def compose(connection: duckdb.DuckDBPyConnection, node: Node, target: Path, path: Paths) -> Converted:
    """Write the rows of a table of pieces to the Parquet file `target`. Raises BadTable and OSError."""
    import duckdb

    try:
        relation = _relation(node, path, connection)
        copied = connection.execute(
            f"COPY ({relation.sql}) TO {literal(target)} (FORMAT parquet, COMPRESSION zstd)"
        ).fetchone()
    except duckdb.Error as error:
        if disk_full(error):
            raise OSError(errno.ENOSPC, one_line(str(error))) from error
        raise BadTable(f"its pieces cannot be put together: {one_line(str(error))}") from error
    rows = int(copied[0]) if copied else 0
    return Converted(list(relation.columns), list(relation.names), list(relation.types), rows)


def _relation(node: Node, path: Paths, connection: duckdb.DuckDBPyConnection) -> _Relation:
    match node:
        case Leaf():
            return _read([node], path)
        case Parts():
            found = []
            for shape, parts in groupby(node.parts, lambda part: isinstance(part, Leaf) and (part.columns, part.types)):
                if shape:
                    found.append(_read([part for part in parts if isinstance(part, Leaf)], path))
                else:
                    found += [_relation(part, path, connection) for part in parts]
            return _union(found)
    first, second = (_relation(piece, path, connection) for piece in (node.first, node.second))
    return _join(node, first, second, connection)


def _read(equal: Sequence[Leaf], path: Paths) -> _Relation:
    """The rows of plain tables with the same columns."""
    one = equal[0]
    files = ", ".join(pattern(path(leaf.parquet)) for leaf in equal)
    shown = ", ".join(map(identifier, one.names))
    sql = f"SELECT {shown} FROM read_parquet([{files}], hive_partitioning = false)"
    return _Relation(one.columns, one.names, one.types, sql)


def _union(parts: Sequence[_Relation]) -> _Relation:
    """The rows of all, one part after the other. Columns of the same name are one; a part that lacks it has nulls."""
    if len(parts) == 1:
        return parts[0]
    kinds: dict[tuple[str, int], list[str]] = {}
    places = [_numbered(part.columns) for part in parts]
    for part, keys in zip(parts, places, strict=True):
        for key, kind in zip(keys, part.types, strict=True):
            kinds.setdefault(key, []).append(kind)
    types = {key: common(found) for key, found in kinds.items()}
    names = dict(zip(types, unique_names([column_name(column) for column, _ in types]), strict=True))
    reads = []
    for part, keys in zip(parts, places, strict=True):
        own = dict(zip(keys, part.names, strict=True))
        cells = (
            f"{identifier(own[key]) if key in own else 'NULL'}::{stored(kind)} AS {identifier(names[key])}"
            for key, kind in types.items()
        )
        reads.append(f"SELECT {', '.join(cells)} FROM ({part.sql})")
    columns = tuple(column for column, _ in types)
    return _Relation(columns, tuple(names.values()), tuple(types.values()), " UNION ALL ".join(reads))


def _numbered(columns: Sequence[str]) -> list[tuple[str, int]]:
    """Each column with how many of its name come before it."""
    return [(column, columns[:index].count(column)) for index, column in enumerate(columns)]


def _join(node: Join, first: _Relation, second: _Relation, connection: duckdb.DuckDBPyConnection) -> _Relation:
    """The full outer join: the rows of the first with what matches of the second, then what is left of the second.

    All columns of the first, then those of the second; a join key of one name in both is one column.
    """
    left, right = _key(node, "table1", first, node.keys[0]), _key(node, "table2", second, node.keys[1])
    kind = common((first.types[left], second.types[right]))
    by = f"f{left}::{stored(kind)}", f"s{right}::{stored(kind)}"
    sides = [
        f"(SELECT row_number() OVER () AS {side}, "
        f"{', '.join(f'{identifier(name)} AS {side}{index}' for index, name in enumerate(one.names))} FROM ({one.sql}))"
        for side, one in (("f", first), ("s", second))
    ]
    _check_rows(sides, by, connection)
    cells = [(column, f"f{index}", first.types[index]) for index, column in enumerate(first.columns)]
    other = [(column, f"s{index}", second.types[index]) for index, column in enumerate(second.columns)]
    if node.keys[0] == node.keys[1]:
        cells[left] = (node.keys[0], f"coalesce({by[0]}, {by[1]})", kind)
        del other[right]
    cells += other
    names = unique_names([column_name(column) for column, _, _ in cells])
    shown = ", ".join(f"{cell} AS {identifier(name)}" for name, (_, cell, _) in zip(names, cells, strict=True))
    sql = f"SELECT {shown} FROM {sides[0]} FULL JOIN {sides[1]} ON {by[0]} = {by[1]} ORDER BY f NULLS LAST, s"
    columns, _, types = zip(*cells, strict=True)
    return _Relation(columns, tuple(names), types, sql)


def _key(node: Join, member: str, table: _Relation, key: str) -> int:
    if key not in table.columns:
        raise BadTable(
            f"{node.path} joins by the column {key}, which its `{member}` lacks; that has {', '.join(table.columns)}"
        )
    return table.columns.index(key)


def _check_rows(sides: Sequence[str], by: tuple[str, str], connection: duckdb.DuckDBPyConnection) -> None:
    """Raise BadTable if the join would have too many rows."""
    counts = [
        f"(SELECT {key} AS key, count(*) AS n FROM {side} GROUP BY ALL)" for key, side in zip(by, sides, strict=True)
    ]
    found = connection.execute(
        f"SELECT coalesce(sum(f.n::HUGEINT * s.n), 0) FROM {counts[0]} AS f JOIN {counts[1]} AS s USING (key)"
    ).fetchone()
    rows = int(found[0]) if found else 0
    if rows > MOST_ROWS:
        raise BadTable(
            f"it would have {rows:,} rows, since its join key repeats in both tables; {MOST_ROWS:,} are the most"
        )
