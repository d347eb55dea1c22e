"""`_snapshot.json` of a lake: the versions of its tables that belong together, and whose state they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict

from mirror.errors import StoreError
from mirror.lake.target import LakeTarget

NAME = "_snapshot.json"
FORMAT = 1


class State(Struct, frozen=True):
    """A state of a mirror: its identity, the count of its publications, and when it was published."""

    mirror: str
    generation: int
    snapshot_at: datetime


class TableState(Struct, frozen=True):
    """A version of a table, with its rows and files; `content` is a digest of their names and of the columns."""

    version: int
    rows: int
    files: int
    content: str


class Written(Struct, frozen=True):
    """What the file says: the count of publications of the mirror, its tables, and when old files were last deleted."""

    generation: int = 0
    keep: timedelta | None = None
    tidied: datetime | None = None
    tables: Mapping[str, TableState] = field(default_factory=dict)


def read(target: LakeTarget, state: State) -> Written:
    """Read the file; it is empty if there is none. Raises StoreError if the lake is not of this mirror."""
    text = target.read(NAME)
    if text is None:
        return Written()
    try:
        found: Any = json.loads(text)
        if found["format"] != FORMAT:
            raise not_ours(target.name, f"its {NAME} is of format {found['format']}, not {FORMAT}")
        mirror = found["mirror"]
        written = Written(
            int(found["generation"]),
            timedelta(seconds=found["keep_s"]),
            datetime.fromisoformat(found["tidied_at"]),
            {relation: TableState(**table) for relation, table in found["tables"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise not_ours(target.name, f"its {NAME} was not written by an export") from error
    if mirror != state.mirror:
        raise not_ours(target.name, f"it was written by the mirror {mirror}, and this one is {state.mirror}")
    return written


def write(
    target: LakeTarget,
    state: State,
    tables: Mapping[str, TableState],
    *,
    keep: timedelta,
    now: datetime,
    tidied: datetime,
) -> None:
    """Replace the file."""
    snapshot = {
        "format": FORMAT,
        "mirror": state.mirror,
        "generation": state.generation,
        "snapshot_at": state.snapshot_at.isoformat(),
        "written_at": now.isoformat(),
        "tidied_at": tidied.isoformat(),
        "keep_s": int(keep.total_seconds()),
        "tables": {relation: asdict(table) for relation, table in tables.items()},
    }
    target.write(NAME, json.dumps(snapshot, indent=1).encode())


def not_ours(name: str, reason: str) -> StoreError:
    """Return the error for a lake that this mirror must not write to."""
    return StoreError(f"{name} is not a lake of this mirror: {reason}; use another folder")
