"""Whether a database of the mirror can be read through: DuckDB holds each block against its checksum as it is read."""

from __future__ import annotations

from pathlib import Path

import duckdb

from mirror.errors import StoreDamaged, StoreError
from mirror.store import sqlfiles
from mirror.store.database import MEMORY_LIMIT, opening_error, reason, scan
from mirror.store.names import literal


def check(path: Path) -> None:
    """Read a database file through, without changing it; its log, if it has one, is read with it.

    Raises StoreBusy when another process holds it for writing, StoreDamaged, or StoreError when it cannot be read for
    another reason or was written by a newer program.
    """
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = {literal(MEMORY_LIMIT)}").fetchall()
            connection.execute(f"ATTACH {literal(path)} AS checked (READ_ONLY)").fetchall()
            scan(connection, "checked")
            found = connection.execute("SELECT max(number) FROM checked.store.migrations").fetchall()
    except duckdb.CatalogException as error:
        raise StoreDamaged(f"{path} holds no mirror", reason(error)) from error
    except (duckdb.Error, OSError) as error:
        raise opening_error(path, error) from error
    known = max(int(name.split("_")[0]) for name in sqlfiles.read("migrations"))
    if (found[0][0] or 0) > known:
        raise StoreError(
            f"{path} has schema version {found[0][0]}, newer than the {known} that this program knows; "
            "update wandb-mirror"
        )
