"""W&B Tables of a run, from the mirror, else from the server."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror.api.files import File
from mirror.api.frames import of_runs, package
from mirror.errors import CommError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from mirror.snapshot.logged_tables import LoggedTable, Piece
    from mirror.snapshot.snapshot import Address


_OF_PIECES = ("joined-table", "partitioned-table")
"""Types of tables that are made of others, which takes the mirror."""


def read(
    address: Address, found: LoggedTable, file: Callable[[str], File], local: Callable[[Path], Path | None]
) -> pa.Table:
    """Return the rows of a table with typed columns; `file` returns a file of the run, `local` is `Session.local`.

    Raises StoreError for a file that is not a table, CommError if it can neither be read here nor on the server.
    """
    import pyarrow as pa

    parts = [_piece(address, found, piece, file, local) for piece in found.pieces]
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts, promote_options="permissive")


def _piece(
    address: Address,
    found: LoggedTable,
    piece: Piece,
    file: Callable[[str], File],
    local: Callable[[Path], Path | None],
) -> pa.Table:
    from pyarrow import parquet

    if piece.parquet_path is not None and (mirrored := local(Path(piece.parquet_path))) is not None:
        return parquet.read_table(mirrored)
    what = f"the table {found.key} of {address}"
    if found.type in _OF_PIECES and piece.error is not None:
        raise StoreError(f"{what} ({piece.path}) cannot be read: {piece.error}")
    if found.type in _OF_PIECES and piece.path is not None and "://" not in piece.path:
        raise CommError(
            f'{what} ({piece.path}) is not mirrored: set sync.files = ["*table.json"] and run `mirror sync`'
        )
    if piece.path is None or "://" in piece.path:
        raise CommError(f"{what} is in an artifact ({piece.path}), which is not mirrored: name it in sync.artifacts")
    from mirror.content.table_json import BadTable
    from mirror.content.table_parquet import convert

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "table.json", Path(folder) / "table.parquet"
        try:
            source.write_bytes(file(piece.path).read())
            convert(source, target)
        except BadTable as error:
            raise StoreError(f"{what} ({piece.path}) is not a table: {error}") from error
        except CommError as error:
            raise CommError(f"{what} is not mirrored, nor on the server: {error}", error) from error
        return parquet.read_table(target)


def shown(table: pa.Table, form: str) -> Any:
    """Return a table in a format."""
    match form:
        case "pandas":
            return of_runs(table, frozenset())
        case "polars":
            return package("polars").from_arrow(table)
        case "arrow":
            return table
        case _:
            return table.to_pylist()
