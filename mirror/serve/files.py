"""The file lists of runs in W&B's form, and the content of files that is mirrored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson
from starlette.responses import FileResponse, Response

from mirror.protocol import METADATA
from mirror.serve import runs
from mirror.serve.context import Context, path_of
from mirror.serve.documents import Field, NotServed, ServerKnowsBetter
from mirror.serve.pages import connection, cursor, start_of
from mirror.snapshot import files
from mirror.snapshot.paths import Project

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

HARMLESS = {
    # Files of runs may be pages with scripts, which must not act for the mirror's own page on this port.
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox",
    "X-Content-Type-Options": "nosniff",
}

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
        path = f"{folder}/{_quoted(node['name'])}"
        node["url"], node["directUrl"] = f"{context.base_url}{path}", f"{context.base_url}{context.sign(path)}"
    edges = [{"node": node, "cursor": cursor("files", place)} for place, node in enumerate(found, start=start + 1)]
    return connection(edges, start, more=more)


def url(file: Source, _context: Context, _field: Field, arguments: Arguments) -> Any:
    """`url`"""  # noqa: D400, D415
    if arguments.get("upload"):
        raise NotServed("files are uploaded to the server")
    return file["url"]


def content(connection: DuckDBPyConnection, run: tuple[str, str, str], name: str) -> Response | None:
    """Return the content of a file, or the part of it that a Range header asks for; None if it is not mirrored."""
    found = files.content(connection, run, name)
    if found is not None and found.path.exists():
        return FileResponse(found.path, headers=HARMLESS, media_type=found.mimetype or "application/octet-stream")
    if name == METADATA and (text := files.metadata_of(connection, Project(*run[:2]), run[2])):
        return Response(text.encode(), media_type="application/json")
    return None


def _quoted(name: str) -> str:
    """Return a name for an address. Clients resolve the parts `.` and `..` of a path unless they are encoded."""
    return "/".join(part.replace(".", "%2E") if part in (".", "..") else quote(part) for part in name.split("/"))


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
