"""Extra fields in a request for runs: facts about the project, the server and the owner of the key.

Also the number of the project's sweeps, and what may change of those that may get runs. All of it comes with the first
page of runs, so that a pass without changes stays one request. Each field is in the official SDK's own queries, or was
seen in other clients; a server that lacks one refuses it once.
"""

from __future__ import annotations

import json
from collections.abc import Container
from typing import Any

from msgspec import Struct, field

from mirror.remote.client import Server
from mirror.remote.errors import Denied, FeatureMissing, Refused
from mirror.store.records import OpenSweeps

_FIELDS: dict[str, dict[str, str | None]] = {
    "Project": {
        **dict.fromkeys(("id", "internalId", "createdAt", "updatedAt", "description", "access", "isBenchmark")),
        **dict.fromkeys(("readOnly", "lastActive", "totalRuns", "totalSweeps")),
        "entity": "Entity",
        "user": "User",
    },
    "Entity": dict.fromkeys(("id", "name")),
    "User": {
        **dict.fromkeys(("id", "name", "username", "email", "admin", "flags", "entity", "deletedAt")),
        "apiKeys": "ApiKeyConnection",
        "teams": "EntityConnection",
    },
    "Viewer": {"defaultEntity": "Entity"},
    "ApiKeyConnection": {"edges": "ApiKeyEdge"},
    "ApiKeyEdge": {"node": "ApiKey"},
    "ApiKey": {"id": None},
    "EntityConnection": {"edges": "EntityEdge"},
    "EntityEdge": {"node": "Entity"},
    "ServerInfo": {
        "cliVersionInfo": None,
        "latestLocalVersionInfo": "LocalVersionInfo",
        "features": "ServerFeature",
    },
    "LocalVersionInfo": dict.fromkeys(("outOfDate", "latestVersionString", "versionOnThisInstanceString")),
    "ServerFeature": dict.fromkeys(("name", "isEnabled")),
    "Sweep": dict.fromkeys(
        ("name", "state", "displayName", "description", "updatedAt", "bestLoss", "runCount", "runCountExpected")
    ),
}
"""The requested fields by type; the value is the type of a field that is an object."""

LACK = "about"
"""In `Server.missing_features`: the server returns runs, but not together with these fields."""

_SUSPECT = "about: a failed request was answered when it was sent again without these fields"
_NOT_NOW = "about: leave these fields out of the next request"


class About(Struct):
    """The requested facts and the server's answers; None for facts that were not returned."""

    server_too: bool
    project: dict[str, Any] | None = None
    server: dict[str, Any] | None = None
    open_sweeps: OpenSweeps = field(default_factory=OpenSweeps)
    """What is mirrored of the project's sweeps; the facts of the open ones are requested again."""
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the server returned of them, by name."""
    _off: bool = False
    _unnamed: bool = False

    def asked(self, server: Server) -> tuple[str, str] | None:
        """Return the selections for the top level and for the project; None if no facts should be requested."""
        if self._off or {LACK, _NOT_NOW} & server.missing_features:
            return None
        root = ""
        if self.server_too:
            viewer = f"{_selected('User', server.missing_features)} {_selected('Viewer', server.missing_features)}"
            root = f"viewer {{ {viewer} }}"
            if "Query.serverInfo" not in server.missing_features and (
                info := _selected("ServerInfo", server.missing_features)
            ):
                root += f" serverInfo {{ {info} }}"
        return root, f"{_selected('Project', server.missing_features)} {self._sweeps(server)}"

    def _sweeps(self, server: Server) -> str:
        """Return the selections for the open sweeps."""
        if "Project.sweep" in server.missing_features:
            return ""
        fields = _selected("Sweep", server.missing_features)
        # JSON's texts are GraphQL's, too.
        return " ".join(
            f"sweep{index}: sweep(sweepName: {json.dumps(name, ensure_ascii=False)}) {{ {fields} }}"
            for index, name in enumerate(self.open_sweeps.facts)
        )

    def refused(self, server: Server, error: Exception) -> bool:
        """Record a refusal. Returns True if the request may succeed without the fields that were refused."""
        named = {self._name(kind, field) for kind, field in error.fields} if isinstance(error, Refused) else set()
        refused = {name for name in named if name and name not in server.missing_features}
        server.missing_features |= refused
        if refused or named:
            return bool(refused)
        if isinstance(error, FeatureMissing | Denied):
            self._off = self._unnamed = True
            return True
        return False

    def failed(self, server: Server) -> None:
        """Record a failed request, whatever the reason: the next one is sent without these fields."""
        self._off = True
        server.missing_features.add(_NOT_NOW)

    def not_to_blame(self) -> None:
        """Record that the server refuses the request without these fields, too."""
        self._off = self._unnamed = False

    def answered(self, server: Server, data: dict[str, Any], *, asked: bool) -> None:
        """Keep the facts of an answer. `asked` is True if the request included these fields."""
        if not asked:
            # Twice in a row is not a coincidence.
            again = _NOT_NOW in server.missing_features and _SUSPECT in server.missing_features
            server.missing_features |= ({LACK} if self._unnamed or again else set()) | (
                {_SUSPECT} if _NOT_NOW in server.missing_features else set()
            )
            server.missing_features.discard(_NOT_NOW)
            return
        server.missing_features.discard(_SUSPECT)
        project = {name: data["project"][name] for name in _FIELDS["Project"] if name in (data.get("project") or {})}
        self.project = _without_keys(project) or None
        answers = data.get("project") or {}
        for index, name in enumerate(self.open_sweeps.facts):
            if found := answers.get(f"sweep{index}"):
                self.sweeps[name] = found
        if self.server_too:
            viewer = data.get("viewer")
            self.server = {"viewer": viewer and _user(viewer)}
            if "serverInfo" in data:
                self.server["serverInfo"] = data["serverInfo"]

    def _name(self, kind: str, field: str) -> str:
        """Return the name of a refused field in `missing_features`; empty if it was not requested here."""
        if kind == "User" and field in _FIELDS["Viewer"]:
            kind = "Viewer"
        alone = (("Query", "serverInfo"), ("Project", "sweep"))
        asked_here = field in _FIELDS.get(kind, {}) or (kind, field) in alone
        return f"{kind}.{field}" if asked_here else ""


def _selected(kind: str, lacks: Container[str]) -> str:
    parts = []
    for name, below in _FIELDS[kind].items():
        if f"{kind}.{name}" in lacks:
            continue
        inner = _selected(below, lacks) if below else ""
        if below and not inner:
            continue
        parts.append(f"{name} {{ {inner} }}" if below else name)
    return " ".join(parts)


def _without_keys(project: dict[str, Any]) -> dict[str, Any]:
    return {**project, "user": _user(project["user"])} if project.get("user") else project


def _user(user: dict[str, Any]) -> dict[str, Any]:
    """Remove API keys from a user: on older servers the name of a key is the key. An empty list is kept."""
    keys = user.get("apiKeys")
    return {name: value for name, value in user.items() if name != "apiKeys" or not (keys and keys.get("edges"))}
