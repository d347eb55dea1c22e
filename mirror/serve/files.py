"""The file lists of runs in W&B's form, and the content of `wandb-metadata.json`, the one file that is mirrored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from mirror.protocol import METADATA
from mirror.serve import runs
from mirror.serve.context import Context, path_of
from mirror.serve.documents import Field, NotServed, ServerKnowsBetter
from mirror.serve.pages import connection, cursor, start_of
from mirror.snapshot import files
from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

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
    """Return `files`. Names that the mirror lacks may be new, so the server is asked for them."""
    names = [name for name in arguments.get("names") or () if name is not None]
    start = start_of(arguments)
    first = arguments.get("first")
    most = min(runs.MOST_RUNS if first is None else max(first, 0), runs.MOST_RUNS)
    if _listed(run, context) is not None:
        asked = files.Asked(names, arguments.get("pattern"))
        found, more = files.page(context.connection, run["rid"], asked, most, start)
        if names and not context.without_server and files.missing(context.connection, run["rid"], names):
            if context.touched(path_of(run)) is not None:
                # An upload may finish after the list was pulled again.
                context.refresh_files(path_of(run))
            raise ServerKnowsBetter(f"{', '.join(names)[:100]} of {'/'.join(path_of(run))} is not mirrored")
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
        raise NotServed("files are uploaded to the server")
    return file["url"]


def metadata(connection: DuckDBPyConnection, entity: str, project: str, run_id: str) -> bytes | None:
    """Return the content of a run's wandb-metadata.json; None if it is not mirrored."""
    text = files.metadata_of(connection, Project(entity, project), run_id)
    return text.encode() if text else None


def _listed(run: Source, context: Context) -> int | None:
    """Return the number of listed files; None if no list was pulled. Raises ServerKnowsBetter if it is outdated."""
    listed_at, number = files.listed(context.connection, run["rid"])
    touched = context.touched(path_of(run))
    if touched is not None and not context.without_server and (listed_at is None or listed_at < touched):
        raise ServerKnowsBetter(f"files of {'/'.join(path_of(run))} were changed since they were listed")
    return None if listed_at is None else number


def _metadata_node(connection: DuckDBPyConnection, rid: int) -> dict[str, Any] | None:
    text = files.metadata_node(connection, rid)
    return orjson.loads(text) if text else None


def _not_mirrored(run: Source) -> NotServed:
    return NotServed(f"the files of {'/'.join(path_of(run))} are not mirrored (sync.files)")
