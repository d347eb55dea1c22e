"""Finds the runs, files, and projects whose artifacts, sweeps or reports a forwarded change affects."""

from __future__ import annotations

import base64
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, parse, value_from_ast_untyped
from msgspec import Struct, field

from mirror.errors import MirrorError
from mirror.serve.bodies import text_of
from mirror.serve.context import RunPath
from mirror.wandb_json import UNREADABLE

_BY_PATH = frozenset({"createRunFiles", "markRunFilesUploaded"})
_BY_ID = frozenset({"deleteFiles"})
_OF_LISTS = frozenset({"upsertSweep", "upsertView"})
_OF_ARTIFACTS = re.compile("Artifact|Aliases")
_OF_RUNS = frozenset({"upsertBucket", "deleteRun", "updateRunState", "rewindRun", "enqueueSweepRun", "upsertModel"})
_ARTIFACT_IDS = ("artifactID", "artifactSequenceID", "artifactPortfolioID")
_MOST = 10_000


ARTIFACTS = "artifacts"
"""What is changed of a project (entity and project), or used and logged by a run (its path): the start of the key."""

LISTS = "lists"
"""The start of the key of a project (entity and project) whose sweeps or reports are changed."""

Key = tuple[str, ...]
"""The path of a run whose files are changed, or ARTIFACTS or LISTS and the path of a project or run."""


class Touched:
    """When files of runs, artifacts, sweeps and reports were last changed through this process. Thread-safe."""

    def __init__(self) -> None:
        self._at: OrderedDict[Key, datetime] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, key: Key) -> None:
        """Record that this is changed now."""
        with self._lock:
            self._at[key] = datetime.now(UTC).replace(tzinfo=None)
            self._at.move_to_end(key)
            while len(self._at) > _MOST:
                self._at.popitem(last=False)

    def when(self, key: Key) -> datetime | None:
        """Return the time of the last change; None if there was none."""
        with self._lock:
            return self._at.get(key)


class Changed(Struct):
    """What a request changes: runs that get files, and the ids of files that it deletes.

    `artifacts` has the projects and runs whose artifacts it changes, `artifact_ids` ids of artifacts and collections,
    `lists` the projects whose sweeps or reports it changes. `edited` are runs that it changes, creates or deletes; the
    id of a new one may be "", as it is for a new project. `written` are runs whose own process it comes from.
    """

    runs: list[RunPath] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    artifacts: list[Key] = field(default_factory=list)
    artifact_ids: list[str] = field(default_factory=list)
    lists: list[Key] = field(default_factory=list)
    edited: list[RunPath] = field(default_factory=list)
    written: list[RunPath] = field(default_factory=list)


def changed(body: bytes, answer: bytes, entity: str | None = None) -> Changed:
    """Return what the request changes, whose answer is known. `entity` is the one of runs for which it has none."""
    found = Changed()
    try:
        sent = orjson.loads(body)
        document = parse(sent["query"], no_location=True)
        variables: Mapping[str, Any] = sent.get("variables") or {}
    except (ValueError, TypeError, KeyError, AttributeError, GraphQLError):
        return found
    for node in document.definitions:
        fields = node.selection_set.selections if isinstance(node, OperationDefinitionNode) else ()
        for one in fields:
            if not isinstance(one, FieldNode):
                continue
            name = one.name.value
            for argument in one.arguments or ():
                value = value_from_ast_untyped(argument.value, dict(variables))
                if not isinstance(value, dict):
                    continue
                if name in _BY_ID:
                    found.files += [str(file) for file in value.get("files") or ()]
                elif name in _BY_PATH:
                    run_entity = value.get("entityName") or entity
                    found.runs.append((str(run_entity), str(value.get("projectName")), str(value.get("runName"))))
                elif name in _OF_LISTS:
                    found.lists.append((LISTS, str(value.get("entityName") or entity), str(value.get("projectName"))))
                elif name in _OF_RUNS:
                    # Processes name the run when they start or resume it, and in all that they change of it later.
                    by_process = name == "upsertBucket" and value.get("name") and not value.get("state")
                    (found.written if by_process else found.edited).extend(_edited(name, value, answer, entity))
                elif _OF_ARTIFACTS.search(name):
                    _artifacts(found, value, entity)
    return found


def _artifacts(found: Changed, value: Mapping[str, Any], entity: str | None) -> None:
    """Add the projects and runs that the input of a change of artifacts names, and the ids in it."""
    for place in (value, *(alias for alias in value.get("aliases") or () if isinstance(alias, dict))):
        if place.get("projectName"):
            project = (str(place.get("entityName") or entity), str(place["projectName"]))
            found.artifacts.append((ARTIFACTS, *project))
            if place.get("runName"):
                found.artifacts.append((ARTIFACTS, *project, str(place["runName"])))
    found.artifact_ids += [str(value[name]) for name in _ARTIFACT_IDS if value.get(name)]


def ended_run(path: str, body: bytes, encoding: str) -> RunPath | None:
    """Return the run whose process reports its end in this request to `/files/{path}`; None for any other request."""
    match path.split("/"):
        case [entity, project, run_id, "file_stream"]:
            try:
                text = text_of(body, encoding)
            except MirrorError:
                # It is too long; the server has taken it all the same.
                return None
            # Most requests hold nothing but lines, which may be many.
            ends = b'"complete"' in text and _is_complete(text)
            return (entity, project, run_id) if ends else None
        case _:
            return None


def _is_complete(text: bytes) -> bool:
    try:
        return bool(orjson.loads(text).get("complete"))
    except UNREADABLE:
        return False


def _edited(name: str, value: Mapping[str, Any], answer: bytes, entity: str | None) -> list[RunPath]:
    """Return the runs that are read otherwise after a mutation of this input."""
    ids = [value["id"]] if value.get("id") else _answered_ids(answer)
    if found := [path for path in map(_path_in, ids) if path is not None]:
        return found
    is_project = name == "upsertModel"
    project = value.get("name") if is_project else value.get("modelName") or value.get("projectName")
    run_id = "" if is_project else value.get("name") or value.get("runName") or ""
    owner = value.get("entityName") or entity
    return [(owner, project, run_id)] if owner and project else []


def _answered_ids(answer: bytes) -> list[Any]:
    """Return the ids of the runs that a mutation returned."""
    try:
        return [payload["bucket"]["id"] for payload in orjson.loads(answer)["data"].values()]
    except UNREADABLE:
        return []


def _path_in(text: Any) -> RunPath | None:
    """Return the run that an id of the server names, as the official client makes them, too; "" as that of a sweep."""
    try:
        kind, _, name, project, entity = base64.b64decode(text).decode().split(":")
    except UNREADABLE:
        return None
    return entity, project, name if kind == "Run" else ""
