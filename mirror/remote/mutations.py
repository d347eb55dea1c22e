"""Writes to runs: edits, deletion, and rows appended to a history."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from msgspec import Struct, field

from mirror.errors import CommError
from mirror.metrics import STEP
from mirror.protocol import ENDED_STATES
from mirror.remote.client import NotFound, Server
from mirror.remote.page_size import PageSize
from mirror.remote.runs import records
from mirror.store.records import ProjectKey, RunRecord
from mirror.wandb_json import dumps

UPSERT = """mutation UpsertBucket($id: String!, $displayName: String, $notes: String, $description: String,
    $tags: [String!], $groupName: String, $jobType: String, $config: JSONString, $summaryMetrics: JSONString) {
  upsertBucket(input: {id: $id, displayName: $displayName, notes: $notes, description: $description, tags: $tags,
      groupName: $groupName, jobType: $jobType, config: $config, summaryMetrics: $summaryMetrics}) {
    bucket { id }
  }
}"""

DELETE = """mutation DeleteRun($id: ID!, $deleteArtifacts: Boolean) {
  deleteRun(input: {id: $id, deleteArtifacts: $deleteArtifacts}) { clientMutationId }
}"""

STATE = """mutation UpsertBucket($id: String!, $state: String) {
  upsertBucket(input: {id: $id, state: $state}) { bucket { id } }
}"""


class Edit(Struct, frozen=True):
    """Changes to one run. None leaves a text as it is; "" clears it.

    The keys of `config` and `summary` are top-level. Those of `config_paths` and `summary_paths` may lead into existing
    objects, as in "optimizer.lr"; if there is no such object, the whole text is the key.
    """

    name: str | None = None
    notes: str | None = None
    description: str | None = None
    group: str | None = None
    job_type: str | None = None
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    drop_config: frozenset[str] = frozenset()
    summary: Mapping[str, Any] = field(default_factory=dict)
    drop_summary: frozenset[str] = frozenset()
    config_paths: Mapping[str, Any] = field(default_factory=dict)
    summary_paths: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """True if there is a change."""
        return self != Edit()


async def current(server: Server, project: ProjectKey, run_id: str) -> RunRecord:
    """Return the server's current record of a run. Raises NotFound, or CommError if part of it cannot be read."""
    filters = {"name": {"$in": [run_id]}}
    async with aclosing(records(server, project, scope={}, filters=filters, size=PageSize())) as pages:
        async for page in pages:
            for record in page.runs:
                # The edit is sent with the whole documents; it would delete what was not read.
                if record.flaw:
                    raise CommError(record.flaw)
                return record
    raise NotFound(f"{server.base_url} has no run {project}/{run_id}", LookupError(run_id))


async def edit_run(server: Server, record: RunRecord, edit: Edit) -> None:
    """Send the changes, applied to the server's current record, so that nobody else's edit is undone.

    The mutation's format is from `Run.update` of the official client, which sends config and summary as a whole.
    """
    variables: dict[str, Any] = {
        "id": record.storage_id,
        "displayName": edit.name,
        "notes": edit.notes,
        "description": edit.description,
        "groupName": edit.group,
        "jobType": edit.job_type,
    }
    if edit.add_tags or edit.remove_tags:
        variables["tags"] = tags_after(record.tags, edit)
    if edit.config or edit.drop_config or edit.config_paths:
        values = document_after(record.config, edit.config, edit.drop_config, edit.config_paths)
        own = {} if record.config_meta is None else {"_wandb": record.config_meta}
        variables["config"] = dumps({key: {"value": value, "desc": None} for key, value in {**own, **values}.items()})
    if edit.summary or edit.drop_summary or edit.summary_paths:
        values = document_after(record.summary, edit.summary, edit.drop_summary, edit.summary_paths)
        variables["summaryMetrics"] = dumps(values)
    data = await server.graphql("UpsertBucket", UPSERT, variables)
    if not ((data.get("upsertBucket") or {}).get("bucket") or {}).get("id"):
        raise CommError(f"{server.base_url} did not accept the changes of {record.run_id}", ValueError(repr(data)))


def tags_after(tags: Sequence[str], edit: Edit) -> list[str]:
    """Return the tags with the edit's additions appended and its removals removed."""
    return [tag for tag in dict.fromkeys([*tags, *edit.add_tags]) if tag not in edit.remove_tags]


def document_after(
    values: Mapping[str, Any],
    changed: Mapping[str, Any],
    dropped: frozenset[str] = frozenset(),
    paths: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a document with the edit's values set and its dropped keys removed."""
    after = {key: value for key, value in {**values, **changed}.items() if key not in dropped}
    for path, value in (paths or {}).items():
        after = _put(after, path, value)
    return after


def _put(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the object with a value at a path; nested objects are copied, so that the given ones do not change.

    A key that contains the dots itself takes precedence. Missing objects are created, since W&B reads a dot as nesting.
    """
    if path not in values:
        for cut in (index for index, char in enumerate(path) if char == "."):
            if isinstance(inner := values.get(path[:cut]), dict):
                return {**values, path[:cut]: _put(inner, path[cut + 1 :], value)}
        first, dot, rest = path.partition(".")
        if dot and first and rest and first not in values:
            return {**values, first: _put({}, rest, value)}
    return {**values, path: value}


async def delete_run(server: Server, storage_id: str, *, delete_artifacts: bool = False) -> None:
    """Delete a run, and with `delete_artifacts` its artifacts. Raises NotFound if it does not exist any more."""
    before = server.retries["DeleteRun"]
    try:
        await server.graphql("DeleteRun", DELETE, {"id": storage_id, "deleteArtifacts": delete_artifacts})
    except NotFound:
        # An earlier attempt may have done it before its answer was lost.
        if server.retries["DeleteRun"] == before:
            raise


async def append_rows(server: Server, record: RunRecord, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows to the history of a run that has ended, and set their last values in its summary.

    Repeating a request does no harm: each line has its own offset. Raises CommError for a run whose own process may
    still write, ValueError for steps that do not rise.
    """
    if record.state not in ENDED_STATES:
        raise CommError(
            f"{record.entity}/{record.project}/{record.run_id} is {record.state}: its own process writes its history",
            ValueError(record.state),
        )
    complete = numbered(rows, record.server_last_step, time.time())
    summary = dict(record.summary)
    for row in complete:
        summary.update(row)
    files = {
        "wandb-history.jsonl": {"offset": record.server_rows, "content": [dumps(row) for row in complete]},
        "wandb-summary.json": {"offset": 0, "content": [dumps(summary)]},
    }
    await _stream(server, record, files, 0 if record.state == "finished" else 1)


async def append_lines(server: Server, record: RunRecord, offset: int, lines: Sequence[str], *, code: int) -> None:
    """Put history lines behind the first `offset` ones of a run that ended with an exit code.

    Repeating it does no harm, since each line goes to a place of its own. Each request says that the run is complete,
    so that it never counts as running, also where no other one follows; the state may have to be restored.
    """
    await _stream(server, record, {"wandb-history.jsonl": {"offset": offset, "content": list(lines)}}, code)


async def restore_state(server: Server, record: RunRecord) -> None:
    """Give a run the state back that it had before lines were appended."""
    await server.graphql("UpsertBucket", STATE, {"id": record.storage_id, "state": record.state})


async def _stream(server: Server, record: RunRecord, files: Mapping[str, Mapping[str, Any]], code: int) -> None:
    """Send one request of the file stream, as the last one of a run's process is."""
    path = "/".join(quote(part, safe="") for part in (record.entity, record.project, record.run_id))
    body = {"files": files, "complete": True, "exitcode": code}
    await server.post("file_stream", f"files/{path}/file_stream", body)


def numbered(rows: Sequence[Mapping[str, Any]], last: int | None, now: float) -> list[dict[str, Any]]:
    """Return the rows, each with a step and a time. Raises ValueError for a step not after the one before."""
    step = -1 if last is None else last
    complete = []
    for row in rows:
        given = row.get(STEP, step + 1)
        if isinstance(given, bool) or not isinstance(given, int) or given <= step:
            raise ValueError(f"step {given!r} does not come after step {step}")
        step = given
        complete.append({**row, STEP: step, "_timestamp": row.get("_timestamp", now)})
    return complete
