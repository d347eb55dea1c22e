"""The one connection to the state file: opens it, runs SQL, and translates errors."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from msgspec import Struct, field

from mirror.errors import StoreBusy, StoreDamaged, StoreError, names_segment, unreadable_segment
from mirror.store.names import identifier, literal
from mirror.store.records import ProjectKey

if TYPE_CHECKING:
    import pyarrow as pa

CATALOG = "state"
"""The name under which the state file is attached. Views must not use it, because readers use other names."""

MEMORY_LIMIT = "300MB"
"""Memory limit of the writer. Larger sorts and merges spill to a folder next to the state file."""

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


class Cached(Struct):
    """What was read from the file and is changed through this connection only; a rollback drops it.

    `rids` of runs and `numbers` of projects hold some of those that are mirrored, `app_urls` the W&B app of which the
    URLs of a project are, `meta` all of `store.meta`, and `run_columns` the description of `main.runs`.
    """

    rids: dict[ProjectKey, dict[str, int]] = field(default_factory=dict)
    numbers: dict[ProjectKey, int] = field(default_factory=dict)
    app_urls: dict[ProjectKey, str] = field(default_factory=dict)
    meta: dict[str, str] | None = None
    run_columns: list[Any] | None = None


class Database:
    """A connection that has one DuckDB file open for writing.

    All rows of a statement are fetched before the next one, since DuckDB 2.0 refuses a statement while another has
    rows left.
    """

    def __init__(self, path: Path, storage_version: str) -> None:
        """Open the file, or create it in a format that DuckDB `storage_version` and newer can read.

        Raises StoreBusy if another process has it open, StoreError if it cannot be opened.
        """
        self.path = path
        # An existing file keeps its format; naming an older one would be refused.
        version = "" if path.exists() else f"(STORAGE_VERSION {literal(storage_version)})"
        self.cached = Cached()
        self._connection = duckdb.connect(
            ":memory:", config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(spill_folder(path))}
        )
        try:
            # In a process that DuckDB considers interactive it draws a progress bar on stdout, which is for data.
            # In a notebook without ipywidgets there is no bar, and setting the option fails.
            if self.value("SELECT current_setting('enable_progress_bar')"):
                self.run("SET enable_progress_bar = false")
            self.run(f"ATTACH {literal(path)} AS {CATALOG} {version}")
            self.run(f"USE {CATALOG}")
            path.chmod(0o600)
        except (duckdb.Error, OSError) as error:
            self._connection.close()
            raise opening_error(path, error) from error

    def run(self, sql: str, params: Params = ()) -> list[Any]:
        """Run one or several statements; return all rows of the last one."""
        return self._connection.execute(sql, params or None).fetchall()

    def value(self, sql: str, params: Params = ()) -> Any:
        """Run a statement that returns one value."""
        return self.run(sql, params)[0][0]

    def arrow(self, sql: str, params: Params = ()) -> pa.Table:
        """All rows of a query as an Arrow table."""
        table: pa.Table = self._connection.sql(sql, params=params or None).to_arrow_table()
        return table

    @contextmanager
    def table(self, name: str, rows: pa.Table) -> Iterator[None]:
        """Let statements in the block read an Arrow table as `name`. After an error the rollback removes the name."""
        self._connection.register(name, rows)
        yield
        self._connection.unregister(name)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the statements inside the block together; roll all of them back after an error."""
        self.run("BEGIN TRANSACTION")
        try:
            yield
            self.run("COMMIT")
            self._keep_private()
        except BaseException:
            self._roll_back()
            raise

    @contextmanager
    def on_one_thread(self) -> Iterator[None]:
        """Run the block's statements on this thread alone, since DuckDB wakes another for each, also for a small one.

        That is a third of the time of a small statement. To end the other threads and start them again takes 1 ms.
        """
        # A connection of its own, since one whose transaction failed takes no statement.
        settings = self._connection.cursor()
        [(threads,)] = settings.execute("SELECT current_setting('threads')").fetchall()
        settings.execute("SET threads = 1").fetchall()
        try:
            yield
        finally:
            # After a fatal error DuckDB takes none at all, and is opened again.
            with suppress(duckdb.Error):
                settings.execute(f"SET threads = {threads}").fetchall()
                settings.close()

    def _roll_back(self) -> None:
        self.cached = Cached()
        try:
            self.run("ROLLBACK")
        except duckdb.Error:
            # A failed COMMIT has already rolled back, and after a fatal error DuckDB accepts no statement.
            logger.debug("nothing to roll back in %s", self.path)

    def _keep_private(self) -> None:
        """Restrict the log to its owner: DuckDB creates a new one with umask permissions after each checkpoint."""
        with suppress(FileNotFoundError):
            log_file(self.path).chmod(0o600)

    def scan(self, catalog: str = CATALOG) -> None:
        """Read every value of every table of the state file, or of another attached one. Raises duckdb.Error."""
        scan(self._connection, catalog)

    @contextmanager
    def attached(self, path: Path) -> Iterator[str]:
        """Have another DuckDB file open for reading inside the block, as the catalog that is returned."""
        self.run(f"ATTACH {literal(path)} AS attached (READ_ONLY)")
        try:
            yield "attached"
        finally:
            self.run("DETACH attached")

    def is_cut(self, descriptor: int) -> bool:
        """Return True if the file, open as `descriptor`, is shorter than DuckDB expects, so its end was cut off."""
        size = "SELECT block_size * total_blocks FROM pragma_database_size() WHERE database_name = ?"
        return os.fstat(descriptor).st_size < int(self.value(size, [CATALOG]))

    def checkpoint(self) -> None:
        """Write everything that is committed from the log to the file itself."""
        self.run(f"CHECKPOINT {CATALOG}")

    def close(self) -> None:
        """Close the file. Everything committed is in it."""
        self._connection.close()


def has(run: Callable[[str], list[Any]], table: str, column: str | None = None) -> bool:
    """Return True if the database has this table of the schema `store`, and this column of it.

    `run` runs one statement. Where the table may be missing, call it outside of transactions: DuckDB aborts one when a
    query fails. DuckDB's own lists of tables and columns would take 8 ms in a new instance, and a plain
    query of a missing table looks for a Python variable of that name.
    """
    try:
        found = run(f"SELECT name FROM pragma_table_info('store.{table}')")
    except duckdb.CatalogException:
        return False
    return column is None or (column,) in found


def scan(connection: duckdb.DuckDBPyConnection, catalog: str) -> None:
    """Read every value of every table, so that DuckDB compares each block with its checksum.

    Takes 0.3 s for 100,000 runs. Raises duckdb.Error if a value cannot be read.
    """
    tables = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? AND NOT internal "
        "AND estimated_size > 0",
        [catalog],
    ).fetchall()
    named = (".".join(identifier(name) for name in (catalog, *names)) for names in tables)
    if query := " UNION ALL ".join(f"SELECT bit_xor(hash(t)) FROM {table} AS t" for table in named):
        connection.execute(query).fetchall()


def spill_folder(path: Path) -> Path:
    """Where DuckDB stores what exceeds its memory while it works on this file."""
    return path.with_name(f".{path.name}.spill")


def log_file(path: Path) -> Path:
    """DuckDB's log for this file: what was committed since the last checkpoint."""
    return path.with_name(f"{path.name}.wal")


def log_files(path: Path) -> list[Path]:
    """All logs of this file; during a checkpoint there may be more than one."""
    return sorted(path.parent.glob(f"{escape(path.name)}*.wal*"))


def reason(error: BaseException) -> str:
    """The message of an error, in one line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].strip()


def opening_error(path: Path, error: BaseException) -> StoreError:
    """Translate an error from opening the state file into one that says what it means and what to do."""
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
    """Return True if the error means that a file is damaged, and not locked, forbidden or on a full disk."""
    broken = isinstance(error, duckdb.InternalException | duckdb.SerializationException)
    return broken or any(words in str(error) for words in _SIGNS_OF_DAMAGE)


def working_error(path: Path, error: BaseException) -> StoreError:
    """Translate an error from a statement over the open state file, whose transaction was rolled back."""
    if disk_full(error):
        return StoreError(f"no space left on the disk of {path}; what was committed is safe, free some and try again")
    if isinstance(error, OSError) and error.filename:
        path = Path(os.fsdecode(error.filename))
        if isinstance(error, FileNotFoundError) and names_segment(str(path)):
            return unreadable_segment(f"{path}: {reason(error)}")
    elif names_segment(reason(error)):
        return unreadable_segment(reason(error))
    if is_damage(error):
        # The state file itself has been read completely by now, so the damage is in a segment.
        return StoreError(f"a segment that {path} lists is damaged ({reason(error)}); run `mirror verify --repair`")
    return StoreError(f"{path} could not be written ({reason(error)}); what was committed is safe")


def _damaged(path: Path, error: BaseException) -> StoreDamaged:
    return StoreDamaged(f"{path} is damaged ({reason(error)})", reason(error))


def must_reopen(error: BaseException) -> bool:
    """Return True if DuckDB accepts no more statements on this file until it is reopened."""
    fatal = isinstance(error, duckdb.FatalException | duckdb.InternalException)
    return fatal or "invalidated" in str(error) or disk_full(error)


def disk_full(error: BaseException) -> bool:
    """Return True if the error means that a file could not grow."""
    import errno

    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return any(words in str(error) for words in ("No space left", "Disk quota exceeded", "File too large"))
