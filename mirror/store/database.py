"""The one connection to the state file: opening it, running SQL over it, and what its errors mean."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from mirror.errors import StoreBusy, StoreDamaged, StoreError
from mirror.store.names import identifier, literal
from mirror.store.records import ProjectKey

if TYPE_CHECKING:
    import pyarrow as pa

CATALOG = "state"
"""The name under which the state file is attached; views must not depend on it, since readers attach by other names."""

MEMORY_LIMIT = "300MB"
"""Bounds the writer: larger sorts and merges spill beside the state file."""

logger = logging.getLogger(__name__)

_SIGNS_OF_DAMAGE = (
    "Corrupt",
    "checksum",
    "Could not read enough bytes",
    "MetadataReader",
    "deserialize",
    "not a valid DuckDB database file",
    "replaying WAL",
    "This WAL was created",
)

Params = Sequence[Any] | Mapping[str, Any]


class Database:
    """A connection that holds one DuckDB file open for writing.

    Every statement is drained before the next one, since DuckDB 2.0 refuses a second while one has rows left.
    """

    def __init__(self, path: Path, storage_version: str) -> None:
        """Open the file, or make it in a format that DuckDB `storage_version` and newer can read.

        Raises StoreBusy when another process holds it, StoreError when it cannot be opened.
        """
        self.path = path
        # An existing file keeps its format; naming an older one would be refused.
        version = "" if path.exists() else f"(STORAGE_VERSION {literal(storage_version)})"
        self._connection = duckdb.connect(":memory:")
        self.rids: dict[ProjectKey, dict[str, int]] = {}
        self.app_urls: dict[ProjectKey, str] = {}
        try:
            # DuckDB draws a bar on stdout, which belongs to data, where it takes the process for an interactive one.
            # In a notebook without ipywidgets there is none, and the setting cannot be touched.
            if self.value("SELECT current_setting('enable_progress_bar')"):
                self.run("SET enable_progress_bar = false")
            self.run(f"SET memory_limit = {literal(MEMORY_LIMIT)}")
            self.run(f"SET temp_directory = {literal(spill_folder(path))}")
            self.run(f"ATTACH {literal(path)} AS {CATALOG} {version}")
            self.run(f"USE {CATALOG}")
            path.chmod(0o600)
        except (duckdb.Error, OSError) as error:
            self._connection.close()
            raise opening_error(path, error) from error

    def run(self, sql: str, params: Params = ()) -> list[Any]:
        """All rows of a statement, or of the last one of several."""
        return self._connection.execute(sql, params or None).fetchall()

    def value(self, sql: str, params: Params = ()) -> Any:
        """The one value of a statement that has one."""
        return self.run(sql, params)[0][0]

    def arrow(self, sql: str, params: Params = ()) -> pa.Table:
        """All rows of a query, as columns."""
        table: pa.Table = self._connection.sql(sql, params=params or None).to_arrow_table()
        return table

    @contextmanager
    def table(self, name: str, rows: pa.Table) -> Iterator[None]:
        """Let statements read the Arrow table as `name`. After an error the rollback takes the name away."""
        self._connection.register(name, rows)
        yield
        self._connection.unregister(name)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside as one, or, after an error, nothing of it."""
        self.run("BEGIN TRANSACTION")
        try:
            yield
            self.run("COMMIT")
            self._keep_private()
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        self.rids.clear()
        self.app_urls.clear()
        try:
            self.run("ROLLBACK")
        except duckdb.Error:
            # A failed COMMIT has rolled back already, and a database that was given up takes no statement.
            logger.debug("nothing to roll back in %s", self.path)

    def _keep_private(self) -> None:
        """DuckDB makes a new log after each checkpoint, readable for whomever the umask allows."""
        with suppress(FileNotFoundError):
            log_file(self.path).chmod(0o600)

    def scan(self) -> None:
        """Read every value of every table. Raises duckdb.Error where one cannot be read."""
        scan(self._connection, CATALOG)

    def is_cut(self, descriptor: int) -> bool:
        """Whether the file, open as `descriptor`, is shorter than what DuckDB counts in it."""
        size = "SELECT block_size * total_blocks FROM pragma_database_size() WHERE database_name = ?"
        return os.fstat(descriptor).st_size < int(self.value(size, [CATALOG]))

    def checkpoint(self) -> None:
        """Write everything that is committed into the file itself."""
        self.run(f"CHECKPOINT {CATALOG}")

    def close(self) -> None:
        """Let go of the file; what is committed is in it."""
        self._connection.close()


def scan(connection: duckdb.DuckDBPyConnection, catalog: str) -> None:
    """Read every value of every table, so that DuckDB holds each block against its checksum.

    Takes 0.3 s for 100,000 runs. Raises duckdb.Error where one cannot be read.
    """
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? AND NOT internal", [catalog]
    ).fetchall()
    for names in tables:
        table = ".".join(identifier(name) for name in (catalog, *names))
        connection.execute(f"SELECT bit_xor(hash(COLUMNS(*))) FROM {table}").fetchall()


def spill_folder(path: Path) -> Path:
    """Where DuckDB puts what does not fit into memory while it works on this file."""
    return path.with_name(f".{path.name}.spill")


def log_file(path: Path) -> Path:
    """Where DuckDB keeps what was committed since the last checkpoint of this file."""
    return path.with_name(f"{path.name}.wal")


def log_files(path: Path) -> list[Path]:
    """All logs of this file: while DuckDB checkpoints there may be more than one."""
    return sorted(path.parent.glob(f"{escape(path.name)}*.wal*"))


def reason(error: BaseException) -> str:
    """What went wrong, in one line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].strip()


def opening_error(path: Path, error: BaseException) -> StoreError:
    """What it means that the state file cannot be opened, and what to do about it."""
    text = str(error)
    if "Could not set lock" in text or "Conflicting lock" in text:
        holder = re.search(r"PID (\d+)", text)
        who = f"process {holder[1]}" if holder else "another process"
        return StoreBusy(f"{path} is held by {who}; stop it, or let the daemon do the work")
    if "Unique file handle conflict" in text:
        return StoreBusy(f"{path} is held by this process already; close it first")
    if "database file with version number" in text:
        return StoreError(f"{path} was written by a newer DuckDB; update wandb-mirror ({reason(error)})")
    if isinstance(error, PermissionError) or "Permission denied" in text:
        return StoreError(f"{path} cannot be opened: permission denied; check who owns it")
    if disk_full(error):
        return StoreError(f"no space left on the disk of {path}; free some and try again")
    if is_damage(error):
        return _damaged(path, error)
    return StoreError(f"{path} cannot be opened ({reason(error)}); nothing was changed")


def is_damage(error: BaseException) -> bool:
    """Whether the error says that a file is not what DuckDB wrote; no lock, full disk or missing right does."""
    broken = isinstance(error, duckdb.InternalException | duckdb.SerializationException)
    return broken or any(words in str(error) for words in _SIGNS_OF_DAMAGE)


def working_error(path: Path, error: BaseException) -> StoreError:
    """What it means that a statement over the open state file failed. Nothing of its transaction was kept."""
    if disk_full(error):
        return StoreError(f"no space left on the disk of {path}; what was committed is safe, free some and try again")
    if is_damage(error):
        # The file itself was read through by now: it is a segment.
        return StoreError(f"what {path} lists is damaged ({reason(error)}); run `mirror verify --repair`")
    return StoreError(f"{path} could not be written ({reason(error)}); what was committed is safe")


def _damaged(path: Path, error: BaseException) -> StoreDamaged:
    return StoreDamaged(f"{path} is damaged ({reason(error)})", reason(error))


def gives_up(error: BaseException) -> bool:
    """Whether DuckDB takes no more statements over this file until it is opened again."""
    fatal = isinstance(error, duckdb.FatalException | duckdb.InternalException)
    return fatal or "invalidated" in str(error) or disk_full(error)


def disk_full(error: BaseException) -> bool:
    """Whether the error says that a file could not grow."""
    import errno

    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return any(words in str(error) for words in ("No space left", "Disk quota exceeded", "File too large"))
