"""Files of many runs at once: the list of each, and `wandb-metadata.json`, which describes how a run was started."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from mirror.errors import AuthError, CommError
from mirror.protocol import METADATA
from mirror.remote import queries
from mirror.remote.client import NotFound, Server
from mirror.remote.run_records import moment
from mirror.store.records import ProjectKey, RunFile
from mirror.wandb_json import UNREADABLE, loads

PAGE_FILES = 500
"""Files per run in one answer."""


Document = dict[str, Any] | CommError | None
"""A file's content, the error that prevented reading it, or None if there is no such file."""


async def lists(server: Server, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, list[RunFile]]:
    """Return the server's entry of every file of these runs. Runs that do not exist are left out."""
    found: dict[str, list[RunFile]] = {}
    after: dict[str, str | None] = dict.fromkeys(run_ids)
    while after:
        variables: dict[str, Any] = {"entity": project.entity, "project": project.project, "first": PAGE_FILES}
        for index, (run_id, cursor) in enumerate(after.items()):
            variables |= {f"run{index}": run_id, f"after{index}": cursor}
        data = await server.graphql(
            "MirrorFileLists", queries.file_lists(len(after)), variables, bulk=True, divisible=len(after) > 1
        )
        answers = data.get("project") or {}
        following: dict[str, str | None] = {}
        for index, (run_id, cursor) in enumerate(after.items()):
            connection = (answers.get(f"r{index}") or {}).get("files")
            if connection is None:
                continue
            found.setdefault(run_id, []).extend(_file(edge["node"]) for edge in connection["edges"])
            info = connection["pageInfo"]
            if info["hasNextPage"] and connection["edges"] and info["endCursor"] != cursor:
                following[run_id] = info["endCursor"]
        after = following
    # A list that changes while it is paged may contain a file twice.
    return {run_id: list({file.name: file for file in files}.values()) for run_id, files in found.items()}


def _file(node: dict[str, Any]) -> RunFile:
    return RunFile(
        str(node["id"]),
        node["name"],
        int(node["sizeBytes"] or 0),
        node["mimetype"],
        moment(node["updatedAt"]),
        node["md5"],
    )


async def metadata(
    server: Server, project: ProjectKey, run_ids: Sequence[str]
) -> tuple[dict[str, Document], dict[str, dict[str, Any]]]:
    """Return the metadata file of each run: the addresses in one request, then the files.

    Runs that do not exist are left out; a file that cannot be downloaded or read does not affect the others. The second
    dictionary has the entry of each file in its run's file list, with `fileCount`.
    """
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project, "names": [METADATA]}
    variables |= {f"run{index}": run_id for index, run_id in enumerate(run_ids)}
    data = await server.graphql(
        "MirrorFiles", queries.file_addresses(len(run_ids)), variables, divisible=len(run_ids) > 1
    )
    found = data.get("project") or {}
    answers = {run_id: found.get(f"r{index}") for index, run_id in enumerate(run_ids)}
    present = {run_id: answer for run_id, answer in answers.items() if answer}
    documents = await asyncio.gather(*(_document(server, answer) for answer in present.values()))
    nodes = {run_id: _entry(answer) for run_id, answer in present.items() if _nodes(answer)}
    return dict(zip(present, documents, strict=True)), nodes


def _nodes(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [edge.get("node") or {} for edge in (answer.get("files") or {}).get("edges") or []]


def _entry(answer: dict[str, Any]) -> dict[str, Any]:
    node = {name: value for name, value in _nodes(answer)[0].items() if name != "directUrl"}
    return {**node, "fileCount": answer.get("fileCount")}


async def _document(server: Server, answer: dict[str, Any]) -> Document:
    addresses = [node.get("directUrl") for node in _nodes(answer)]
    if not addresses or not addresses[0]:
        return None
    try:
        value = loads(await server.download(addresses[0]))
    except NotFound:
        return None
    except AuthError:
        raise
    except CommError as error:
        return error
    except UNREADABLE as error:
        return CommError(f"the file is not JSON ({error})", error)
    return value if isinstance(value, dict) else CommError("the file is not a JSON object")
