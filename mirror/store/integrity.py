"""Whether a database of the mirror can be read through: DuckDB holds each block against its checksum as it is read."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import duckdb

from mirror.errors import StoreBusy, StoreDamaged, StoreError
from mirror.settings.home import Home
from mirror.store import sqlfiles
from mirror.store.database import MEMORY_LIMIT, opening_error, reason, scan
from mirror.store.identity import Identity, look, of, refuse_stranger
from mirror.store.names import literal


def check(path: Path) -> Identity | None:
    """Read a database file through, without changing it; its log, if it has one, is read with it. Whose it is.

    Raises StoreBusy when another process holds it for writing, StoreDamaged, or StoreError when it cannot be read for
    another reason or was written by a newer program.
    """
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = {literal(MEMORY_LIMIT)}").fetchall()
            connection.execute(f"ATTACH {literal(path)} AS checked (READ_ONLY)").fetchall()
            connection.execute("USE checked").fetchall()
            scan(connection, "checked")
            newest = connection.execute("SELECT max(number) FROM store.migrations").fetchall()[0][0] or 0
            whose = of(lambda sql: connection.execute(sql).fetchall())
    except duckdb.CatalogException as error:
        raise StoreDamaged(f"{path} holds no mirror", reason(error)) from error
    except (duckdb.Error, OSError) as error:
        raise opening_error(path, error) from error
    known = max(int(name.split("_")[0]) for name in sqlfiles.read("migrations"))
    if newest > known:
        raise StoreError(
            f"{path} has schema version {newest}, newer than the {known} that this program knows; update wandb-mirror"
        )
    return whose


def problem(home: Home) -> str | None:
    """What keeps the state from being opened or published by the next command; None if nothing does.

    Raises StoreBusy when another process holds it, since then only that one can tell.
    """
    there = home.published.exists()
    if not home.state.exists():
        return f"{home.state} is missing" if there else None
    try:
        mine = check(home.state)
        if there and mine is not None:
            with suppress(StoreDamaged):
                refuse_stranger(home.state, mine, home.published, look(home.published))
    except StoreBusy:
        raise
    except StoreError as error:
        return str(error)
    return None
