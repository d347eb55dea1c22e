"""Files of runs as W&B lists them, and the content of the one that the mirror holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from mirror.serve import runs
from mirror.serve.context import Context, RunPath, path_of
from mirror.serve.documents import Better, Elsewhere, Field
from mirror.serve.pages import connection, cursor, start_of
from mirror.snapshot import files

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

METADATA = "wandb-metadata.json"

Arguments = Mapping[str, Any]
Source = Mapping[str, Any]


def count(run: Source, context: Context, _field: Field, _arguments: Arguments) -> int:
    """`fileCount`"""  # noqa: D400, D415
    listed = _listed(run, context)
    if listed is not None:
        return listed
    node = _metadata_node(context.connection, run["rid"])
    if node is None:
        raise _not_mirrored(run)
    number: int = node["fileCount"]
    return number


def page(run: Source, context: Context, _field: Field, arguments: Arguments) -> dict[str, Any]:
    """`files`: names that the mirror lacks may have come since, and are asked of the server."""
    names = [name for name in arguments.get("names") or () if name is not None]
    start = start_of(arguments)
    first = arguments.get("first")
    most = min(runs.MOST_RUNS if first is None else max(first, 0), runs.MOST_RUNS)
    if _listed(run, context) is not None:
        asked = files.Asked(names, arguments.get("pattern"))
        found, more = files.page(context.connection, run["rid"], asked, most, start)
        if names and not context.alone and files.missing(context.connection, run["rid"], names):
            if context.touched(path_of(run)) is not None:
                # An upload may end after the list was pulled again.
                context.look_again(path_of(run))
            raise Better(f"{', '.join(names)[:100]} of {'/'.join(path_of(run))} is not mirrored")
    else:
        node = _metadata_node(context.connection, run["rid"])
        if node is None or set(names) != {METADATA}:
            raise _not_mirrored(run)
        found, more = [node][start : start + most], False
    folder = f"/files/{quote('/'.join(path_of(run)))}"
    for node in found:
        path = f"{folder}/{quote(node['name'])}"
        node["url"], node["directUrl"] = f"{context.base_url}{path}", f"{context.base_url}{context.sign(path)}"
    edges = [{"node": node, "cursor": cursor("files", place)} for place, node in enumerate(found, start=start + 1)]
    return connection(edges, start, more=more)


def url(file: Source, _context: Context, _field: Field, arguments: Arguments) -> Any:
    """`url`"""  # noqa: D400, D415
    if arguments.get("upload"):
        raise Elsewhere("files are uploaded to the server")
    return file["url"]


def metadata(connection: DuckDBPyConnection, entity: str, project: str, run_id: str) -> bytes | None:
    """The content of a run's wandb-metadata.json, where that is mirrored."""
    found = connection.execute(
        "SELECT m.file FROM store.run_metadata AS m JOIN store.runs AS r ON r.rid = m.rid "
        "WHERE r.entity = ? AND r.project = ? AND r.run_id = ? AND r.deleted_at IS NULL",
        [entity, project, run_id],
    ).fetchall()
    return found[0][0].encode() if found and found[0][0] else None


def runs_of(connection: DuckDBPyConnection, file_ids: Sequence[str]) -> list[RunPath]:
    """The runs that these files are of, as far as they are listed."""
    found = connection.execute(
        "SELECT DISTINCT r.entity, r.project, r.run_id FROM store.run_files AS f JOIN store.runs AS r ON r.rid = f.rid "
        "WHERE f.file_id IN (SELECT unnest(?::VARCHAR[]))",
        [list(file_ids)],
    ).fetchall()
    return [(entity, project, run_id) for entity, project, run_id in found]


def _listed(run: Source, context: Context) -> int | None:
    """How many files are listed; None where the list was never taken. Raises Better where it is known to be old."""
    listed_at, number = files.listed(context.connection, run["rid"])
    touched = context.touched(path_of(run))
    if touched is not None and not context.alone and (listed_at is None or listed_at < touched):
        raise Better(f"files of {'/'.join(path_of(run))} were changed since they were listed")
    return None if listed_at is None else number


def _metadata_node(connection: DuckDBPyConnection, rid: int) -> dict[str, Any] | None:
    import duckdb

    try:
        found = connection.execute("SELECT node FROM store.run_metadata WHERE rid = ?", [rid]).fetchall()
    except duckdb.BinderException:
        # The file was published by an older program.
        return None
    return orjson.loads(found[0][0]) if found and found[0][0] else None


def _not_mirrored(run: Source) -> Elsewhere:
    return Elsewhere(f"the files of {'/'.join(path_of(run))} are not mirrored (sync.files)")
