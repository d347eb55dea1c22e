"""Finds the runs whose files a forwarded change adds or deletes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from graphql import FieldNode, GraphQLError, OperationDefinitionNode, parse, value_from_ast_untyped

from mirror.serve.context import RunPath

_BY_PATH = frozenset({"createRunFiles", "markRunFilesUploaded"})
_BY_ID = frozenset({"deleteFiles"})
_MOST = 10_000


class Touched:
    """When files of runs were last changed through this process. Thread-safe."""

    def __init__(self) -> None:
        self._at: OrderedDict[RunPath, datetime] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, run: RunPath) -> None:
        """Record that files of this run are changed now."""
        with self._lock:
            self._at[run] = datetime.now(UTC).replace(tzinfo=None)
            self._at.move_to_end(run)
            while len(self._at) > _MOST:
                self._at.popitem(last=False)

    def when(self, run: RunPath) -> datetime | None:
        """Return the time of the last change; None if there was none."""
        with self._lock:
            return self._at.get(run)


def changed(body: bytes, entity: str | None = None) -> tuple[list[RunPath], list[str]]:
    """Return the runs to which the request adds files, and the ids of the files that it deletes.

    `entity` is the entity of runs for which the request has none.
    """
    runs: list[RunPath] = []
    files: list[str] = []
    try:
        sent = orjson.loads(body)
        document = parse(sent["query"], no_location=True)
        variables: Mapping[str, Any] = sent.get("variables") or {}
    except (ValueError, TypeError, KeyError, AttributeError, GraphQLError):
        return runs, files
    for node in document.definitions:
        fields = node.selection_set.selections if isinstance(node, OperationDefinitionNode) else ()
        for field in fields:
            if not isinstance(field, FieldNode) or field.name.value not in _BY_PATH | _BY_ID:
                continue
            for argument in field.arguments or ():
                value = value_from_ast_untyped(argument.value, dict(variables))
                if not isinstance(value, dict):
                    continue
                if field.name.value in _BY_ID:
                    files += [str(file) for file in value.get("files") or ()]
                else:
                    run_entity = value.get("entityName") or entity
                    runs.append((str(run_entity), str(value.get("projectName")), str(value.get("runName"))))
    return runs, files
