"""Keys that none of the chosen runs has, with the nearest one that they have. For charts of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mirror.errors import QueryError
from mirror.filters import missing
from mirror.snapshot.downsample import STEP, Run, logged_keys
from mirror.snapshot.paths import nearest_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_DOCUMENTS = {"config": "config", "summary": "summary", "summary_metrics": "summary"}


def drawable(
    connection: DuckDBPyConnection, runs: Sequence[Run], keys: Sequence[str], x: str | None
) -> tuple[list[str], list[str]]:
    """Those of these history keys under which any run logged numbers, and a sentence for each of the others.

    All keys are returned if there is none among them, so that the error is that of the chart. Raises QueryError for an
    axis `x` without numbers.
    """
    logged = [name for name, _ in logged_keys(connection, runs)]
    if x not in (None, STEP, *logged):
        raise QueryError(f"none of the runs logged numbers under {x}, the x axis; {nearest_of(str(x), logged)}")
    known = [key for key in keys if key in logged or key == STEP]
    unknown = [
        f"none of the runs logged numbers under {key}; {nearest_of(key, logged)}" for key in keys if key not in known
    ]
    return (known, unknown) if known else (list(keys), [])


def grouping(connection: DuckDBPyConnection, rids: Sequence[int], field: str | None) -> list[str]:
    """A sentence if the field is a config or summary key that none of these runs has."""
    doc, _, key = (field or "").partition(".")
    if doc not in _DOCUMENTS or not key:
        return []
    here = "r.rid IN (SELECT unnest(?::BIGINT[]))"
    return list(missing(connection, [(_DOCUMENTS[doc], key)], here, [list(rids)]).values())
