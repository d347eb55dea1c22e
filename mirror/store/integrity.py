"""Checks that a database of the mirror can be read completely; DuckDB compares each block with its checksum."""

from __future__ import annotations

from pathlib import Path

import duckdb
from msgspec import Struct

from mirror.errors import StoreBusy, StoreDamaged, StoreError
from mirror.settings.home import Home
from mirror.store import migrations
from mirror.store.database import MEMORY_LIMIT, opening_error, reason, scan
from mirror.store.identity import Identity, check_may_replace, of
from mirror.store.names import literal
from mirror.store.steady import TRIES, fingerprint


class Problems(Struct, frozen=True):
    """What is wrong with the two databases of a home; None for a file with which nothing is wrong.

    `state` is why the next command could not open or publish the state. If another process has it open, only that
    process can check it: then `busy` says so, and `state` is None.
    """

    state: str | None = None
    published: str | None = None
    busy: StoreBusy | None = None


def check(path: Path) -> Identity | None:
    """Read a database file, with its log, completely and without changing it. Returns its identity.

    Raises StoreBusy if another process has it open for writing, StoreDamaged, or StoreError if it cannot be read for
    another reason or was written by a newer program.
    """
    with duckdb.connect() as connection:
        return _check(connection, path)


def problems(home: Home, *, state: bool = True) -> Problems:
    """Read both databases of a home completely, or the published one alone."""
    identity, damage, tries = None, None, TRIES
    connection = duckdb.connect()
    try:
        while tries and home.published.exists():
            tries, damage, before = tries - 1, None, fingerprint(home.published)
            try:
                identity = _check(connection, home.published)
                break
            except StoreError as error:
                damage = str(error)
                # An instance that met damage may accept no further statement.
                connection.close()
                connection = duckdb.connect()
            if fingerprint(home.published) == before:
                break
        try:
            return Problems(_of_state(connection, home, identity) if state else None, damage)
        except StoreBusy as error:
            return Problems(None, damage, error)
    finally:
        connection.close()


def _of_state(connection: duckdb.DuckDBPyConnection, home: Home, published: Identity | None) -> str | None:
    """Return what is wrong with the state; `published` is the identity of the published file. Raises StoreBusy."""
    if not home.state.exists():
        return f"{home.state} is missing" if home.published.exists() else None
    try:
        identity = _check(connection, home.state)
        if identity is not None and published is not None:
            check_may_replace(home.state, identity, home.published, published)
    except StoreBusy:
        raise
    except StoreError as error:
        return str(error)
    return None


def _check(connection: duckdb.DuckDBPyConnection, path: Path) -> Identity | None:
    try:
        connection.execute(f"SET memory_limit = {literal(MEMORY_LIMIT)}").fetchall()
        connection.execute(f"ATTACH {literal(path)} AS checked (READ_ONLY)").fetchall()
        connection.execute("USE checked").fetchall()
        scan(connection, "checked")
        newest = connection.execute("SELECT max(number) FROM store.migrations").fetchall()[0][0] or 0
        identity = of(lambda sql: connection.execute(sql).fetchall())
        connection.execute("USE memory").fetchall()
        connection.execute("DETACH checked").fetchall()
    except duckdb.CatalogException as error:
        raise StoreDamaged(f"{path} holds no mirror", reason(error)) from error
    except (duckdb.Error, OSError) as error:
        raise opening_error(path, error) from error
    if newest > migrations.latest():
        raise migrations.newer(path, newest)
    return identity
