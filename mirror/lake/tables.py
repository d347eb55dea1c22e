"""Delta tables of a lake: their files, and commits that replace some of them in one step."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from mirror.errors import MissingPackage, StoreError
from mirror.lake.snapshot_file import State, not_ours
from mirror.lake.target import LakeTarget, failing
from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from deltalake import DeltaTable, Schema

PARTITION = ("entity", "project")

_TYPES = {
    "VARCHAR": "string",
    "BIGINT": "long",
    "INTEGER": "integer",
    "DOUBLE": "double",
    "BOOLEAN": "boolean",
    "TIMESTAMP": "timestamp_ntz",
}

_OWNER = "wandb-mirror "
"""The start of a table's description, before the identity of the mirror that writes it."""

_MARK = re.compile(r"-[0-9a-f]{8}(?=\.parquet$)")

_TRIES = 10


class Superseded(Exception):
    """Another export has written a newer state to the table."""


class File(Struct, frozen=True):
    """A Parquet file of a table: its path within the table, its project, and its rows and bytes.

    `stats` are the least and the greatest values of some columns, so that readers can skip the file.
    """

    path: str
    project: Project
    rows: int
    bytes: int
    stats: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """What stands for its rows: the path without the mark of the export that wrote the file."""
        return _MARK.sub("", self.path)


class Commit(Struct, frozen=True):
    """The version of a table that holds the wanted files, and how many files it has more and less than before."""

    version: int
    added: int = 0
    removed: int = 0


def check_installed() -> None:
    """Raise MissingPackage if the package that writes Delta tables is not installed, and keep it from logging."""
    if find_spec("deltalake") is None:
        raise MissingPackage("a lake needs deltalake: `pip install 'wandb-mirror[lake]'`")
    # It would log to stderr, where errors are one line each.
    os.environ.setdefault("RUST_LOG", "off")


class Table:
    """One table of a lake, opened at its newest version, or created. Raises StoreError for a table of others."""

    def __init__(
        self, target: LakeTarget, relation: str, columns: Mapping[str, str], state: State, keep: timedelta
    ) -> None:
        """Open or create the table; `columns` are its names and types in DuckDB, `keep` how long old versions stay."""
        from deltalake import DeltaTable

        self._target = target
        self._relation = relation
        self._state = state
        self._uri, self._options = target.uri(relation), dict(target.options)
        self._schema = _schema(columns)
        properties = _properties(keep)
        with failing(target.name):
            if not DeltaTable.is_deltatable(self._uri, self._options):
                self._create(properties)
            self._table = self._open()
            metadata = self._table.metadata()
        if metadata.description != f"{_OWNER}{state.mirror}":
            raise not_ours(target.name, f"its table {relation} was written by another program or mirror")
        if metadata.configuration != properties:
            with failing(target.name):
                self._table.alter.set_table_properties(properties)
                self._table = self._open()

    def _open(self) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable(self._uri, storage_options=self._options)

    def _create(self, properties: Mapping[str, str]) -> None:
        from deltalake import DeltaTable
        from deltalake.exceptions import CommitFailedError, DeltaError

        try:
            DeltaTable.create(
                self._uri,
                self._schema,
                mode="ignore",
                partition_by=list(PARTITION),
                name=self._relation,
                description=f"{_OWNER}{self._state.mirror}",
                configuration=properties,
                storage_options=self._options,
            )
        except (CommitFailedError, DeltaError):
            # Another export may just have created it.
            if not DeltaTable.is_deltatable(self._uri, self._options):
                raise

    def files(self) -> dict[str, File]:
        """Return the files of the opened version, by what stands for their rows."""
        import pyarrow as pa

        with failing(self._target.name):
            listed = pa.table(self._table.get_add_actions(flatten=True)).to_pylist()
        files = (
            File(
                row["path"],
                Project(row["partition.entity"], row["partition.project"]),
                row["num_records"],
                row["size_bytes"],
            )
            for row in listed
        )
        return {file.content: file for file in files}

    def commit(self, wanted: Mapping[str, File], check: Callable[[File], None]) -> Commit:
        """Make the table hold exactly these files, in one commit; without one if it does already.

        `check` is called for each file to add, before the commit; it raises StoreError if there is no such file. Raises
        Superseded if the table has a newer state of this mirror, and StoreError if it cannot be written.
        """
        from deltalake.exceptions import CommitFailedError

        for _ in range(_TRIES):
            held, changed = self.files(), self._schema_changed()
            added = [file for content, file in wanted.items() if changed or content not in held]
            removed = [file for content, file in held.items() if content not in wanted]
            if not added and not removed:
                return Commit(self._table.version())
            with failing(self._target.name):
                newest = self._table.transaction_version(self._state.mirror)
            if newest is not None and newest > self._state.generation:
                raise Superseded
            for file in added:
                check(file)
            version = self._table.version() + 1
            try:
                with failing(self._target.name, CommitFailedError):
                    self._write(added, removed, overwrite=changed)
            except CommitFailedError:
                with failing(self._target.name):
                    self._table = self._open()
                continue
            return Commit(version, len(added), len(removed))
        raise StoreError(f"the lake {self._target.name} is being written by others all the time; try again later")

    def _write(self, added: list[File], removed: list[File], *, overwrite: bool) -> None:
        from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(
                path=file.path,
                size=file.bytes,
                partition_values=file.project._asdict(),
                modification_time=now,
                data_change=True,
                stats=json.dumps({"numRecords": file.rows, **file.stats}, ensure_ascii=False),
            )
            for file in added
        ]
        if not overwrite:
            actions += [RemoveAction(file.path, True, now, file.bytes, file.project._asdict()) for file in removed]
        metadata = {
            "mirror": self._state.mirror,
            "generation": self._state.generation,
            "snapshot_at": self._state.snapshot_at.isoformat(),
        }
        self._table.create_write_transaction(
            actions,
            "overwrite" if overwrite else "append",
            self._schema,
            list(PARTITION),
            commit_properties=CommitProperties(
                metadata,
                # A commit of others in between is looked at first: it may hold a newer state.
                max_commit_retries=0,
                app_transactions=[Transaction(self._state.mirror, self._state.generation)],
            ),
        )

    def _schema_changed(self) -> bool:
        return bool(self._table.schema() != self._schema)

    def outdated(self, keep: timedelta, grace: timedelta) -> list[str]:
        """Return the files that no version within `keep` has.

        A file that no version ever had may be of an export under way: it is returned when it is older than `grace`.
        """
        with failing(self._target.name):
            removed = self._vacuum(keep, full=False)
            return sorted({*removed, *self._vacuum(max(keep, grace), full=True)})

    def _vacuum(self, keep: timedelta, *, full: bool) -> list[str]:
        hours = -(-int(keep.total_seconds()) // 3600)
        return self._table.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=full)


def _schema(columns: Mapping[str, str]) -> Schema:
    from deltalake import Field, Schema
    from deltalake.schema import PrimitiveType

    types = dict.fromkeys(PARTITION, "VARCHAR") | {
        name: kind for name, kind in columns.items() if name not in PARTITION
    }
    return Schema([Field(name, PrimitiveType(_TYPES[kind])) for name, kind in types.items()])


def _properties(keep: timedelta) -> dict[str, str]:
    hours = f"interval {-(-int(keep.total_seconds()) // 3600)} hours"
    return {"delta.logRetentionDuration": hours, "delta.deletedFileRetentionDuration": hours}
