"""Finds the runs whose files, and the projects whose artifacts, sweeps or reports, a forwarded change affects."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, parse, value_from_ast_untyped

from mirror.serve.context import RunPath

_BY_PATH = frozenset({"createRunFiles", "markRunFilesUploaded"})
_BY_ID = frozenset({"deleteFiles"})
_OF_LISTS = frozenset({"upsertSweep", "upsertView"})
_OF_ARTIFACTS = re.compile("Artifact|Aliases")
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


@dataclass
class Changed:
    """What a request changes: runs that get files, and the ids of files that it deletes.

    `artifacts` has the projects and runs whose artifacts it changes, `artifact_ids` ids of artifacts and collections,
    `lists` the projects whose sweeps or reports it changes.
    """

    runs: list[RunPath] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    artifacts: list[Key] = field(default_factory=list)
    artifact_ids: list[str] = field(default_factory=list)
    lists: list[Key] = field(default_factory=list)


def changed(body: bytes, entity: str | None = None) -> Changed:
    """Return what the request changes. `entity` is the entity of runs for which the request has none."""
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
