"""A state file that is damaged or missing is made anew from the published file, which is a copy of it.

What was committed after the copy is pulled again: the cursors in it are those of its own time. Nothing is deleted; what
is damaged is put aside.
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from contextlib import suppress
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
"""From this format on DuckDB knows which checkpoint of which file a log belongs to, and refuses others."""


def fetch_missing(home: Home) -> None:
    """Take the published file as the state where that is missing; nothing where there is neither.

    Raises StoreError when the published file cannot be taken.
    """
    if home.state.exists():
        return
    if home.published.exists():
        _take_published(home, f"{home.state} is missing")
    elif logs := log_files(home.state):
        kept = aside.put(home, logs)
        logger.warning("%s is missing, and its log alone is of no use; it is kept in %s", home.state, kept)


def recover(home: Home, damage: StoreDamaged) -> None:
    """Bring the files of the home to where the state can be opened. Nobody may hold the state.

    Raises StoreDamaged when neither the state nor the published file can be read.
    """
    logs = log_files(home.state)
    if logs and any(words in damage.reason for words in _LOG_AT_FAULT):
        _shorten_log(home, logs, damage)
    elif home.published.exists():
        _take_published(home, str(damage))
    elif home.state.exists() and not home.state.stat().st_size:
        kept = aside.put(home, [home.state, *logs])
        logger.warning(
            "%s was empty, and nothing is published; it is kept in %s, and a new one is made", home.state, kept
        )
    else:
        raise StoreDamaged(
            f"{damage}, and there is no {home.published.name} to go on from: restore one of them from a backup, or "
            f"move {home.state.name} away and run `mirror sync`, which pulls what the server has",
            damage.reason,
        ) from damage


def delete_leftovers(home: Home) -> None:
    """Delete what a killed process left of a recovery."""
    for leftover in home.data.glob(f".{home.state.name}.taken-*"):
        leftover.unlink(missing_ok=True)


def _shorten_log(home: Home, logs: list[Path], damage: StoreDamaged) -> None:
    """Leave what stands in the log before the damage."""
    log = log_file(home.state)
    kept = aside.put(home, logs, keep=True)
    place = re.search(r"entry at byte position (\d+)", damage.reason)
    if place and logs == [log] and 0 < int(place[1]) < log.stat().st_size:
        os.truncate(log, int(place[1]))
    else:
        for path in logs:
            path.unlink()
    logger.warning(
        "%s is damaged (%s): what was committed last may be missing and is pulled again; the log is kept in %s",
        log,
        damage.reason,
        kept,
    )


def _take_published(home: Home, why: str) -> None:
    state, published = home.state, home.published
    copy = state.with_name(f".{state.name}.taken-{os.getpid()}-{uuid.uuid4().hex[:8]}")
    logs = log_files(state)
    try:
        try:
            files.copy(published, copy)
            integrity.check(copy)
            _add_log(copy, published, log_file(state))
        except StoreDamaged as error:
            raise StoreDamaged(
                f"{why}, and {published} cannot stand in for it, being damaged, too ({error.reason}): restore one of "
                "them from a backup, or move both away and run `mirror sync`, which pulls what the server has",
                error.reason,
            ) from error
        except StoreError as error:
            raise StoreError(f"{why}, and {str(error).replace(str(copy), str(published))}") from error
        damaged = [path for path in (state, *logs) if path.exists()]
        kept = f"; what was there is kept in {aside.put(home, damaged)}" if damaged else ""
        # Another process may have come first; it holds the file then.
        with suppress(FileExistsError):
            os.link(copy, state)
        files.sync_folder(state.parent)
    finally:
        copy.unlink(missing_ok=True)
        log_file(copy).unlink(missing_ok=True)
    at = datetime.fromtimestamp(published.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    logger.warning("%s: going on from %s of %s; what came after it is pulled again%s", why, published.name, at, kept)


def _add_log(copy: Path, published: Path, log: Path) -> None:
    """Bring the copy up to the log of the lost state, if that goes on from it; else leave the copy as it is."""
    if not log.exists() or not _identified(copy):
        return
    try:
        files.copy(log, log_file(copy))
        with duckdb.connect() as connection:
            connection.execute(f"ATTACH {literal(copy)} AS taken").fetchall()
        integrity.check(copy)
    except (duckdb.Error, StoreDamaged) as error:
        logger.debug("%s does not go on from %s: %s", log, published, error)
        copy.unlink()
        log_file(copy).unlink(missing_ok=True)
        files.copy(published, copy)


def _identified(path: Path) -> bool:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH {literal(path)} AS taken (READ_ONLY)").fetchall()
        noted = connection.execute("SELECT value FROM taken.store.meta WHERE key = 'storage_version'").fetchall()
    version = re.match(r"v(\d+)\.(\d+)", noted[0][0]) if noted else None
    return version is not None and (int(version[1]), int(version[2])) >= _IDENTIFIED
