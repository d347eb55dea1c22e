"""Keys that none of the chosen runs has, with the nearest one that they have. For charts of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from mirror.errors import QueryError, UsageError
from mirror.filters import missing, nearest
from mirror.metrics import STEP
from mirror.snapshot import document_keys
from mirror.snapshot.downsample import Run, logged_keys
from mirror.snapshot.paths import nearest_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FIELDS = {"group": "group_name", "state": "state", "job_type": "job_type", "sweep": "sweep", "user": "username"}
"""What runs are grouped by besides keys of config and summary, and the column of `runs` of each."""

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


def grouping(connection: DuckDBPyConnection, rids: Sequence[int], fields: Sequence[str]) -> list[str]:
    """A sentence for each field that is a config or summary key that none of these runs has.

    Raises UsageError for anything that is neither such a key nor one of FIELDS, naming the nearest.
    """
    keys = []
    for field in fields:
        doc, _, key = field.partition(".")
        if field in FIELDS:
            continue
        if doc not in _DOCUMENTS or not key:
            known = document_keys.of_runs(connection, rids)
            raise UsageError(f"--group-by {field}: runs have no such field; {nearest_field(field, known)}")
        keys.append((_DOCUMENTS[doc], key))
    here = "r.rid IN (SELECT unnest(?::BIGINT[]))"
    return list(missing(connection, keys, here, [list(rids)]).values()) if keys else []


def nearest_field(word: str, known: Sequence[tuple[str, str]]) -> str:
    """End of a sentence about an unknown field: names the field or key (document, key) that was probably meant."""
    keys = [f"{doc}.{key}" for doc, key in known]
    exact = [name for (_, key), name in zip(known, keys, strict=True) if key == word]
    if exact:
        return f"did you mean {' or '.join(exact)}?"
    # A key of the config comes before one of the summary, and both after the name of a field.
    near = get_close_matches(word, list(FIELDS), 1, 0.7)
    for wanted in ("config", "summary"):
        key = nearest(word, [key for doc, key in known if doc == wanted])
        near += [f"{wanted}.{key}"] if key is not None else []
    return f"did you mean {near[0]}?" if near else f"use config.KEY, summary.KEY, {', '.join(FIELDS)}"
