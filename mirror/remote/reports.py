"""Reports and saved views as the server lists them; it calls both views, and tells them apart by type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, field

from mirror.addresses import report_page
from mirror.errors import AuthError, CommError
from mirror.remote.client import NotFound, Server
from mirror.remote.errors import FeatureMissing, Unreachable
from mirror.remote.run_records import moment
from mirror.store.records import ProjectKey, ViewRecord
from mirror.wandb_json import dumps

LACK = "Project.allViews"
"""In `Server.missing_features`: the server has no reports."""

NO_IDS = "Query.view"
"""In `Server.missing_features`: the server does not return views by id."""

REPORT = "runs"
TYPES = (REPORT, "project-view")
"""The types of reports and of saved views of a project's page."""

_PAGE = 100
_SPECS = 8
"""Specs in one answer; one of them may have megabytes."""

_FAILURES = 4
"""After so many failed specs no more are requested."""

_HEAD = "id name displayName description createdAt updatedAt user { username photoUrl email }"


class Heads(Struct, frozen=True):
    """The views of a project without their specs, by id, each with its type, and the server's time at the request."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked_at: datetime | None = None


class Specs(Struct, frozen=True):
    """What the server returned of some views, by id: the JSON texts of those that exist, and the failures."""

    found: dict[str, str | None] = field(default_factory=dict)
    failed: dict[str, CommError] = field(default_factory=dict)


async def heads(server: Server, project: ProjectKey, asked_from: float) -> Heads:
    """Return every view of a project. `asked_from` is this machine's monotonic time before the request.

    Raises NotFound for a project that does not exist, FeatureMissing on a server without reports.
    """
    found: dict[str, dict[str, Any]] = {}
    after: dict[str, str | None] = dict.fromkeys(TYPES)
    while after:
        variables: dict[str, Any] = {"entity": project.entity, "project": project.project, "first": _PAGE}
        selected = []
        for index, (kind, cursor) in enumerate(after.items()):
            variables |= {f"type{index}": kind, f"after{index}": cursor}
            selected.append(
                f"v{index}: allViews(viewType: $type{index}, first: $first, after: $after{index}) "
                f"{{ edges {{ node {{ {_HEAD} }} cursor }} pageInfo {{ endCursor hasNextPage }} }}"
            )
        declared = ", ".join(f"$type{index}: String, $after{index}: String" for index in range(len(after)))
        document = (
            f"query MirrorViews($entity: String!, $project: String!, $first: Int, {declared}) {{\n"
            f"  project(name: $project, entityName: $entity) {{ {' '.join(selected)} }}\n}}"
        )
        data = await server.graphql("MirrorViews", document, variables)
        if data.get("project") is None:
            raise NotFound(f"{server.base_url} has no project {project}", LookupError(str(project)))
        following: dict[str, str | None] = {}
        for index, (kind, cursor) in enumerate(after.items()):
            connection = data["project"].get(f"v{index}") or {"edges": (), "pageInfo": {}}
            nodes = [edge["node"] for edge in connection["edges"] if edge.get("node")]
            found |= {str(node["id"]): {**node, "type": kind} for node in nodes}
            info = connection["pageInfo"]
            if info.get("hasNextPage") and nodes and info["endCursor"] != cursor:
                following[kind] = info["endCursor"]
        after = following
    return Heads(found, server.clock.at(asked_from))


async def specs(server: Server, project: ProjectKey, nodes: Sequence[Mapping[str, Any]]) -> Specs:
    """Return the JSON texts of these views. Each one that the server cannot return is a failure of its own.

    Raises Unreachable and AuthError, and FeatureMissing if the server has no views.
    """
    answer = Specs()
    waiting = list(nodes)
    most = _SPECS
    while waiting:
        some, waiting = waiting[:most], waiting[most:]
        try:
            if NO_IDS in server.missing_features:
                answer.found.update(await _by_name(server, project, some))
            else:
                answer.found.update(await _by_id(server, some))
        except FeatureMissing:
            if NO_IDS in server.missing_features:
                raise
            server.missing_features.add(NO_IDS)
            waiting = some + waiting
        except (Unreachable, AuthError):
            raise
        except CommError as error:
            if len(some) > 1:
                most, waiting = 1, some + waiting
                continue
            answer.failed[str(some[0]["id"])] = error
            if len(answer.failed) == _FAILURES:
                # The server is probably failing.
                answer.failed.update({str(node["id"]): error for node in waiting})
                break
    return answer


async def _by_id(server: Server, nodes: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    variables = {f"view{index}": str(node["id"]) for index, node in enumerate(nodes)}
    declared = ", ".join(f"${name}: ID!" for name in variables)
    fields = " ".join(f"{name}: view(id: ${name}) {{ id spec }}" for name in variables)
    document = f"query MirrorSpecs({declared}) {{ {fields} }}"
    data = await server.graphql("MirrorSpecs", document, variables, divisible=len(nodes) > 1)
    return {view_id: _spec(data[name].get("spec")) for name, view_id in variables.items() if data.get(name)}


async def _by_name(server: Server, project: ProjectKey, nodes: Sequence[Mapping[str, Any]]) -> dict[str, str | None]:
    """Return the same from a server that lists views by name, as the official client asks, but not by id."""
    variables: dict[str, Any] = {"entity": project.entity, "project": project.project}
    for index, node in enumerate(nodes):
        variables |= {f"name{index}": node.get("name"), f"type{index}": node["type"]}
    declared = ", ".join(f"$name{index}: String, $type{index}: String" for index in range(len(nodes)))
    fields = " ".join(
        f"v{index}: allViews(viewType: $type{index}, viewName: $name{index}) {{ edges {{ node {{ id spec }} }} }}"
        for index in range(len(nodes))
    )
    document = (
        f"query MirrorSpecs($entity: String!, $project: String!, {declared}) {{\n"
        f"  project(name: $project, entityName: $entity) {{ {fields} }}\n}}"
    )
    data = await server.graphql("MirrorSpecs", document, variables, divisible=len(nodes) > 1)
    answers = [edge["node"] for view in (data.get("project") or {}).values() if view for edge in view["edges"]]
    asked = {str(node["id"]) for node in nodes}
    return {str(node["id"]): _spec(node.get("spec")) for node in answers if node and str(node["id"]) in asked}


def _spec(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else dumps(value)


def record_of(
    app_url: str, project: ProjectKey, node: Mapping[str, Any], spec: str | None, asked_at: datetime | None
) -> ViewRecord:
    """Return the record of a view; what cannot be read is null."""
    user = node.get("user")
    view_id, title, is_report = str(node["id"]), node.get("displayName"), node["type"] == REPORT
    return ViewRecord(
        view_id=view_id,
        view_type=node["type"],
        name=_text(node.get("name")),
        title=_text(title),
        description=_text(node.get("description")),
        author=_text(user.get("username")) if isinstance(user, dict) else None,
        created_at=moment(node.get("createdAt")),
        updated_at=moment(node.get("updatedAt")),
        spec=spec,
        url=report_page(app_url, project.entity, project.project, view_id, _text(title)) if is_report else None,
        facts=dumps(dict(node)),
        asked_at=asked_at,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
