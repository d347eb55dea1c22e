"""The file `wandb-metadata.json` of runs: how each was started."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from mirror.errors import AuthError, CommError
from mirror.remote import queries
from mirror.remote.client import NotFound, Server
from mirror.remote.lenient import loads
from mirror.store.records import ProjectKey

METADATA = "wandb-metadata.json"

Document = dict[str, Any] | CommError | None
"""What a file holds, why it could not be had, or None where there is no file."""


async def metadata(server: Server, project: ProjectKey, run_ids: Sequence[str]) -> dict[str, Document]:
    """The metadata file of each run: their addresses in one request, then the files. A run that is gone is left out.

    One file that cannot be had or read does not keep the others away.
    """
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project, "names": [METADATA]}
    variables |= {f"run{index}": run_id for index, run_id in enumerate(run_ids)}
    data = await server.graphql("MirrorFiles", queries.file_addresses(len(run_ids)), variables)
    found = data.get("project") or {}
    answers = {run_id: found.get(f"r{index}") for index, run_id in enumerate(run_ids)}
    present = {run_id: answer for run_id, answer in answers.items() if answer}
    documents = await asyncio.gather(*(_document(server, answer) for answer in present.values()))
    return dict(zip(present, documents, strict=True))


async def _document(server: Server, answer: dict[str, Any]) -> Document:
    edges = (answer.get("files") or {}).get("edges") or []
    addresses = [(edge.get("node") or {}).get("directUrl") for edge in edges]
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
    except ValueError as error:
        return CommError(f"the file is no JSON ({error})", error)
    return value if isinstance(value, dict) else CommError("the file holds no JSON object")
