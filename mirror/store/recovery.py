"""Rebuilds a damaged or missing state file from the published file, which is a copy of it.

What was committed after the copy was made is pulled again, because the copy has the cursors of that time. Damaged
files are not deleted, but moved to the folder `aside`.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from mirror.errors import StoreDamaged, StoreError
from mirror.settings.home import Home
from mirror.store import aside, files, integrity
from mirror.store.database import log_file, log_files
from mirror.store.names import literal

logger = logging.getLogger(__name__)

_LOG_AT_FAULT = ("replaying WAL", "This WAL was created")

_IDENTIFIED = (1, 4)
"""From this format on DuckDB knows to which checkpoint of which file a log belongs, and refuses other logs."""


def restore_missing(home: Home) -> None:
    """Rebuild a missing state from the published file; do nothing if neither exists.

    Raises StoreError if the published file cannot be used.
    """
    if home.state.exists():
        return
    if home.published.exists():
        _restore_published(home, f"{home.state} is missing")
    elif logs := log_files(home.state):
        kept = aside.put(home.data, logs)
        logger.warning("%s is missing, and its log is useless without it; the log is kept in %s", home.state, kept)


def recover(home: Home, damage: StoreDamaged) -> None:
    """Repair the files of the home so that the state can be opened. No process may have the state open.

    Raises StoreDamaged if neither the state nor the published file can be read.
    """
    logs = log_files(home.state)
    if logs and any(words in damage.reason for words in _LOG_AT_FAULT):
        _shorten_log(home, logs, damage)
    elif home.published.exists():
        _restore_published(home, str(damage))
    elif home.state.exists() and not home.state.stat().st_size:
        kept = aside.put(home.data, [home.state, *logs])
        logger.warning(
            "%s was empty, and nothing is published; it is kept in %s, and a new one is created", home.state, kept
        )
    else:
        raise StoreDamaged(
            f"{damage}, and there is no {home.published.name} to rebuild it from: restore one of them from a backup, "
            f"or move {home.state.name} away and run `mirror sync`, which pulls what the server has",
            damage.reason,
        ) from damage


def new_copy(state: Path) -> Path:
    """A name for an unfinished copy that becomes the state; the next start deletes one that a killed process left."""
    return state.with_name(f".{state.name}.taken-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def delete_leftovers(home: Home) -> None:
    """Delete unfinished copies that a killed process left."""
    for leftover in home.data.glob(f".{home.state.name}.taken-*"):
        leftover.unlink(missing_ok=True)


def _shorten_log(home: Home, logs: list[Path], damage: StoreDamaged) -> None:
    """Cut off the log at the damage, or delete it if the place of the damage is unknown."""
    log = log_file(home.state)
    kept = aside.put(home.data, logs, keep=True)
    position = re.search(r"entry at byte position (\d+)", damage.reason)
    if position and logs == [log] and 0 < int(position[1]) < log.stat().st_size:
        os.truncate(log, int(position[1]))
    else:
        for path in logs:
            path.unlink()
    logger.warning(
        "%s is damaged (%s): the last commits may be missing and are pulled again; the log is kept in %s",
        log,
        damage.reason,
        kept,
    )


def _restore_published(home: Home, why: str) -> None:
    state, published = home.state, home.published
    copy = new_copy(state)
    logs = log_files(state)
    try:
        try:
            files.copy(published, copy)
            integrity.check(copy)
            _add_log(copy, published, log_file(state))
        except StoreDamaged as error:
            raise StoreDamaged(
                f"{why}, and {published} cannot replace it, since it is damaged, too ({error.reason}): restore one of "
                "them from a backup, or move both away and run `mirror sync`, which pulls what the server has",
                error.reason,
            ) from error
        except StoreError as error:
            raise StoreError(f"{why}, and {str(error).replace(str(copy), str(published))}") from error
        damaged = [path for path in (state, *logs) if path.exists()]
        kept = f"; what was there is kept in {aside.put(home.data, damaged)}" if damaged else ""
        _put_in_place(copy, state)
        files.sync_folder(state.parent)
    finally:
        copy.unlink(missing_ok=True)
        log_file(copy).unlink(missing_ok=True)
    at = datetime.fromtimestamp(published.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    logger.warning("%s: rebuilt from %s of %s; later changes are pulled again%s", why, published.name, at, kept)


def _put_in_place(copy: Path, state: Path) -> None:
    """Give the copy the name of the state, unless another process was faster, which has that file open then."""
    try:
        os.link(copy, state)
    except FileExistsError:
        return
    except OSError:
        # Some file systems have no hard links.
        if not state.exists():
            copy.rename(state)


def _add_log(copy: Path, published: Path, log: Path) -> None:
    """Apply the log of the lost state to the copy if it belongs to it; otherwise leave the copy unchanged."""
    if not log.exists() or not _identified(copy):
        return
    try:
        files.copy(log, log_file(copy))
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH {literal(copy)} AS taken").fetchall()
        integrity.check(copy)
    except (duckdb.Error, StoreDamaged) as error:
        logger.debug("%s does not continue %s: %s", log, published, error)
        copy.unlink()
        log_file(copy).unlink(missing_ok=True)
        files.copy(published, copy)


def _identified(path: Path) -> bool:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH {literal(path)} AS taken (READ_ONLY)").fetchall()
        noted = connection.execute("SELECT value FROM taken.store.meta WHERE key = 'storage_version'").fetchall()
    version = re.match(r"v(\d+)\.(\d+)", noted[0][0]) if noted else None
    return version is not None and (int(version[1]), int(version[2])) >= _IDENTIFIED
