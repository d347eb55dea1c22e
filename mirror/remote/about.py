"""What a request for runs asks besides: facts of the project, and of the server and whoever holds the key.

They come with the first page of runs, so that a pass over nothing new stays one request. Each field stands in the
official SDK's own queries, or was seen in other clients; a server that lacks one refuses it once.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from mirror.remote.client import Server
from mirror.remote.errors import Denied, FeatureMissing

_FIELDS: dict[str, dict[str, str | None]] = {
    "Project": {
        **dict.fromkeys(("id", "internalId", "createdAt", "updatedAt", "description", "access", "isBenchmark")),
        **dict.fromkeys(("readOnly", "lastActive", "totalRuns")),
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
}
"""The fields that are asked for, by type; of one that is an object, its type."""

_REFUSED = re.compile(r"""field ["'`](\w+)["'`] on type ["'`](\w+)["'`]""", re.IGNORECASE)

LACK = "about"
"""In `Server.missing_features`: a server that answers for runs, but not together with any of this."""

_SUSPECT = "about: left out of a request that was answered after it had failed"
_NOT_NOW = "about: not with the next request"


@dataclass
class About:
    """What is asked for, and then what was told; None for what was not."""

    server_too: bool
    project: dict[str, Any] | None = None
    server: dict[str, Any] | None = None
    _off: bool = False
    _unnamed: bool = False

    def asked(self, server: Server) -> tuple[str, str] | None:
        """The selections at the top and within the project; None where nothing is to be asked."""
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
        return root, _selected("Project", server.missing_features)

    def refused(self, server: Server, error: Exception) -> bool:
        """Take note that the server did not answer; True where it may if it is asked again, without what it refused."""
        named = {self._name(kind, field) for field, kind in _REFUSED.findall(str(error))}
        ours = {name for name in named if name and name not in server.missing_features}
        server.missing_features |= ours
        if ours or named:
            return bool(ours)
        if isinstance(error, FeatureMissing | Denied):
            self._off = self._unnamed = True
            return True
        return False

    def failed(self, server: Server) -> None:
        """Take note that no answer came, for whatever reason; what is asked again is asked without any of this."""
        self._off = True
        server.missing_features.add(_NOT_NOW)

    def not_to_blame(self) -> None:
        """Take note that the server refuses the same without any of this."""
        self._off = self._unnamed = False

    def answered(self, server: Server, data: dict[str, Any], *, asked: bool) -> None:
        """Keep what was told."""
        if not asked:
            # Twice in a row is no accident.
            again = _NOT_NOW in server.missing_features and _SUSPECT in server.missing_features
            server.missing_features |= ({LACK} if self._unnamed or again else set()) | (
                {_SUSPECT} if _NOT_NOW in server.missing_features else set()
            )
            server.missing_features.discard(_NOT_NOW)
            return
        server.missing_features.discard(_SUSPECT)
        project = {name: data["project"][name] for name in _FIELDS["Project"] if name in (data.get("project") or {})}
        self.project = _without_keys(project) or None
        if self.server_too:
            viewer = data.get("viewer")
            self.server = {"viewer": viewer and _user(viewer)}
            if "serverInfo" in data:
                self.server["serverInfo"] = data["serverInfo"]

    def _name(self, kind: str, field: str) -> str:
        """What a refused field is called in `lacks`; empty for one that was not asked for here."""
        if kind == "User" and field in _FIELDS["Viewer"]:
            kind = "Viewer"
        asked_here = field in _FIELDS.get(kind, {}) or (kind, field) == ("Query", "serverInfo")
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


def _user(told: dict[str, Any]) -> dict[str, Any]:
    """A user without API keys: on older servers the name of a key is the key. That there are none may be kept."""
    keys = told.get("apiKeys")
    return {name: value for name, value in told.items() if name != "apiKeys" or not (keys and keys.get("edges"))}
