"""Checks that a database of the mirror can be read completely; DuckDB compares each block with its checksum."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import duckdb

from mirror.errors import StoreBusy, StoreDamaged, StoreError
from mirror.settings.home import Home
from mirror.store import migrations
from mirror.store.database import MEMORY_LIMIT, opening_error, reason, scan
from mirror.store.identity import Identity, check_may_replace, look, of
from mirror.store.names import literal


def check(path: Path) -> Identity | None:
    """Read a database file, with its log, completely and without changing it. Returns its identity.

    Raises StoreBusy if another process has it open for writing, StoreDamaged, or StoreError if it cannot be read for
    another reason or was written by a newer program.
    """
    try:
        with duckdb.connect() as connection:
            connection.execute(f"SET memory_limit = {literal(MEMORY_LIMIT)}").fetchall()
            connection.execute(f"ATTACH {literal(path)} AS checked (READ_ONLY)").fetchall()
            connection.execute("USE checked").fetchall()
            scan(connection, "checked")
            newest = connection.execute("SELECT max(number) FROM store.migrations").fetchall()[0][0] or 0
            identity = of(lambda sql: connection.execute(sql).fetchall())
    except duckdb.CatalogException as error:
        raise StoreDamaged(f"{path} holds no mirror", reason(error)) from error
    except (duckdb.Error, OSError) as error:
        raise opening_error(path, error) from error
    if newest > migrations.latest():
        raise migrations.newer(path, newest)
    return identity


def problem(home: Home) -> str | None:
    """Why the next command could not open or publish the state; None if it can.

    Raises StoreBusy if another process has the state open, since then only that process can check it.
    """
    is_published = home.published.exists()
    if not home.state.exists():
        return f"{home.state} is missing" if is_published else None
    try:
        identity = check(home.state)
        if is_published and identity is not None:
            with suppress(StoreDamaged):
                check_may_replace(home.state, identity, home.published, look(home.published))
    except StoreBusy:
        raise
    except StoreError as error:
        return str(error)
    return None
